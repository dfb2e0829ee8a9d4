"""What every provider promises, as tests that run against your own.

In a test module, with pytest-asyncio in its automatic mode:

    class TestMyProvider(ProviderSuite):
        def make_provider(self) -> LLMProvider:
            return MyProvider(base_url=...)

It calls the provider about a dozen times; give it a fake server, or a small model.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    PartEnd,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    capabilities_of,
    closing,
    fold,
)
from llmgine.contracts.codec import decode, encode
from llmgine.contracts.llm import FunctionDefinition, NamedTool
from llmgine.errors import InvalidRequestError, ProviderError

__all__ = ["ProviderSuite"]

_AT_ONCE = 3
_HELLO = (ChatMessage.user("Say hello."),)


class ProviderSuite(ABC):
    """The conformance tests of `LLMProvider`: subclass it and say how to make one."""

    @abstractmethod
    def make_provider(self) -> LLMProvider:
        """Return the provider to be tested, ready to be called."""

    def make_request(self) -> LLMRequest:
        """Return a request that is answered with at least a few words of text."""
        return LLMRequest(messages=_HELLO, max_output_tokens=16)

    def make_refused_request(self) -> LLMRequest:
        """Return a request that the provider must refuse: by default it demands a missing tool."""
        return LLMRequest(messages=_HELLO, tool_choice=NamedTool(name="missing"))

    async def test_it_fits_the_protocol_and_has_a_name(self) -> None:
        """A provider without a name can't be told from others in events."""
        provider = self.make_provider()
        assert isinstance(provider, LLMProvider)
        assert provider.name

    async def test_it_answers_whole(self) -> None:
        """`complete` returns an assistant's message with text."""
        response = await self.make_provider().complete(self.make_request())
        assert response.message.role == "assistant"
        assert response.text.strip()
        assert response.provider
        self.check_usage(response)

    async def test_it_streams_from_start_to_end(self) -> None:
        """One `StreamStart` comes first and one `StreamEnd` last."""
        chunks = await self._read(self.make_provider(), self.make_request())
        assert isinstance(chunks[0], StreamStart)
        assert isinstance(chunks[-1], StreamEnd)
        marks = [chunk for chunk in chunks if isinstance(chunk, StreamStart | StreamEnd)]
        assert len(marks) == len(("start", "end"))

    async def test_the_chunks_make_up_an_answer(self) -> None:
        """Folded, a stream is an answer like that of `complete`."""
        chunks = await self._read(self.make_provider(), self.make_request())
        response = fold(chunks)
        assert response.text.strip()
        assert response.message.role == "assistant"
        self.check_usage(response)

    async def test_parts_are_numbered_apart(self) -> None:
        """No chunk belongs to a part that has ended, or to one of another kind."""
        ended: set[int] = set()
        kinds: dict[int, type[LLMChunk]] = {}
        for chunk in await self._read(self.make_provider(), self.make_request()):
            if isinstance(chunk, PartEnd):
                ended.add(chunk.index)
            elif isinstance(chunk, TextDelta | ThinkingDelta | ToolCallDelta):
                assert chunk.index not in ended, f"part {chunk.index} goes on after its end"
                kind = kinds.setdefault(chunk.index, type(chunk))
                assert kind is type(chunk), f"part {chunk.index} is of two kinds"

    async def test_answers_survive_the_codec(self) -> None:
        """Whatever a provider puts into an answer can be stored and sent."""
        response = await self.make_provider().complete(self.make_request())
        assert decode(encode(response)) == response

    async def test_the_request_stays_as_it_is(self) -> None:
        """The caller may send the same request again, to anybody."""
        request = self.make_request()
        before = encode(request)
        await self.make_provider().complete(request)
        await self._read(self.make_provider(), request)
        assert encode(request) == before

    async def test_a_stream_can_be_left(self) -> None:
        """Whoever leaves a stream early finds the provider ready for the next call."""
        provider = self.make_provider()
        async with closing(provider.stream(self.make_request())) as chunks:
            async for _ in chunks:
                break
        assert (await provider.complete(self.make_request())).text

    async def test_a_call_can_be_cancelled(self) -> None:
        """A cancelled call ends as cancelled, and leaves the provider ready for the next."""
        provider = self.make_provider()
        call = asyncio.create_task(provider.complete(self.make_request()))
        await asyncio.sleep(0)
        call.cancel()
        outcomes = await asyncio.gather(call, return_exceptions=True)
        # An answer that was there already is no failure.
        assert isinstance(outcomes[0], asyncio.CancelledError | LLMResponse)
        assert (await provider.complete(self.make_request())).text

    async def test_calls_at_once_are_all_answered(self) -> None:
        """Several conversations share a provider."""
        provider = self.make_provider()
        calls = (provider.complete(self.make_request()) for _ in range(_AT_ONCE))
        assert all(response.text for response in await asyncio.gather(*calls))

    async def test_what_it_cannot_do_is_refused(self) -> None:
        """A refusal is a `ProviderError`, from both methods, before the first chunk."""
        provider = self.make_provider()
        request = self.make_refused_request()
        assert isinstance(await self._error(provider, request, whole=True), ProviderError)
        assert isinstance(await self._error(provider, request, whole=False), ProviderError)

    async def test_its_capabilities_are_true(self) -> None:
        """A provider that says it can't call tools refuses them, instead of dropping them."""
        provider = self.make_provider()
        if capabilities_of(provider).tools:
            return
        tool: FunctionDefinition = {"name": "hello", "description": "", "parameters": {}}
        request = LLMRequest(messages=_HELLO, tools=({"type": "function", "function": tool},))
        error = await self._error(provider, request, whole=True)
        assert isinstance(error, InvalidRequestError)

    def check_usage(self, response: LLMResponse) -> None:
        """Check that no count is negative; what isn't known is `None`."""
        usage = response.usage
        counts = (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens)
        assert all(count is None or count >= 0 for count in counts)

    async def _read(self, provider: LLMProvider, request: LLMRequest) -> list[LLMChunk]:
        return [chunk async for chunk in provider.stream(request)]

    async def _error(
        self, provider: LLMProvider, request: LLMRequest, *, whole: bool
    ) -> ProviderError | None:
        try:
            if whole:
                await provider.complete(request)
            else:
                async with closing(provider.stream(request)) as chunks:
                    async for _ in chunks:
                        return None
        except ProviderError as error:
            return error
        return None

"""What every provider promises, as tests that run against your own.

In a test module, with pytest-asyncio in its automatic mode:

    class TestMyProvider(ProviderSuite):
        def make_provider(self) -> LLMProvider:
            return MyProvider(base_url=...)

It calls the provider some twenty times; give it a fake server, or a small model. A provider that
is an async context manager is entered, and left at the end of each test.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

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
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    ToolResult,
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

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[LLMProvider, None]:
        """Give the provider to a test, and close it if it is one that can be closed."""
        provider = self.make_provider()
        if isinstance(provider, AbstractAsyncContextManager):
            async with provider:
                yield provider
        else:
            yield provider

    async def test_it_fits_the_protocol_and_has_a_name(self) -> None:
        """A provider without a name can't be told from others in events."""
        async with self.entered() as provider:
            assert isinstance(provider, LLMProvider)
            assert provider.name

    async def test_it_answers_whole(self) -> None:
        """`complete` returns an assistant's message with text."""
        async with self.entered() as provider:
            response = await provider.complete(self.make_request())
        assert response.message.role == "assistant"
        assert response.text.strip()
        assert response.provider
        self.check_usage(response)

    async def test_it_streams_from_start_to_end(self) -> None:
        """One `StreamStart` comes first and one `StreamEnd` last."""
        async with self.entered() as provider:
            chunks = await self._read(provider, self.make_request())
        assert isinstance(chunks[0], StreamStart)
        assert isinstance(chunks[-1], StreamEnd)
        marks = [chunk for chunk in chunks if isinstance(chunk, StreamStart | StreamEnd)]
        assert len(marks) == len(("start", "end"))

    async def test_the_chunks_make_up_an_answer(self) -> None:
        """Folded, a stream is an answer like that of `complete`."""
        async with self.entered() as provider:
            response = fold(await self._read(provider, self.make_request()))
        assert response.text.strip()
        assert response.message.role == "assistant"
        assert response.provider
        self.check_usage(response)

    async def test_streams_report_usage_as_whole_answers_do(self) -> None:
        """Whoever counts tokens counts them in streams, too."""
        async with self.entered() as provider:
            whole = await provider.complete(self.make_request())
            streamed = fold(await self._read(provider, self.make_request()))
        assert _reported(whole) == _reported(streamed)

    async def test_parts_are_numbered_apart(self) -> None:
        """No chunk belongs to a part that has ended, or to one of another kind."""
        ended: set[int] = set()
        kinds: dict[int, type[LLMChunk]] = {}
        async with self.entered() as provider:
            chunks = await self._read(provider, self.make_request())
        for chunk in chunks:
            if isinstance(chunk, PartEnd):
                ended.add(chunk.index)
            elif isinstance(chunk, TextDelta | ThinkingDelta | ToolCallDelta):
                assert chunk.index not in ended, f"part {chunk.index} goes on after its end"
                kind = kinds.setdefault(chunk.index, type(chunk))
                assert kind is type(chunk), f"part {chunk.index} is of two kinds"

    async def test_answers_survive_the_codec(self) -> None:
        """Whatever a provider puts into an answer can be stored and sent."""
        async with self.entered() as provider:
            response = await provider.complete(self.make_request())
        assert decode(encode(response)) == response

    async def test_the_request_stays_as_it_is(self) -> None:
        """The caller may send the same request again, to anybody."""
        request = self.make_request()
        before = encode(request)
        async with self.entered() as provider:
            await provider.complete(request)
            await self._read(provider, request)
        assert encode(request) == before

    async def test_an_answer_goes_back_with_the_history(self) -> None:
        """What a provider answered, it takes as part of the next question."""
        request = self.make_request()
        async with self.entered() as provider:
            answer = (await provider.complete(request)).message
            messages = (*request.messages, answer, ChatMessage.user("Say it again."))
            assert (await provider.complete(replace(request, messages=messages))).text

    async def test_a_history_with_tools_of_another_provider_is_taken(self) -> None:
        """A conversation can change its provider; nobody else's reasoning is in the way."""
        request = self.make_request()
        call = ToolCall(id="toolu_01:a", name="look_up", arguments='{"key":  "\\u00e9"}')
        broken = ToolCall(id="", name="look_up", arguments='{"key": ')
        results = (
            ToolResult(tool_call_id=call.id, name=call.name, content="found"),
            ToolResult(tool_call_id=broken.id, name=call.name, content="no JSON", is_error=True),
        )
        thought = ThinkingPart(text="Look it up.", signature="sealed", provider="another")
        messages = (
            ChatMessage.user("Look it up."),
            ChatMessage.assistant(thought, call, broken),
            ChatMessage.tool(*results),
            ChatMessage.assistant("Found.", thought),
            *request.messages,
        )
        async with self.entered() as provider:
            if capabilities_of(provider).tools:
                assert (await provider.complete(replace(request, messages=messages))).text

    async def test_a_stream_can_be_left(self) -> None:
        """Whoever leaves a stream early finds the provider ready for the next call."""
        async with self.entered() as provider:
            async with closing(provider.stream(self.make_request())) as chunks:
                async for _ in chunks:
                    break
            assert (await provider.complete(self.make_request())).text

    async def test_a_call_can_be_cancelled(self) -> None:
        """A cancelled call ends as cancelled, and leaves the provider ready for the next."""
        async with self.entered() as provider:
            call = asyncio.create_task(provider.complete(self.make_request()))
            await asyncio.sleep(0)
            call.cancel()
            outcomes = await asyncio.gather(call, return_exceptions=True)
            # An answer that was there already is no failure.
            assert isinstance(outcomes[0], asyncio.CancelledError | LLMResponse)
            assert (await provider.complete(self.make_request())).text

    async def test_calls_at_once_are_all_answered(self) -> None:
        """Several conversations share a provider."""
        async with self.entered() as provider:
            calls = (provider.complete(self.make_request()) for _ in range(_AT_ONCE))
            assert all(response.text for response in await asyncio.gather(*calls))

    async def test_what_it_cannot_do_is_refused(self) -> None:
        """A refusal is a `ProviderError`, from both methods, before the first chunk.

        Asking again wouldn't help, and the provider is ready for the next call.
        """
        request = self.make_refused_request()
        async with self.entered() as provider:
            for whole in (True, False):
                error = await self._error(provider, request, whole=whole)
                assert isinstance(error, ProviderError)
                assert not error.retryable
            assert (await provider.complete(self.make_request())).text

    async def test_its_capabilities_are_true(self) -> None:
        """A provider that says it can't call tools refuses them, instead of dropping them."""
        async with self.entered() as provider:
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


def _reported(response: LLMResponse) -> tuple[bool, bool]:
    usage = response.usage
    return usage.input_tokens is not None, usage.output_tokens is not None

"""One answer to a request that brings its own history: nothing is kept, whoever asked keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from llmgine.contracts import (
    ChatMessage,
    Command,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    PartEnd,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolExecutor,
    Usage,
)
from llmgine.contracts.stream import ResponseBuilder

from assistant.rounds import CUT_OFF, Hear, HearTools, Rounds

__all__ = ["Answer", "AnswerRequest"]

_BETWEEN = "\n\n"
_Placed: TypeAlias = TextDelta | ThinkingDelta | ToolCallDelta | PartEnd


@dataclass(frozen=True, kw_only=True)
class AnswerRequest(Command[LLMResponse]):
    """Answer a request whose history is its own; the context store has no part in it.

    With tools in the request, the model's calls are the answer. Otherwise the application's own
    tools are offered and run, and what the model says before and after them is one answer, whose
    usage is the sum. Nobody can be asked here: a call that needs approval gets a result that says
    so. The application's model and system prompt stand in where the request names no model and
    has no system message. There is no time limit; cancel the command to end it early.

    Raises:
        ProviderError: a model call failed; `retryable` says whether another may succeed.
        BudgetExceededError: what may be spent is spent.

    Attributes:
        request: what is asked.
        run_tools: whether the application's own tools are offered where the request has none.
        hear: takes the answer's pieces as they come: those of one stream, whatever the number of
            model calls. The model waits for whoever takes its time.
        hear_tools: takes what is no piece of the answer: each message in which the model calls the
            application's own tools, before they run, and then the one with all their results.
    """

    request: LLMRequest
    run_tools: bool = True
    hear: Hear | None = field(default=None, repr=False)
    hear_tools: HearTools | None = field(default=None, repr=False)


class Answer(Rounds):
    """The state of one answer under way.

    Args:
        provider: who answers.
        tools: who runs the tools; `None` where the model's calls are the answer.
        command: what is asked, and who hears of it.
    """

    def __init__(
        self, provider: LLMProvider, tools: ToolExecutor | None, command: AnswerRequest
    ) -> None:
        self._whole = _Whole(command.hear, calls=tools is None)
        super().__init__(provider, tools, self._whole.hear)
        self._in_pieces = command.hear is not None
        self._hear_tools = None if tools is None else command.hear_tools
        self._asked = command.request
        self._said: list[ChatMessage] = []

    async def run(self) -> LLMResponse:
        """Return what all the model's answers are together."""
        return await self._whole.end(await self._answer(), self._usage)

    def _request(self) -> LLMRequest:
        asked, spent = self._asked, self._usage.output_tokens
        if not self._said:
            return asked
        longest = asked.max_output_tokens
        if longest is not None and spent is not None:
            longest = max(1, longest - spent)
        messages = (*asked.messages, *self._said)
        return replace(asked, messages=messages, max_output_tokens=longest)

    async def _asked_for(self, request: LLMRequest) -> LLMResponse:
        if self._in_pieces:
            return await super()._asked_for(request)
        # Pieces that nobody hears would only take time.
        response = await self._provider.complete(request)
        for chunk in _in_large(response):
            await self._whole.hear(chunk)
        return response

    async def _save(self, *messages: ChatMessage) -> None:
        self._said += messages
        for message in messages:
            if self._hear_tools is not None and (message.tool_calls or message.tool_results):
                await self._hear_tools(message)

    async def _keep(self, text: str) -> None:
        """Keep nothing: what has come of it was heard."""


def _in_large(response: LLMResponse) -> Iterator[LLMChunk]:
    """Return a whole answer as chunks, one for each of its parts; its end is told apart."""
    yield StreamStart(
        id=response.id,
        model=response.model,
        provider=response.provider,
        created=response.created,
        request_id=response.request_id,
    )
    for index, part in enumerate(response.message.parts):
        if isinstance(part, TextPart):
            yield TextDelta(index=index, text=part.text)
        else:
            yield PartEnd(index=index, part=part)


class _Whole:
    """Makes one stream of the streams of several answers.

    Args:
        hear: who takes its pieces.
        calls: whether tool calls are part of it.
    """

    def __init__(self, hear: Hear | None, *, calls: bool) -> None:
        self._hear = hear
        self._calls = calls
        self._builder = ResponseBuilder()
        self._started = False
        self._first = 0  # where the parts of the answer under way begin
        self._free = 0  # the first index that no part has yet
        self._spoke = False
        self._pause_due = False

    async def hear(self, chunk: LLMChunk) -> None:
        """Take the next piece of the answer under way."""
        for each in self._pieces(chunk):
            await self._tell(each)

    async def end(self, last: LLMResponse, usage: Usage) -> LLMResponse:
        """Tell the end, and return the whole.

        Args:
            last: the last of the answers.
            usage: the tokens of all.
        """
        # The model calls tools though it was told to come to an end: its answer is cut off.
        cut = bool(last.tool_calls) and not self._calls and last.finish_reason not in CUT_OFF
        end = StreamEnd(
            finish_reason="length" if cut else last.finish_reason,
            finish_raw=last.finish_raw,
            usage=usage,
            stop_sequence=last.stop_sequence,
            message_id=last.message.id,
            service_tier=last.service_tier,
            provider_data=last.provider_data,
        )
        await self._tell(end)
        return self._builder.response()

    async def _tell(self, chunk: LLMChunk) -> None:
        self._builder.add(chunk)
        if self._hear is not None:
            await self._hear(chunk)

    def _pieces(self, chunk: LLMChunk) -> Iterator[LLMChunk]:
        if isinstance(chunk, StreamStart):
            if not self._started:
                yield chunk
            # One index is left free, for what stands between two answers.
            self._first = self._free + 1 if self._started else 0
            self._started, self._pause_due = True, self._spoke
        elif isinstance(chunk, TextDelta):
            if self._pause_due and chunk.text:
                self._pause_due = False
                yield TextDelta(index=self._first - 1, text=_BETWEEN)
            self._spoke = self._spoke or bool(chunk.text)
            yield self._placed(chunk)
        elif isinstance(chunk, ThinkingDelta | ToolCallDelta | PartEnd) and self._belongs(chunk):
            yield self._placed(chunk)

    def _belongs(self, chunk: ThinkingDelta | ToolCallDelta | PartEnd) -> bool:
        call = isinstance(chunk, ToolCallDelta) or (
            isinstance(chunk, PartEnd) and isinstance(chunk.part, ToolCall)
        )
        return self._calls or not call

    def _placed(self, chunk: _Placed) -> LLMChunk:
        """Return a piece with its part's place in the whole."""
        index = self._first + chunk.index
        self._free = max(self._free, index + 1)
        return replace(chunk, index=index) if self._first else chunk

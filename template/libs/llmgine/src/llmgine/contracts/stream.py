"""A streamed answer and a whole one, each made from the other.

Of a finished stream `fold` makes the answer; while one runs, or when it has broken off:

    builder = ResponseBuilder()
    for chunk in chunks:
        builder.add(chunk)
    so_far = builder.response()
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from types import AsyncGeneratorType
from typing import Generic, TypeVar

from llmgine.contracts.chat import ChatMessage, Part, TextPart, ThinkingPart, ToolCall
from llmgine.contracts.llm import (
    USAGE_COUNTS,
    FinishReason,
    LLMChunk,
    LLMResponse,
    PartEnd,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from llmgine.errors import StreamInterruptedError

__all__ = ["ResponseBuilder", "closing", "fold", "fold_stream", "unfold"]

ItemT = TypeVar("ItemT")
_WORDS = re.compile(r"\s*\S+|\s+")


@dataclass(slots=True)
class _Slot:
    """The pieces of one part, in the kind that its first delta named."""

    kind: type[TextPart | ThinkingPart | ToolCall]
    pieces: list[str] = field(default_factory=list[str])
    signature: str | None = None
    id: str = ""
    name: str = ""

    def part(self) -> Part:
        text = "".join(self.pieces)
        if self.kind is TextPart:
            return TextPart(text=text)
        if self.kind is ThinkingPart:
            return ThinkingPart(text=text, signature=self.signature)
        # A provider that streams a call without arguments sends no piece at all.
        return ToolCall(id=self.id, name=self.name, arguments=text or "{}")


def _updated(old: Usage, new: Usage) -> Usage:
    """Return the counts so far, each replaced by the new one where that is reported."""
    reported = {name: count for name in USAGE_COUNTS if (count := getattr(new, name)) is not None}
    return replace(old, **reported, details={**old.details, **new.details})


class ResponseBuilder:
    """Puts an answer together from its chunks, in whatever order they come.

    Parts stand in the order of their indexes. Text, reasoning and tool calls that share an index
    become parts of their own, since some providers number each kind from zero.

    Attributes:
        finished: whether the `StreamEnd` has come.
        empty: whether nothing has come yet.
    """

    def __init__(self) -> None:
        self.finished = False
        self.empty = True
        self._start = StreamStart()
        self._end = StreamEnd()
        self._usage = Usage()
        self._slots: dict[tuple[int, type[Part]], _Slot] = {}
        self._whole: dict[int, Part] = {}

    def add(self, chunk: LLMChunk) -> None:
        """Take the next chunk."""
        self.empty = False
        self._take(chunk)

    @singledispatchmethod
    def _take(self, chunk: object) -> None:
        raise TypeError(f"{type(chunk).__qualname__} is no chunk of an answer")

    @_take.register
    def _(self, chunk: StreamStart) -> None:
        self._start = chunk

    @_take.register
    def _(self, chunk: TextDelta) -> None:
        self._slot(chunk.index, TextPart).pieces.append(chunk.text)

    @_take.register
    def _(self, chunk: ThinkingDelta) -> None:
        slot = self._slot(chunk.index, ThinkingPart)
        slot.pieces.append(chunk.text)
        if chunk.signature is not None:
            slot.signature = chunk.signature

    @_take.register
    def _(self, chunk: ToolCallDelta) -> None:
        slot = self._slot(chunk.index, ToolCall)
        slot.pieces.append(chunk.arguments)
        slot.id = slot.id or chunk.id
        slot.name = slot.name or chunk.name

    @_take.register
    def _(self, chunk: PartEnd) -> None:
        if chunk.part is not None:
            self._whole[chunk.index] = chunk.part

    @_take.register
    def _(self, chunk: UsageUpdate) -> None:
        self._usage = _updated(self._usage, chunk.usage)

    @_take.register
    def _(self, chunk: StreamEnd) -> None:
        self.finished = True
        self._end = chunk
        if chunk.usage is not None:
            self._usage = _updated(self._usage, chunk.usage)

    def _slot(self, index: int, kind: type[TextPart | ThinkingPart | ToolCall]) -> _Slot:
        slot = self._slots.get((index, kind))
        if slot is None:
            slot = self._slots[index, kind] = _Slot(kind)
        return slot

    def _parts(self) -> tuple[Part, ...]:
        parts: list[tuple[int, Part]] = [
            (index, slot.part())
            for (index, _), slot in self._slots.items()
            if index not in self._whole
        ]
        parts += self._whole.items()
        # The sort is stable: kinds that share an index stay in the order of their first deltas.
        return tuple(part for _, part in sorted(parts, key=lambda pair: pair[0]))

    def response(self, *, unfinished: FinishReason = "unknown") -> LLMResponse:
        """Return the answer so far.

        Args:
            unfinished: the finish reason to give as long as no `StreamEnd` has come.
        """
        start, end = self._start, self._end
        return LLMResponse(
            message=ChatMessage(role="assistant", parts=self._parts(), id=end.message_id),
            id=start.id,
            model=start.model,
            provider=start.provider,
            finish_reason=end.finish_reason if self.finished else unfinished,
            finish_raw=end.finish_raw,
            stop_sequence=end.stop_sequence,
            usage=self._usage,
            service_tier=end.service_tier,
            created=start.created,
            request_id=start.request_id,
            provider_data=end.provider_data,
        )


def _finished(builder: ResponseBuilder) -> LLMResponse:
    if not builder.finished:
        response = builder.response()
        message = "the stream ended before the answer was complete"
        raise StreamInterruptedError(message, provider=response.provider or None, partial=response)
    return builder.response()


def fold(chunks: Iterable[LLMChunk]) -> LLMResponse:
    """Return the answer that a finished stream's chunks make up.

    Raises:
        StreamInterruptedError: there was no `StreamEnd`; `partial` holds what there was.
    """
    builder = ResponseBuilder()
    for chunk in chunks:
        builder.add(chunk)
    return _finished(builder)


async def fold_stream(chunks: AsyncIterable[LLMChunk]) -> LLMResponse:
    """Return the answer of a stream, read to its end.

    Raises:
        StreamInterruptedError: the stream ended without a `StreamEnd`.
    """
    builder = ResponseBuilder()
    async for chunk in chunks:
        builder.add(chunk)
    return _finished(builder)


def _deltas(index: int, part: Part) -> Iterator[LLMChunk]:
    if isinstance(part, TextPart):
        for piece in _WORDS.findall(part.text) or [""]:
            yield TextDelta(index=index, text=piece)
    elif isinstance(part, ThinkingPart):
        for piece in _WORDS.findall(part.text):
            yield ThinkingDelta(index=index, text=piece)
        yield ThinkingDelta(index=index, signature=part.signature)
    elif isinstance(part, ToolCall):
        yield ToolCallDelta(index=index, id=part.id, name=part.name)
        for piece in _WORDS.findall(part.arguments):
            yield ToolCallDelta(index=index, arguments=piece)


def unfold(response: LLMResponse) -> Iterator[LLMChunk]:
    """Return a whole answer as the chunks of a stream, a word at a time.

    `fold(unfold(response))` is equal to the response, for messages that a model can send: of the
    assistant's role and without a name or `provider_data` of the message's own.
    """
    yield StreamStart(
        id=response.id,
        model=response.model,
        provider=response.provider,
        created=response.created,
        request_id=response.request_id,
    )
    for index, part in enumerate(response.message.parts):
        builder = ResponseBuilder()
        for chunk in _deltas(index, part):
            builder.add(chunk)
            yield chunk
        said_it_all = builder.response().message.parts == (part,)
        yield PartEnd(index=index, part=None if said_it_all else part)
    yield StreamEnd(
        finish_reason=response.finish_reason,
        finish_raw=response.finish_raw,
        usage=response.usage,
        stop_sequence=response.stop_sequence,
        message_id=response.message.id,
        service_tier=response.service_tier,
        provider_data=response.provider_data,
    )


class _Closing(Generic[ItemT]):
    """Closes a stream at the end of a block.

    A class, since a generator-based context manager is an asynchronous generator itself, which
    the end of the loop would close beside the stream and in no particular order.
    """

    def __init__(self, stream: AsyncIterable[ItemT]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterable[ItemT]:
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        stream = self._stream
        if isinstance(stream, AsyncGeneratorType) and stream.ag_running:
            # Somebody else is closing it: the end of the loop closes every stream at once.
            return
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def closing(stream: AsyncIterable[ItemT]) -> AbstractAsyncContextManager[AsyncIterable[ItemT]]:
    """Close a stream as soon as the block is left, if it is one that can be closed.

        async with closing(provider.stream(request)) as chunks:
            async for chunk in chunks: ...

    A stream that is merely left (by `break`, say) ends only when Python gets round to it.
    """
    return _Closing(stream)

"""Anthropic's answers, whole and streamed, as ours.

Both go through the same blocks, so that a stream makes up the very answer that a whole one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llmgine.contracts.chat import RefusalPart
from llmgine.contracts.llm import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    PartEnd,
    StreamEnd,
    StreamStart,
    UsageUpdate,
)
from llmgine.contracts.stream import fold
from llmgine.providers._sdk.shape import Fields, count
from llmgine.providers._sdk.shape import fields as fields_of
from llmgine.providers.anthropic.blocks import StreamedBlock, part_of, rest_of, some_text, text_of
from llmgine.providers.anthropic.parts import NAME
from llmgine.providers.anthropic.usage import usage_of

__all__ = ["StreamReader", "response_of"]

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause",
}
_MESSAGE_FIELDS = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
)


def _start(message: Fields, request_id: str | None) -> StreamStart:
    return StreamStart(
        id=text_of(message.get("id")),
        model=text_of(message.get("model")),
        provider=NAME,
        request_id=request_id,
    )


def _end(message: Fields, after: int) -> Iterator[LLMChunk]:
    """Yield the end of an answer, and before it, as one more part, why it was refused."""
    reason = text_of(message.get("stop_reason"))
    explanation = text_of(fields_of(message.get("stop_details")).get("explanation"))
    if reason == "refusal" and explanation:
        yield PartEnd(index=after, part=RefusalPart(text=explanation))
    usage = fields_of(message.get("usage"))
    data = rest_of(message, *_MESSAGE_FIELDS) or {}
    words = {name: value for name, value in usage.items() if isinstance(value, str | list)}
    if more := rest_of(words, "service_tier"):
        data["usage"] = more
    yield StreamEnd(
        finish_reason=_FINISH.get(reason, "unknown"),
        finish_raw=reason,
        usage=usage_of(usage),
        stop_sequence=some_text(message.get("stop_sequence")),
        service_tier=some_text(usage.get("service_tier")),
        provider_data=data or None,
    )


def response_of(message: object, request_id: str | None) -> LLMResponse:
    """Return a whole answer.

    Raises:
        ValueError: it isn't one.
    """
    fields = fields_of(message)
    content = fields.get("content")
    blocks = content if isinstance(content, list) else None
    if blocks is None:
        raise ValueError("expected a message with content")
    parts = [PartEnd(index=at, part=part_of(fields_of(block))) for at, block in enumerate(blocks)]
    return fold([_start(fields, request_id), *parts, *_end(fields, len(parts))])


def _given(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


class StreamReader:
    """Makes chunks of the events of a stream.

    Args:
        request_id: Anthropic's id of the call.
    """

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._message: Fields = {}
        self._blocks: dict[int, StreamedBlock] = {}

    def read(self, item: object, /) -> Iterable[LLMChunk]:
        """Return the chunks of the next event.

        Raises:
            ValueError: it makes no sense where it stands.
        """
        return list(self._chunks(fields_of(item)))

    def end(self) -> Iterable[LLMChunk]:
        """Return nothing: an answer has its own end, without which it isn't complete."""
        return ()

    def _chunks(self, event: Fields) -> Iterator[LLMChunk]:
        kind = event.get("type")
        if kind == "message_start":
            self._message = dict(fields_of(event.get("message")))
            yield _start(self._message, self._request_id)
            yield UsageUpdate(usage=usage_of(fields_of(self._message.get("usage"))))
        elif kind == "content_block_start":
            index = self._index(event)
            block = self._blocks[index] = StreamedBlock(
                index, fields_of(event.get("content_block"))
            )
            yield from block.begun()
        elif kind == "content_block_delta":
            yield from self._block(event).grown(fields_of(event.get("delta")))
        elif kind == "content_block_stop":
            yield self._block(event).ended()
        elif kind == "message_delta":
            yield from self._updated(event)
        elif kind == "message_stop":
            yield from _end(self._message, max(self._blocks, default=-1) + 1)

    def _index(self, event: Fields) -> int:
        index = count(event.get("index"))
        if index is None:
            raise ValueError(f"expected an index, found {event.get('index')!r}")
        return index

    def _block(self, event: Fields) -> StreamedBlock:
        block = self._blocks.get(self._index(event))
        if block is None:
            raise ValueError(f"{event.get('type')} of a block that hasn't begun")
        return block

    def _updated(self, event: Fields) -> Iterator[LLMChunk]:
        """Take what is known of the message at its end; its counts are sums, not additions."""
        delta = fields_of(event.get("delta"))
        usage = fields_of(event.get("usage"))
        self._message.update(_given(delta))
        self._message["usage"] = {**fields_of(self._message.get("usage")), **_given(usage)}
        yield UsageUpdate(usage=usage_of(fields_of(self._message.get("usage"))))

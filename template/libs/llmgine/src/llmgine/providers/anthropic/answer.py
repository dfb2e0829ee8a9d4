"""Anthropic's answers, whole and streamed, as ours.

Both go through the same blocks, so that a stream makes up the very answer that a whole one is.
What is newer than this code stays as it came: blocks as `OpaquePart`, fields in `provider_data`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeGuard

from llmgine.contracts.chat import (
    JsonObject,
    JsonValue,
    OpaquePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from llmgine.contracts.llm import (
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
from llmgine.contracts.stream import fold
from llmgine.providers.anthropic.history import NAME

__all__ = ["StreamReader", "response_of"]

_Object: TypeAlias = dict[str, JsonValue]

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
_COUNTS = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "service_tier",
    }
)


def _is_object(value: object) -> TypeGuard[_Object]:
    return isinstance(value, dict)


def _object(value: object) -> _Object:
    return value if _is_object(value) else {}


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _some_text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rest(fields: JsonObject, *known: str) -> _Object | None:
    """Return the fields without a place of their own; `None` where none of them says anything."""
    rest = {name: value for name, value in fields.items() if name not in known}
    return {name: value for name, value in rest.items() if value not in (None, [])} or None


def _part(block: _Object, arguments: str = "") -> Part:
    """Return a block as a part.

    Args:
        block: as it came.
        arguments: a call's, if they came as text.
    """
    kind = block.get("type")
    if kind == "text":
        rest = _rest(block, "type", "text")
        return TextPart(text=_text(block.get("text")), provider_data=rest)
    if kind == "thinking":
        return ThinkingPart(
            text=_text(block.get("thinking")),
            signature=_some_text(block.get("signature")),
            provider=NAME,
            provider_data=_rest(block, "type", "thinking", "signature"),
        )
    if kind == "redacted_thinking":
        redacted, rest = _text(block.get("data")), _rest(block, "type", "data")
        return ThinkingPart(redacted=redacted, provider=NAME, provider_data=rest)
    if kind == "tool_use":
        return ToolCall(
            id=_text(block.get("id")),
            name=_text(block.get("name")),
            arguments=arguments or json.dumps(block.get("input") or {}, ensure_ascii=False),
            provider_data=_rest(block, "type", "id", "name", "input"),
        )
    return OpaquePart(provider=NAME, data=block)


def _details(counts: _Object) -> Iterator[tuple[str, int]]:
    for name, value in counts.items():
        if name not in _COUNTS and (count := _count(value)) is not None:
            yield name, count
        for inner, each in _object(value).items():
            if inner != "thinking_tokens" and (count := _count(each)) is not None:
                yield f"{name}.{inner}", count


def _usage(counts: _Object) -> Usage:
    """Return the tokens; Anthropic's own input leaves out what its cache took in or gave."""
    fresh = _count(counts.get("input_tokens"))
    read = _count(counts.get("cache_read_input_tokens"))
    written = _count(counts.get("cache_creation_input_tokens"))
    thoughts = _object(counts.get("output_tokens_details")).get("thinking_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=_count(counts.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(thoughts),
        details=dict(_details(counts)),
    )


def _start(message: _Object, request_id: str | None) -> StreamStart:
    return StreamStart(
        id=_text(message.get("id")),
        model=_text(message.get("model")),
        provider=NAME,
        request_id=request_id,
    )


def _end(message: _Object, after: int) -> Iterator[LLMChunk]:
    """Yield the end of an answer, and before it, as one more part, why it was refused."""
    reason = _text(message.get("stop_reason"))
    explanation = _text(_object(message.get("stop_details")).get("explanation"))
    if reason == "refusal" and explanation:
        yield PartEnd(index=after, part=RefusalPart(text=explanation))
    usage = _object(message.get("usage"))
    data = _rest(message, *_MESSAGE_FIELDS) or {}
    words = {name: value for name, value in usage.items() if isinstance(value, str | list)}
    if more := _rest(words, "service_tier"):
        data["usage"] = more
    yield StreamEnd(
        finish_reason=_FINISH.get(reason, "unknown"),
        finish_raw=reason,
        usage=_usage(usage),
        stop_sequence=_some_text(message.get("stop_sequence")),
        service_tier=_some_text(usage.get("service_tier")),
        provider_data=data or None,
    )


def response_of(message: object, request_id: str | None) -> LLMResponse:
    """Return a whole answer.

    Raises:
        ValueError: it isn't one.
    """
    content = _object(message).get("content")
    if not _is_object(message) or not isinstance(content, list):
        raise ValueError("expected a message with content")
    parts = [PartEnd(index=at, part=_part(_object(block))) for at, block in enumerate(content)]
    return fold([_start(message, request_id), *parts, *_end(message, len(parts))])


class _Block:
    """A block of which pieces are still coming.

    Args:
        index: its place in the message.
        start: what is known of it from the start.
    """

    def __init__(self, index: int, start: _Object) -> None:
        self._index = index
        self._fields = dict(start)
        self._arguments: list[str] = []
        self._texts: dict[str, list[str]] = {}

    def begun(self) -> Iterator[LLMChunk]:
        """Yield what the start says already."""
        kind, fields = self._fields.get("type"), self._fields
        if kind == "tool_use":
            call, name = _text(fields.get("id")), _text(fields.get("name"))
            yield ToolCallDelta(index=self._index, id=call, name=name)
        elif kind == "text" and (text := _text(fields.get("text"))):
            yield TextDelta(index=self._index, text=text)
        elif kind == "thinking" and (text := _text(fields.get("thinking"))):
            yield ThinkingDelta(index=self._index, text=text)

    def grown(self, delta: _Object) -> Iterator[LLMChunk]:
        """Take the next piece, and yield what it says."""
        kind = delta.get("type")
        if kind == "text_delta":
            yield TextDelta(index=self._index, text=self._more("text", delta.get("text")))
        elif kind == "thinking_delta":
            text = self._more("thinking", delta.get("thinking"))
            yield ThinkingDelta(index=self._index, text=text)
        elif kind == "signature_delta":
            self._fields["signature"] = delta.get("signature")
            signature = _some_text(delta.get("signature"))
            yield ThinkingDelta(index=self._index, signature=signature)
        elif kind == "input_json_delta":
            self._arguments.append(_text(delta.get("partial_json")))
            if self._fields.get("type") == "tool_use":
                yield ToolCallDelta(index=self._index, arguments=self._arguments[-1])
        else:
            self._join(delta)

    def _more(self, name: str, value: JsonValue) -> str:
        """Note more of a text, and return it."""
        piece = _text(value)
        self._texts.setdefault(name, [_text(self._fields.get(name))]).append(piece)
        return piece

    def _join(self, delta: _Object) -> None:
        """Take a piece of a kind that isn't known by joining like with like."""
        given = {name: value for name, value in delta.items() if name != "type"}
        if delta.get("type") == "citations_delta":
            given = {"citations": [delta.get("citation")]}
        for name, value in given.items():
            before = self._fields.get(name)
            if isinstance(value, str):
                self._more(name, value)
            elif isinstance(value, list) and isinstance(before, list):
                self._fields[name] = [*before, *value]
            else:
                self._fields[name] = value

    def part(self) -> Part:
        """Return what the block has come to."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        block, arguments = {**self._fields, **texts}, "".join(self._arguments)
        if arguments and block.get("type") != "tool_use":
            block["input"] = _parsed(arguments, block.get("input"))
        return _part(block, arguments)

    def ended(self) -> PartEnd:
        """Return the end of the part, with the part itself if the deltas didn't say it all."""
        part, said = self.part(), False
        if isinstance(part, TextPart):
            said = part.provider_data is None and bool(part.text)
        elif isinstance(part, ToolCall):
            told = "".join(self._arguments) or "{}"
            said = part.provider_data is None and part.arguments == told
        return PartEnd(index=self._index, part=None if said else part)


def _parsed(text: str, otherwise: JsonValue) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return otherwise  # the answer was cut off in the middle of it
    return value


def _given(fields: _Object) -> _Object:
    return {name: value for name, value in fields.items() if value is not None}


class StreamReader:
    """Makes chunks of the events of a stream.

    Args:
        request_id: Anthropic's id of the call.
    """

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._message: _Object = {}
        self._blocks: dict[int, _Block] = {}

    def read(self, item: object, /) -> Iterable[LLMChunk]:
        """Return the chunks of the next event.

        Raises:
            ValueError: it makes no sense where it stands.
        """
        return list(self._chunks(_object(item)))

    def end(self) -> Iterable[LLMChunk]:
        """Return nothing: an answer has its own end, without which it isn't complete."""
        return ()

    def _chunks(self, event: _Object) -> Iterator[LLMChunk]:
        kind = event.get("type")
        if kind == "message_start":
            self._message = dict(_object(event.get("message")))
            yield _start(self._message, self._request_id)
            yield UsageUpdate(usage=_usage(_object(self._message.get("usage"))))
        elif kind == "content_block_start":
            index = self._index(event)
            block = self._blocks[index] = _Block(index, _object(event.get("content_block")))
            yield from block.begun()
        elif kind == "content_block_delta":
            yield from self._block(event).grown(_object(event.get("delta")))
        elif kind == "content_block_stop":
            yield self._block(event).ended()
        elif kind == "message_delta":
            yield from self._updated(event)
        elif kind == "message_stop":
            yield from _end(self._message, max(self._blocks, default=-1) + 1)

    def _index(self, event: _Object) -> int:
        index = _count(event.get("index"))
        if index is None:
            raise ValueError(f"expected an index, found {event.get('index')!r}")
        return index

    def _block(self, event: _Object) -> _Block:
        block = self._blocks.get(self._index(event))
        if block is None:
            raise ValueError(f"{event.get('type')} of a block that hasn't begun")
        return block

    def _updated(self, event: _Object) -> Iterator[LLMChunk]:
        """Take what is known of the message at its end; its counts are sums, not additions."""
        delta = _object(event.get("delta"))
        usage = _object(event.get("usage"))
        self._message.update(_given(delta))
        self._message["usage"] = {**_object(self._message.get("usage")), **_given(usage)}
        yield UsageUpdate(usage=_usage(_object(self._message.get("usage"))))

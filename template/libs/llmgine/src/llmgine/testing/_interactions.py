"""What a cassette keeps of a model call: the request as it is compared, and what came of it.

Both are JSON, and hold no secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from typing import TypeAlias, TypeVar

from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    MediaPart,
    Part,
    PartEnd,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    UsageUpdate,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.codec import decode, encode
from llmgine.contracts.stream import ResponseBuilder, unfold
from llmgine.errors import CodecError, ProviderError, provider_error
from llmgine.observability.redaction import hidden, is_secret_key, redact_text

__all__ = ["Cleaner", "Outcome", "Table", "answer_so_far", "as_table", "difference", "nearest"]

T = TypeVar("T")
Table: TypeAlias = dict[str, JsonValue]
_LONGEST_DIFFERENCE = 60
_UNSET: tuple[JsonValue, ...] = (None,)
_EMPTY: tuple[JsonValue, ...] = (None, "", [], {})
_BYTES = frozenset({("MediaPart", "data"), ("$bytes", "value")})
_ARGUMENTS = ("ToolCall", "arguments")
_ERROR_FIELDS = ("provider", "status", "provider_code", "request_id", "retry_after", "retryable")


def as_table(value: JsonValue) -> Table:
    """Return a JSON object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


class Cleaner:
    """Takes out what must not be written down, or can't be compared.

    Args:
        scrub: changes every text before it is written or compared: a date, or a temporary folder.
    """

    def __init__(self, scrub: Callable[[str], str] | None = None) -> None:
        self._scrub = scrub

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        return redact_text(text if self._scrub is None else self._scrub(text))

    def request(self, request: LLMRequest) -> Table:
        """Return a request as it is compared: the same for the same question."""
        written = as_table(json.loads(encode(_comparable(request))))
        # In the schema of a tool, a name is a parameter's and has no secret under it.
        tools = self._json(written.pop("tools"), _EMPTY, named=False)
        cleaned = as_table(self._json(written, _EMPTY))
        return {**cleaned, "tools": tools} if tools else cleaned

    def json(self, value: object) -> JsonValue:
        """Return an answer, or a piece of one, as JSON without secrets."""
        return self._json(json.loads(encode(value)), _UNSET)

    def chunks(self, chunks: Sequence[LLMChunk]) -> list[JsonValue]:
        """Return the chunks of an answer without secrets, also those that lie across several."""
        cleaned = [self.json(chunk) for chunk in chunks]
        whole = _read(self.json(answer_so_far(chunks)), LLMResponse)
        if answer_so_far(map(_read_chunk, cleaned)) == whole:
            return cleaned
        anew = [self.json(chunk) for chunk in unfold(whole)]
        return anew if any(isinstance(chunk, StreamEnd) for chunk in chunks) else anew[:-1]

    def _json(
        self, value: JsonValue, dropped: Sequence[JsonValue], *, named: bool = True
    ) -> JsonValue:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._json(item, dropped, named=named) for item in value]
        return self._table(value, dropped, named=named) if isinstance(value, dict) else value

    def _table(self, value: Table, dropped: Sequence[JsonValue], *, named: bool) -> Table:
        tag = str(value.get("type", ""))
        # A contract's fields may be left out; any other object is somebody else's.
        dropped_here = dropped if tag[:1].isupper() else ()
        cleaned: Table = {}
        for key, item in value.items():
            if item in dropped_here:
                continue
            if (tag, key) in _BYTES:
                cleaned[key] = item  # not the text that it looks like
            elif named and is_secret_key(key):
                cleaned[key] = hidden(item)
            elif (tag, key) == _ARGUMENTS and isinstance(item, str):
                cleaned[key] = self._arguments(item)
            else:
                cleaned[key] = self._json(item, dropped, named=named)
        return cleaned

    def _arguments(self, text: str) -> str:
        """Return a call's arguments as they came; with a secret in them they stay JSON."""
        text = text if self._scrub is None else self._scrub(text)
        redacted = redact_text(text)
        try:
            value: JsonValue = json.loads(text)
        except (ValueError, RecursionError):
            return redacted
        cleaned = self._json(value, ())
        if redacted == text and cleaned == value:
            return text
        return json.dumps(cleaned, ensure_ascii=False)


def _comparable(request: LLMRequest) -> LLMRequest:
    """Return a request without what differs from run to run but asks for no other answer."""
    numbers: dict[str, str] = {}
    messages = tuple(_comparable_message(message, numbers) for message in request.messages)
    return replace(request, messages=messages, timeout=None, user_id=None, metadata={})


def _comparable_message(message: ChatMessage, numbers: dict[str, str]) -> ChatMessage:
    parts = tuple(_comparable_part(part, numbers) for part in message.parts)
    message = replace(message, id=None, parts=parts)
    if message.role != "assistant":
        return message
    # What a provider put into its answer for itself comes back to it in the next request.
    plain = (
        replace(part, provider_data=None) if isinstance(part, TextPart) else part for part in parts
    )
    return replace(message, parts=tuple(plain), provider_data=None)


def _comparable_part(part: Part, numbers: dict[str, str]) -> Part:
    if isinstance(part, ToolCall):
        return replace(part, id=_number(part.id, numbers), provider_data=None)
    if isinstance(part, ToolResult):
        return replace(part, tool_call_id=_number(part.tool_call_id, numbers))
    if isinstance(part, ThinkingPart):
        return replace(part, id=None, signature=None, provider_data=None)
    if isinstance(part, MediaPart) and part.data is not None:
        digest = hashlib.sha256(part.data).hexdigest()
        return replace(part, data=None, url=f"sha256:{digest}")
    return part


def _number(call_id: str, numbers: dict[str, str]) -> str:
    """Return an id by the order of calls: providers make theirs up."""
    return numbers.setdefault(call_id, f"call-{len(numbers) + 1}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        response: the whole answer, where it was asked for as one; beside an error what had come.
        chunks: its pieces, where it was asked for as a stream.
        error: what it ended in, if it failed.
        left: whether the stream was left by its reader, so that its end isn't known.
    """

    response: LLMResponse | None = None
    chunks: tuple[LLMChunk, ...] | None = None
    error: ProviderError | None = None
    left: bool = False

    def written(self, cleaner: Cleaner) -> Table:
        """Return it as JSON without secrets."""
        table: Table = {}
        if self.response is not None:
            table["response"] = cleaner.json(self.response)
        if self.chunks is not None:
            table["chunks"] = cleaner.chunks(self.chunks)
        if self.error is not None:
            table["error"] = _written_error(self.error, cleaner)
            partial = self.error.partial
            if self.chunks is None and isinstance(partial, LLMResponse):
                table["response"] = cleaner.json(partial)
        return {**table, "left": True} if self.left else table

    @staticmethod
    def read(table: Table) -> Outcome:
        """Return what was written.

        Raises:
            CodecError: it can't be read.
        """
        response, chunks = table.get("response"), table.get("chunks")
        error = as_table(table.get("error"))
        if not (response or error or isinstance(chunks, list)):
            raise CodecError("expected a response, chunks or an error")
        return Outcome(
            response=_read(response, LLMResponse) if response else None,
            chunks=tuple(map(_read_chunk, chunks)) if isinstance(chunks, list) else None,
            error=_read_error(error) if error else None,
            left=table.get("left") is True,
        )


def _written_error(error: ProviderError, cleaner: Cleaner) -> Table:
    given: Table = {"code": error.code, "message": cleaner.text(str(error))}
    given |= {name: vars(error).get(name) for name in _ERROR_FIELDS}
    given["retryable"] = error.retryable
    return {name: value for name, value in given.items() if value is not None}


def _read_error(table: Table) -> ProviderError:
    kind = provider_error(str(table.get("code")))
    error = kind(str(table.get("message", "")))
    vars(error).update({name: table[name] for name in _ERROR_FIELDS if name in table})
    return error


def _read(value: JsonValue, expected: type[T]) -> T:
    return decode(json.dumps(value).encode(), expected)


def _read_chunk(value: JsonValue) -> LLMChunk:
    chunk = decode(json.dumps(value).encode())
    if isinstance(chunk, TextDelta | ThinkingDelta | ToolCallDelta | PartEnd | UsageUpdate):
        return chunk
    if isinstance(chunk, StreamStart | StreamEnd):
        return chunk
    raise CodecError(f"expected a chunk of an answer, found {type(chunk).__qualname__}")


def answer_so_far(chunks: Iterable[LLMChunk]) -> LLMResponse:
    """Return what chunks make up, finished or not."""
    builder = ResponseBuilder()
    for chunk in chunks:
        builder.add(chunk)
    return builder.response()


def _lines(request: Table) -> list[str]:
    return json.dumps(request, indent=1, ensure_ascii=False).splitlines()


def nearest(asked: Table, recorded: Iterable[Table]) -> Table | None:
    """Return the recorded request that has most in common with the one that was asked.

    Lines are counted, wherever they stand: comparing them in order takes minutes where
    conversations are long.
    """
    lines = Counter(_lines(asked))

    def likeness(request: Table) -> float:
        others = Counter(_lines(request))
        return (lines & others).total() / (lines.total() + others.total())

    return max(recorded, key=likeness, default=None)


def difference(asked: Table, recorded: Table) -> str:
    """Return what was asked for otherwise than it was recorded, line by line."""
    found = list(
        unified_diff(_lines(recorded), _lines(asked), "recorded", "asked", lineterm="", n=2)
    )
    cut = len(found) - _LONGEST_DIFFERENCE
    more = [f"... and {cut} lines more"] if cut > 0 else []
    return "\n".join([*found[:_LONGEST_DIFFERENCE], *more])

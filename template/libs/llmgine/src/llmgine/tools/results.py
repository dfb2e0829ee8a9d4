"""What a tool returns, as text for a model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeGuard

from pydantic_core import to_json

from llmgine.contracts import MediaPart, TextPart, ToolCall, ToolResult
from llmgine.errors import ToolError

__all__ = ["failure", "success"]

Parts: TypeAlias = tuple[TextPart | MediaPart, ...]

# Room for the mark that tells what was cut.
_MARK = 64


def success(call: ToolCall, value: object, limit: int) -> ToolResult:
    """Return a tool's value as the result of a call, with at most `limit` bytes of text.

    Raises:
        Exception: the value can't be told in JSON.
    """
    if isinstance(value, ToolResult):
        content = value.content if isinstance(value.content, str) else tuple(value.content)
        return replace(value, tool_call_id=call.id, name=call.name, content=_within(content, limit))
    return ToolResult(tool_call_id=call.id, name=call.name, content=_within(_told(value), limit))


def failure(call: ToolCall, error: ToolError, limit: int) -> ToolResult:
    """Return an error as the result of a call."""
    return ToolResult(
        tool_call_id=call.id,
        name=call.name,
        content=_within(str(error), limit),
        is_error=True,
        error_code=error.code,
    )


def _told(value: object) -> str | Parts:
    if isinstance(value, str):
        # Not `str(value)`: a member of a `StrEnum` may say anything there.
        return str.__str__(value)
    if parts := _parts(value):
        return parts
    if inspect.isgenerator(value):
        raise TypeError("a generator has no end that could be waited for; return a list")
    try:
        return to_json(value, inf_nan_mode="strings").decode()
    except ValueError:
        # Bytes that are no text.
        return to_json(value, inf_nan_mode="strings", bytes_mode="base64").decode()


def _parts(value: object) -> Parts:
    """Return the parts that a value is, or is a list of; none where it holds anything else."""
    values = value if _is_sequence(value) else (value,)
    parts = tuple(each for each in values if isinstance(each, TextPart | MediaPart))
    return parts if len(parts) == len(values) else ()


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _within(content: str | Parts, limit: int) -> str | Parts:
    if not isinstance(content, str):
        return tuple(_cut_parts(content, limit))
    if content.isascii() and len(content) <= limit:
        return content
    return "".join(part.text for part in _texts(_cut_parts((TextPart(text=content),), limit)))


def _cut_parts(parts: Parts, limit: int) -> Iterator[TextPart | MediaPart]:
    """Yield the parts as far as the text is within the limit, and what is missing."""
    size = sum(len(_bytes(part)) for part in _texts(parts))
    room = limit if size <= limit else limit - _MARK
    missing = size
    for part in parts:
        if isinstance(part, TextPart):
            text = _bytes(part)[:room].decode("utf-8", "ignore")
            room -= len(text.encode())
            missing -= len(text.encode())
            if text:  # providers refuse empty ones
                yield replace(part, text=text)
        else:
            yield part
    if missing:
        yield TextPart(text=f"\n[cut: {missing} of {size} bytes are missing]")


def _texts(parts: Iterable[TextPart | MediaPart]) -> Iterator[TextPart]:
    return (part for part in parts if isinstance(part, TextPart))


def _bytes(part: TextPart) -> bytes:
    # Half of a surrogate pair has no UTF-8 form.
    return part.text.encode("utf-8", "replace")

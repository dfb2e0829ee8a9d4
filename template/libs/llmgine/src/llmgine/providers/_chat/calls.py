"""The tool calls of an answer, as far as they have come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmgine.contracts import LLMChunk, OpaquePart, PartEnd, ToolCall, ToolCallDelta, new_id
from llmgine.contracts.chat import JsonValue
from llmgine.providers._sdk.shape import Fields, fields, joined, known, text

__all__ = ["AnswerCalls"]

_READ_OF_CALL = ("index", "id", "type", "function", "custom")


@dataclass(slots=True)
class _Call:
    """A tool call as far as it has come; `custom` in a tool's own form that isn't ours."""

    id: str
    key: JsonValue = None
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])
    extra: Fields = field(default_factory=dict[str, JsonValue])
    custom: Fields | None = None


class AnswerCalls:
    """Tool calls, in the order in which they began.

    Args:
        provider: the provider's name.
        first: the index of the first one.
    """

    def __init__(self, provider: str, first: int) -> None:
        self._provider = provider
        self._first = first
        self._calls: list[_Call] = []

    def __len__(self) -> int:
        """Return how many have begun."""
        return len(self._calls)

    def read(self, piece: Fields) -> Iterator[LLMChunk]:
        """Yield what the next piece of a call says."""
        at = self._place(piece)
        call = self._calls[at]
        extra = known(piece, *_READ_OF_CALL)
        call.extra = fields(joined(call.extra, extra))
        if piece.get("custom") is not None:
            call.custom = fields(joined(call.custom, piece["custom"]))
            return
        function = fields(piece.get("function"))
        first = not call.arguments
        name = "" if call.name else text(function.get("name"))
        call.name = call.name or name
        arguments = text(function.get("arguments"))
        call.arguments.append(arguments)
        yield ToolCallDelta(
            index=self._first + at,
            id=call.id if first else "",
            name=name,
            arguments=arguments,
        )

    def ends(self) -> Iterator[LLMChunk]:
        """Yield the end of each call."""
        for at, call in enumerate(self._calls):
            yield PartEnd(index=self._first + at, part=self._special(call))

    def _place(self, piece: Fields) -> int:
        """Return which call a piece belongs to; a new one where it begins one.

        Some servers send no index, or the same for all calls; some repeat the id in each piece.
        """
        key, given = piece.get("index"), text(piece.get("id"))
        named = bool(text(fields(piece.get("function")).get("name")) or piece.get("custom"))
        begins = named and (bool(given) or key is None)
        for at, call in reversed(list(enumerate(self._calls))):
            if call.id == given or (call.key == key and not begins):
                return at
        self._calls.append(_Call(id=given or f"call_{new_id()}", key=key))
        return len(self._calls) - 1

    def _special(self, call: _Call) -> ToolCall | OpaquePart | None:
        """Return a call that is more than its deltas said."""
        if call.custom is not None:
            whole: Fields = {**call.extra, "id": call.id, "type": "custom", "custom": call.custom}
            return OpaquePart(provider=self._provider, data={"tool_calls": [whole]})
        if not call.extra:
            return None
        arguments = "".join(call.arguments) or "{}"
        return ToolCall(id=call.id, name=call.name, arguments=arguments, provider_data=call.extra)

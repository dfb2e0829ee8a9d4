"""The blocks of Anthropic's answers, whole or in pieces, as parts.

What is newer than this code stays as it came: blocks as `OpaquePart`, fields in `provider_data`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from llmgine.contracts.chat import (
    JsonObject,
    JsonValue,
    OpaquePart,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from llmgine.contracts.llm import LLMChunk, PartEnd, TextDelta, ThinkingDelta, ToolCallDelta
from llmgine.providers._sdk.shape import Fields, known
from llmgine.providers.anthropic.parts import NAME

__all__ = ["StreamedBlock", "part_of", "rest_of", "some_text", "text_of"]


def text_of(value: JsonValue) -> str:
    """Return a text; an empty one for anything else."""
    return value if isinstance(value, str) else ""


def some_text(value: JsonValue) -> str | None:
    """Return a text, if it is one."""
    return value if isinstance(value, str) else None


def rest_of(fields: JsonObject, *placed: str) -> Fields | None:
    """Return the fields without a place of their own; `None` where none of them says anything."""
    return known(fields, *placed) or None


def part_of(block: Fields, arguments: str = "") -> Part:
    """Return a block as a part.

    Args:
        block: as it came.
        arguments: a call's, if they came as text.
    """
    kind = block.get("type")
    if kind == "text":
        rest = rest_of(block, "type", "text")
        return TextPart(text=text_of(block.get("text")), provider_data=rest)
    if kind == "thinking":
        return ThinkingPart(
            text=text_of(block.get("thinking")),
            signature=some_text(block.get("signature")),
            provider=NAME,
            provider_data=rest_of(block, "type", "thinking", "signature"),
        )
    if kind == "redacted_thinking":
        redacted, rest = text_of(block.get("data")), rest_of(block, "type", "data")
        return ThinkingPart(redacted=redacted, provider=NAME, provider_data=rest)
    if kind == "tool_use":
        return ToolCall(
            id=text_of(block.get("id")),
            name=text_of(block.get("name")),
            arguments=arguments or json.dumps(block.get("input") or {}, ensure_ascii=False),
            provider_data=rest_of(block, "type", "id", "name", "input"),
        )
    return OpaquePart(provider=NAME, data=block)


class StreamedBlock:
    """A block of which pieces are still coming.

    Args:
        index: its place in the message.
        start: what is known of it from the start.
    """

    def __init__(self, index: int, start: Fields) -> None:
        self._index = index
        self._fields = dict(start)
        self._arguments: list[str] = []
        self._texts: dict[str, list[str]] = {}

    def begun(self) -> Iterator[LLMChunk]:
        """Yield what the start says already."""
        kind, fields = self._fields.get("type"), self._fields
        if kind == "tool_use":
            call, name = text_of(fields.get("id")), text_of(fields.get("name"))
            yield ToolCallDelta(index=self._index, id=call, name=name)
        elif kind == "text" and (text := text_of(fields.get("text"))):
            yield TextDelta(index=self._index, text=text)
        elif kind == "thinking" and (text := text_of(fields.get("thinking"))):
            yield ThinkingDelta(index=self._index, text=text)

    def grown(self, delta: Fields) -> Iterator[LLMChunk]:
        """Take the next piece, and yield what it says."""
        kind = delta.get("type")
        if kind == "text_delta":
            yield TextDelta(index=self._index, text=self._more("text", delta.get("text")))
        elif kind == "thinking_delta":
            text = self._more("thinking", delta.get("thinking"))
            yield ThinkingDelta(index=self._index, text=text)
        elif kind == "signature_delta":
            signature = self._fields["signature"] = delta.get("signature")
            yield ThinkingDelta(index=self._index, signature=some_text(signature))
        elif kind == "input_json_delta":
            self._arguments.append(text_of(delta.get("partial_json")))
            if self._fields.get("type") == "tool_use":
                yield ToolCallDelta(index=self._index, arguments=self._arguments[-1])
        else:
            self._join(delta)

    def _more(self, name: str, value: JsonValue) -> str:
        """Note more of a text, and return it."""
        piece = text_of(value)
        self._texts.setdefault(name, [text_of(self._fields.get(name))]).append(piece)
        return piece

    def _join(self, delta: Fields) -> None:
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
        return part_of(block, arguments)

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

"""Parts of messages as the blocks that Anthropic takes.

What only another provider understands stays behind, which is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from llmgine.contracts.chat import (
    JsonObject,
    MediaPart,
    OpaquePart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.errors import InvalidRequestError
from llmgine.providers.anthropic.calls import CallIds, arguments_of
from llmgine.providers.anthropic.media import source_of

__all__ = ["NAME", "Block", "PartWriter"]

NAME = "anthropic"

Block: TypeAlias = dict[str, object]

# What each kind of block may carry besides its content. `provider_data` may also hold what another
# provider sent, which Anthropic would refuse.
_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"cache_control", "citations"}),
    "image": frozenset({"cache_control", "transformations"}),
    "document": frozenset({"cache_control", "citations", "context", "title"}),
    "tool_use": frozenset({"cache_control", "caller", "toolset_name"}),
    "message": frozenset({"cache_control"}),
}


def _is_ours(part: ThinkingPart) -> bool:
    """Tell whether Anthropic made and sealed it.

    Thoughts that were cut off have no seal, and Anthropic would refuse the conversation for good.
    """
    sealed = bool(part.signature) or part.redacted is not None
    return sealed and part.provider in {NAME, None}


class PartWriter:
    """Writes down the parts of one conversation, in their order.

    Args:
        refusal: makes the error for what Anthropic can't take.

    Attributes:
        left_out: what had to stay behind, in words.
    """

    def __init__(self, refusal: Callable[[str], InvalidRequestError]) -> None:
        self.left_out: set[str] = set()
        self._refusal = refusal
        self._ids = CallIds()

    def data(self, kind: str, data: JsonObject | None) -> Block:
        """Return of `provider_data` what Anthropic knows."""
        given = data or {}
        known: Block = {name: given[name] for name in given if name in _FIELDS[kind]}
        if len(known) < len(given):
            self.left_out.add("provider_data of another provider")
        return known

    def text(self, part: TextPart) -> Block | None:
        """Return the block of a text; none for an empty one."""
        if not part.text.strip():
            return None  # other providers send texts without a word, which Anthropic refuses
        return {"type": "text", "text": part.text, **self.data("text", part.provider_data)}

    def opaque(self, part: OpaquePart) -> Block | None:
        """Return the block that a part holds; none if it is another provider's."""
        if part.provider == NAME:
            return dict(part.data)
        self.left_out.add(f"parts that only {part.provider!r} understands")
        return None

    def thinking(self, part: ThinkingPart) -> Block | None:
        """Return the block of a thought; none if Anthropic hasn't sealed it."""
        if not _is_ours(part):
            self.left_out.add("reasoning that Anthropic hasn't signed")
            return None
        block: Block = {
            "type": "thinking",
            "thinking": part.text,
            "signature": part.signature or "",
        }
        if part.redacted is not None:
            block = {"type": "redacted_thinking", "data": part.redacted}
        return {**block, **(part.provider_data or {})}

    def call(self, part: ToolCall, turn: int) -> Block:
        """Return the block of a call, one of the calls of a turn."""
        arguments = arguments_of(part.arguments)
        if arguments is None:
            self.left_out.add("arguments that are no JSON object, for which {} was sent")
        return {
            "type": "tool_use",
            "id": self._ids.of_call(part.id, turn),
            "name": part.name,
            "input": arguments or {},
            **self.data("tool_use", part.provider_data),
        }

    def result(self, part: ToolResult) -> Block:
        """Return the block of a call's result."""
        block: Block = {
            "type": "tool_result",
            "tool_use_id": self._ids.of_result(part.tool_call_id),
        }
        if content := self._content(part):
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return block

    def _content(self, part: ToolResult) -> str | list[Block]:
        if isinstance(part.content, str):
            return part.content
        blocks = (
            self.text(each) if isinstance(each, TextPart) else self.media(each)
            for each in part.content
        )
        return [block for block in blocks if block is not None]

    def media(self, part: MediaPart) -> Block:
        """Return the block of a picture or a document."""
        if part.kind not in {"image", "document"}:
            raise self._refusal(f"messages: images and documents are taken, {part.kind} isn't")
        block: Block = {"type": part.kind, "source": source_of(part, self._refusal)}
        if part.kind == "document" and part.name:
            block["title"] = part.name
        return {**block, **self.data(part.kind, part.provider_data)}

"""A conversation as Anthropic takes it: turns of blocks that alternate between user and assistant.

Consecutive messages of one side become one turn, all tool results of a turn come first in it, and
system messages stand apart. A history that another provider made is taken as well: its reasoning
and its private parts stay behind, which is noted, and its ids are made to fit.
"""

from __future__ import annotations

from collections.abc import Callable

from llmgine.contracts.chat import (
    ChatMessage,
    MediaPart,
    OpaquePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.errors import InvalidRequestError
from llmgine.providers.anthropic.parts import Block, PartWriter

__all__ = ["Conversation"]


class Conversation:
    """Takes messages, oldest first, and writes them down as Anthropic's.

    Args:
        refusal: makes the error for what Anthropic can't take.

    Attributes:
        system: the blocks of the system prompt.
        turns: the user's and the assistant's, by turns.
        left_out: what had to stay behind, in words.
    """

    def __init__(self, refusal: Callable[[str], InvalidRequestError]) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self._refusal = refusal
        self._parts = PartWriter(refusal)
        self.left_out = self._parts.left_out
        self._role = ""
        self._blocks: list[Block] = []
        self._count = 0

    def add(self, message: ChatMessage) -> None:
        """Take the next message.

        Raises:
            InvalidRequestError: it holds what Anthropic can't take.
        """
        self._count += 1
        blocks = [each for part in message.parts if (each := self._block(message, part))]
        if blocks:
            # What holds for a whole message, such as where a cache ends, stands in its last block.
            blocks[-1].update(self._parts.data("message", message.provider_data))
            self._sign(message, blocks)
        if message.role == "system":
            self.system.extend(blocks)
            return
        role = "assistant" if message.role == "assistant" else "user"
        if blocks and role != self._role:
            self.close()
            self._role = role
        self._blocks.extend(blocks)

    def close(self) -> None:
        """End the turn, and write it down if there is anything in it."""
        if self._blocks:
            # Stable: results keep their order in front, and all else keeps its own behind them.
            self._blocks.sort(key=lambda block: block.get("type") != "tool_result")
            self.turns.append({"role": self._role, "content": self._blocks})
        self._blocks = []

    def _sign(self, message: ChatMessage, blocks: list[Block]) -> None:
        """Say who speaks: for want of a field for it, in front of a user's text."""
        if message.name is None:
            return
        first = next((block for block in blocks if block.get("type") == "text"), None)
        if message.role == "user" and first is not None:
            first["text"] = f"{message.name}: {first['text']}"
        else:
            self.left_out.add("names of speakers")

    def _block(self, message: ChatMessage, part: Part) -> Block | None:
        if isinstance(part, TextPart):
            return self._parts.text(part)
        if isinstance(part, OpaquePart):
            return self._parts.opaque(part)
        if message.role == "assistant":
            return self._said(message, part)
        if message.role != "system":
            return self._heard(message, part)
        raise self._misplaced(message, part)

    def _said(self, message: ChatMessage, part: Part) -> Block | None:
        """Return the block of a part that only an assistant's message may hold."""
        if isinstance(part, ToolCall):
            return self._parts.call(part, self._count)
        if isinstance(part, ThinkingPart):
            return self._parts.thinking(part)
        if isinstance(part, RefusalPart):
            return self._parts.text(TextPart(text=part.text))
        raise self._misplaced(message, part)

    def _heard(self, message: ChatMessage, part: Part) -> Block:
        """Return the block of a part that only a user's or a tool's message may hold."""
        if isinstance(part, MediaPart):
            return self._parts.media(part)
        if isinstance(part, ToolResult):
            return self._parts.result(part)
        raise self._misplaced(message, part)

    def _misplaced(self, message: ChatMessage, part: Part) -> InvalidRequestError:
        kind = type(part).__name__
        return self._refusal(f"messages: no {kind} is taken in a message of role {message.role!r}")

"""Copies of chat messages that share nothing that can change."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from llmgine.contracts import ChatMessage, OpaquePart, Part, RefusalPart, ToolResult

__all__ = ["copied"]


def _copied_part(part: Part) -> Part:
    if isinstance(part, RefusalPart):
        return part
    if isinstance(part, OpaquePart):
        return deepcopy(part)
    if isinstance(part, ToolResult):
        return part if isinstance(part.content, str) else deepcopy(part)
    return part if part.provider_data is None else deepcopy(part)


def copied(message: ChatMessage) -> ChatMessage:
    """Return a message that no change to the given one's mappings can reach.

    Most messages hold nothing that can change, and are returned as they are.
    """
    parts = tuple(_copied_part(part) for part in message.parts)
    same = all(new is old for new, old in zip(parts, message.parts, strict=True))
    if same and message.provider_data is None and type(message.parts) is tuple:
        return message
    return replace(message, parts=parts, provider_data=deepcopy(message.provider_data))

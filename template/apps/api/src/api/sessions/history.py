"""Conversations as JSON, for people to look at."""

from __future__ import annotations

from typing import assert_never

from llmgine.contracts import (
    ChatMessage,
    MediaPart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts import Part as ChatPart

from api.sessions import models
from api.sessions.texts import written

__all__ = ["message_of"]


def message_of(message: ChatMessage) -> models.Message:
    """Return a message as it is shown."""
    return models.Message(role=message.role, parts=[_part(part) for part in message.parts])


def _part(part: ChatPart) -> models.Part:
    match part:
        case TextPart() | RefusalPart():
            return models.TextPart(text=written(part.text))
        case ThinkingPart():
            return models.ThinkingPart(text=written(part.text))
        case ToolCall():
            return models.ToolCallPart(
                id=written(part.id), name=written(part.name), arguments=written(part.arguments)
            )
        case ToolResult():
            return models.ToolResultPart(
                tool_call_id=written(part.tool_call_id),
                name=written(part.name),
                text=written(part.text),
                is_error=part.is_error,
            )
        case MediaPart():
            return models.OtherPart(kind=part.kind)
        case OpaquePart():
            return models.OtherPart(kind="opaque")
        case _:
            assert_never(part)

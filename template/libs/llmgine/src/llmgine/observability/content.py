"""The gate for content: prompts, completions, tool arguments and results.

Each handler has a switch for it. With the switch off, the fields named here are withheld, and so
is whatever free text the messages and dataclasses of an application hold. An author decides
about a field in its own declaration:

    text: str = field(metadata={"content": True})      # withheld
    order_id: str = field(metadata={"content": False}) # always written
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import Field, fields, is_dataclass
from typing import Any, Literal

from llmgine.contracts.chat import (
    ChatMessage,
    JsonValue,
    MediaPart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts.llm import LLMRequest, LLMResponse, TextDelta, ThinkingDelta, ToolCallDelta
from llmgine.contracts.messages import CommandResult, Message
from llmgine.observability.redaction import is_secret_key

__all__ = ["Treatment", "is_content", "says_nothing", "treatment", "withheld"]

Treatment = Literal["shown", "withheld", "hidden"]
"""What is written of a field: what it holds, what stands for content, or for a secret."""

_CONTENT: Mapping[type, frozenset[str]] = {
    ChatMessage: frozenset({"provider_data"}),
    CommandResult: frozenset({"value"}),
    LLMRequest: frozenset({"provider_options"}),
    LLMResponse: frozenset({"provider_data", "stop_sequence"}),
    MediaPart: frozenset({"data", "url", "name", "provider_data"}),
    OpaquePart: frozenset({"data"}),
    RefusalPart: frozenset({"text"}),
    TextDelta: frozenset({"text"}),
    TextPart: frozenset({"text", "provider_data"}),
    ThinkingDelta: frozenset({"text", "signature"}),
    ThinkingPart: frozenset({"text", "signature", "redacted", "provider_data"}),
    ToolCall: frozenset({"arguments", "provider_data"}),
    ToolCallDelta: frozenset({"arguments"}),
    ToolResult: frozenset({"content"}),
}
_PLAIN = frozenset({bool, int, float})
_ENVELOPE = frozenset(Message.__dataclass_fields__)


def is_content(owner: type, field: Field[Any]) -> bool:
    """Tell whether a dataclass's field holds content.

    Args:
        owner: the class of the object that has the field.
        field: the field, as `dataclasses.fields` returns it.
    """
    marked = field.metadata.get("content")
    if marked is not None:
        return bool(marked)
    if any(field.name in _CONTENT.get(kind, ()) for kind in owner.__mro__):
        return True
    if field.name in _ENVELOPE and Message in owner.__mro__:
        return False
    return not _declaring(owner, field.name).__module__.startswith("llmgine.contracts.")


def treatment(owner: type, field: Field[Any], content: bool) -> Treatment:
    """Tell what is written of a dataclass's field, where content is written or is not."""
    if is_secret_key(field.name):
        return "hidden"
    return "withheld" if not content and is_content(owner, field) else "shown"


def _declaring(owner: type, name: str) -> type:
    # The class furthest up that has the field: a subclass inherits what its base decided.
    having = (base for base in owner.__mro__ if is_dataclass(base))
    return [base for base in having if any(each.name == name for each in fields(base))][-1]


def withheld(value: object) -> JsonValue:
    """Return what is written in place of content: nothing of it but its size."""
    if isinstance(value, Sized):
        return {"$content": "withheld", "size": len(value)}
    return {"$content": "withheld"}


def says_nothing(value: object) -> bool:
    """Tell whether a value is written even where it is content: a number or a switch."""
    return value is None or type(value) in _PLAIN

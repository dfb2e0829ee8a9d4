"""Chat messages and their parts: enough to keep every provider's history without loss.

These are values: two with the same fields are equal. What a provider sends that has no field here
survives in `provider_data` and `OpaquePart`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmgine.contracts.construction import quicken

__all__ = [
    "ChatMessage",
    "JsonObject",
    "JsonValue",
    "MediaKind",
    "MediaPart",
    "OpaquePart",
    "Part",
    "RefusalPart",
    "Role",
    "TextPart",
    "ThinkingPart",
    "ToolCall",
    "ToolResult",
]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = Mapping[str, JsonValue]
Role = Literal["system", "user", "assistant", "tool"]
MediaKind = Literal["image", "audio", "video", "document"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Plain text."""

    text: str
    provider_data: JsonObject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPart:
    """An image, sound, film or document, given by exactly one of `data`, `url` and `file_id`.

    Attributes:
        kind: what it is.
        media_type: its MIME type, where known.
        data: the bytes themselves.
        url: where it lies.
        file_id: the provider's id of an uploaded file.
        name: a file name to show.
        provider_data: what only one provider knows, such as a level of detail.

    Raises:
        ValueError: none, or more than one, of `data`, `url` and `file_id` is given.
    """

    kind: MediaKind
    media_type: str | None = None
    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    provider_data: JsonObject | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("data", "url", "file_id") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a MediaPart takes exactly one of data, url and file_id; got {found}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingPart:
    """A model's reasoning. It goes back to the model unchanged, signature and all.

    Attributes:
        text: the reasoning, or its summary; may be empty beside a valid signature.
        signature: the provider's seal, without which it refuses the part.
        redacted: reasoning that the provider encrypted.
        id: the provider's id of the part.
        provider: who made it, since no other provider accepts it.
        provider_data: what only one provider knows.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    id: str | None = None
    provider: str | None = None
    provider_data: JsonObject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalPart:
    """The model's words for why it won't answer."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A model asks for a tool.

    Attributes:
        id: the provider's id of the call; its result carries the same.
        name: the tool's name.
        arguments: the JSON text exactly as the model sent it, valid or not.
        provider_data: what only one provider knows, such as a thought signature.
    """

    id: str
    name: str
    arguments: str = "{}"
    provider_data: JsonObject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """What came of a tool call, in words for the model.

    Attributes:
        tool_call_id: that of the `ToolCall`.
        name: the tool's name.
        content: text, or parts for what text can't hold.
        is_error: whether the tool failed, or was never run.
        error_code: which kind of failure, for programs.
    """

    tool_call_id: str
    name: str
    content: str | tuple[TextPart | MediaPart, ...] = ""
    is_error: bool = False
    error_code: str | None = None

    @property
    def text(self) -> str:
        """The text of the content, without its media."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, kw_only=True, slots=True)
class OpaquePart:
    """Something that only one provider understands, kept as it came."""

    provider: str
    data: JsonObject


Part: TypeAlias = (
    TextPart | MediaPart | ThinkingPart | RefusalPart | ToolCall | ToolResult | OpaquePart
)


def _as_parts(content: tuple[str | Part, ...]) -> tuple[Part, ...]:
    return tuple(TextPart(text=item) if isinstance(item, str) else item for item in content)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatMessage:
    """One message of a conversation.

        ChatMessage.user("What is this?", MediaPart(kind="image", url="https://..."))

    Attributes:
        role: who speaks.
        parts: what is said; in an assistant's message the order has meaning.
        id: the provider's id of the message.
        name: who exactly speaks, where several users share a role.
        provider_data: what only one provider knows.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    id: str | None = None
    name: str | None = None
    provider_data: JsonObject | None = None

    @classmethod
    def system(cls, *content: str | Part) -> ChatMessage:
        """Make a message of instructions."""
        return cls(role="system", parts=_as_parts(content))

    @classmethod
    def user(cls, *content: str | Part) -> ChatMessage:
        """Make a user's message."""
        return cls(role="user", parts=_as_parts(content))

    @classmethod
    def assistant(cls, *content: str | Part) -> ChatMessage:
        """Make a model's message."""
        return cls(role="assistant", parts=_as_parts(content))

    @classmethod
    def tool(cls, *results: ToolResult) -> ChatMessage:
        """Make the message that answers a model's tool calls."""
        return cls(role="tool", parts=results)

    @property
    def text(self) -> str:
        """The text of all text parts, in order."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that this message asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results that this message carries, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolResult))


# Made for every message that is read or kept, and for every call of a tool.
for _kind in (TextPart, ToolCall, ToolResult, ChatMessage):
    quicken(_kind)

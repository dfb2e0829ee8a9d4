"""What the routes of sessions take and return."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from llmgine.contracts import ToolApprovalRequestedEvent
from llmgine.contracts.chat import Role
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.sessions.texts import written

__all__ = [
    "Answer",
    "Approval",
    "Approvals",
    "Fork",
    "Message",
    "Messages",
    "NewSession",
    "NewTurn",
    "OtherPart",
    "Part",
    "Session",
    "SessionList",
    "TextPart",
    "ThinkingPart",
    "ToolCallPart",
    "ToolResultPart",
    "TurnId",
]

_LONGEST_REASON = 2000


def _whole(text: str) -> str:
    if written(text) != text:
        raise PydanticCustomError("half_character", "expected text, found half a character")
    return text


_Text = Annotated[str, AfterValidator(_whole)]


class _Body(BaseModel):
    """What a request holds: exactly what is named."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewSession(_Body):
    """A session to make. It has no fields: its id is chosen here, its title is how it begins."""


class Fork(_Body):
    """Where a copy of a conversation ends."""

    at: int | None = Field(
        default=None, ge=0, description="How many messages to copy; by default all."
    )


class NewTurn(_Body):
    """What the user says."""

    text: _Text = Field(
        description="The message; the answer comes as events.",
        json_schema_extra={"pattern": r"\S"},
    )


class Answer(_Body):
    """What a person says to a call that waits."""

    approved: bool = Field(description="Whether it may run.")
    reason: _Text = Field(
        default="", max_length=_LONGEST_REASON, description="Why not, in words for the model."
    )


class Session(BaseModel):
    """A session, as lists show it."""

    id: str
    title: str = Field(description="The beginning of the first user message; empty before that.")
    created_at: float | None = Field(description="Unix seconds; null where nobody knows.")
    updated_at: float | None = Field(description="Unix seconds; null where nobody knows.")
    messages: int = Field(description="How many the conversation holds.")
    running: bool = Field(description="Whether a turn is under way.")
    approvals: int = Field(description="How many tool calls wait for a person.")


class SessionList(BaseModel):
    """Sessions, the one changed last first."""

    sessions: list[Session]
    next: str | None = Field(description="Give this as `after` for those that follow.")


class TextPart(BaseModel):
    """Plain text."""

    type: Literal["text"] = "text"
    text: str


class ThinkingPart(BaseModel):
    """A model's reasoning."""

    type: Literal["thinking"] = "thinking"
    text: str


class ToolCallPart(BaseModel):
    """A model asks for a tool."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str = Field(description="The JSON text as the model sent it, valid or not.")


class ToolResultPart(BaseModel):
    """What came of it."""

    type: Literal["tool_result"] = "tool_result"
    tool_call_id: str
    name: str
    text: str
    is_error: bool


class OtherPart(BaseModel):
    """Something that isn't text: a picture, a film, or what only one provider understands."""

    type: Literal["other"] = "other"
    kind: str


Part = Annotated[
    TextPart | ThinkingPart | ToolCallPart | ToolResultPart | OtherPart,
    Field(discriminator="type"),
]


class Message(BaseModel):
    """A message of a conversation."""

    role: Role
    parts: list[Part]


class Messages(BaseModel):
    """A conversation."""

    messages: list[Message]
    version: int = Field(description="How many messages were added since it was cleared.")


class TurnId(BaseModel):
    """A turn that was started, or stopped."""

    turn_id: str


class Approval(BaseModel):
    """A tool call that waits for a person."""

    call_id: str
    name: str
    arguments: str = Field(description="The JSON text as the model sent it, valid or not.")
    expires_at: float = Field(description="When the wait ends in a refusal, in Unix seconds.")

    @classmethod
    def of(cls, event: ToolApprovalRequestedEvent) -> Self:
        """Return the call that an event tells of."""
        call = event.call
        return cls(
            call_id=written(call.id),
            name=written(call.name),
            arguments=written(call.arguments),
            expires_at=event.expires_at,
        )


class Approvals(BaseModel):
    """The calls that wait."""

    approvals: list[Approval]

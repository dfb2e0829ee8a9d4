"""The events that the spine itself publishes, and the one command that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from llmgine.contracts.chat import ToolCall, ToolResult
from llmgine.contracts.llm import LLMChunk, LLMRequest, LLMResponse
from llmgine.contracts.messages import Command, CommandResult, Event

__all__ = [
    "AttributeValue",
    "ChatHistoryUpdatedEvent",
    "CommandResultEvent",
    "CommandStartedEvent",
    "EventHandlerFailedEvent",
    "LLMCallResultEvent",
    "LLMCallStartedEvent",
    "LLMChunkEvent",
    "LogEvent",
    "LogLevel",
    "MetricEvent",
    "ResolveToolApproval",
    "SessionEndEvent",
    "SessionStartEvent",
    "SpanEndedEvent",
    "SpanStartedEvent",
    "ToolApprovalRequestedEvent",
    "ToolApprovalResolvedEvent",
    "ToolExecuteResultEvent",
    "ToolExecuteStartedEvent",
]

AttributeValue: TypeAlias = str | int | float | bool
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStartEvent(Event):
    """A session has opened; the first event of its id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEndEvent(Event):
    """A session has ended; the last event of its id.

    Attributes:
        error: what left the session's block, if something did.
    """

    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandStartedEvent(Event):
    """A command's handler is about to run; published only where somebody listens."""

    command: Command[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResultEvent(Event):
    """A command has ended: exactly one for each `CommandStartedEvent`."""

    command: Command[Any]
    result: CommandResult


@dataclass(frozen=True, kw_only=True, slots=True)
class EventHandlerFailedEvent(Event):
    """An event's handler raised, or ran past its limit. Its own handlers' failures raise no more.

    Attributes:
        event: the event that was being handled.
        handler: the handler's qualified name.
        error: what it raised.
    """

    event: Event
    handler: str
    error: BaseException


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMCallStartedEvent(Event):
    """A model is about to be asked."""

    call_id: str
    provider: str
    request: LLMRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMCallResultEvent(Event):
    """A model has answered, failed, or its stream was left.

    Attributes:
        call_id: that of the `LLMCallStartedEvent`.
        provider: the provider's name.
        response: the whole answer; what had arrived of it where a stream broke off.
        error: what went wrong, if something did.
        duration: seconds from call to end.
        time_to_first_chunk: seconds to the first chunk of a stream.
    """

    call_id: str
    provider: str
    response: LLMResponse | None = None
    error: BaseException | None = None
    duration: float = 0.0
    time_to_first_chunk: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMChunkEvent(Event):
    """One piece of a streamed answer, for whoever shows it. Observers are spared it."""

    observed: ClassVar[bool] = False

    call_id: str
    index: int
    chunk: LLMChunk


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolExecuteStartedEvent(Event):
    """A tool is about to run."""

    call: ToolCall


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolExecuteResultEvent(Event):
    """A tool call has ended, whatever came of it: exactly one for each attempt."""

    call: ToolCall
    result: ToolResult
    duration: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolApprovalRequestedEvent(Event):
    """A tool call waits for a person.

    Attributes:
        call: what the model asked for.
        expires_at: when the wait ends in a refusal, in Unix seconds (UTC).
    """

    call: ToolCall
    expires_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolApprovalResolvedEvent(Event):
    """A waiting tool call was approved, denied, or ran out of time."""

    call: ToolCall
    approved: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatHistoryUpdatedEvent(Event):
    """A conversation's stored history has changed.

    Attributes:
        length: how many messages it holds now.
    """

    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEvent(Event):
    """A line for the log."""

    level: LogLevel = "info"
    text: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricEvent(Event):
    """A measurement."""

    name: str
    value: float
    unit: str = "1"
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanStartedEvent(Event):
    """A stretch of work that an application measures has begun; its id is the span's id."""

    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanEndedEvent(Event):
    """A stretch of work has ended: exactly one for each `SpanStartedEvent`.

    Attributes:
        span_id: the id of the `SpanStartedEvent`.
        name: its name.
        attributes: its attributes.
        error: what left the stretch, if something did.
        duration: seconds from start to end.
    """

    span_id: str
    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    error: BaseException | None = None
    duration: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveToolApproval(Command[bool]):
    """Answer a waiting tool call. The result tells whether such a call was waiting."""

    call_id: str
    approved: bool
    reason: str = ""

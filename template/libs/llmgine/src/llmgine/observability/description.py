"""What each kind of event has to say, in a few words that fit a line."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from typing import Final, Literal

from llmgine.contracts import events as kinds
from llmgine.contracts.llm import Usage
from llmgine.contracts.messages import Event, Status
from llmgine.errors import CallCancelledError
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.redaction import hidden, is_secret_key

__all__ = ["Description", "Mark", "describe", "duration_text"]

_MILLISECOND = 0.001
_LONG = 100.0
_LENGTHY = ".stacktrace"  # of attributes; the other handlers write them

Mark = Literal["ok", "failed", "cancelled", "event", "started", "running"]


@dataclass(kw_only=True, slots=True)
class Description:
    """What a line says of one kind of event.

    Attributes:
        mark: how it went.
        subject: what it is about.
        duration: in seconds.
        facts: what else there is to know.
        error: what went wrong.
        content: a prompt, a completion, a tool's arguments or result.
        starts: what the event begins; the event that ends it has the same under `ends`.
        ends: what the event ends.
    """

    mark: Mark = "event"
    subject: str = ""
    duration: float | None = None
    facts: str = ""
    error: BaseException | None = None
    content: str = ""
    starts: str = ""
    ends: str = ""


def describe(event: Event) -> Description:
    """Return what there is to say of an event. It never raises, whatever the event holds."""
    found = attempt(_describer(type(event)), event)
    return Description(error=found.error) if isinstance(found, Caught) else found


def duration_text(seconds: float) -> str:
    """Return a duration in three or four digits and their unit."""
    if seconds < _MILLISECOND:
        return f"{seconds * 1000:.1f}ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _LONG:
        return f"{seconds:.2f}s"
    return f"{seconds // 60:.0f}m{seconds % 60:02.0f}s"


def _tokens(usage: Usage) -> str:
    counts = (("in", usage.input_tokens), ("out", usage.output_tokens))
    return " ".join(f"{name} {count}" for name, count in counts if count is not None)


def _mark(error: BaseException | None) -> Mark:
    if isinstance(error, CancelledError | CallCancelledError):
        return "cancelled"
    return "ok" if error is None else "failed"


def _pairs(attributes: Mapping[str, kinds.AttributeValue]) -> str:
    return " ".join(
        f"{name}={hidden(value) if is_secret_key(name) else value}"
        for name, value in attributes.items()
    )


_BY_STATUS: Final[dict[Status, Mark]] = {"ok": "ok", "error": "failed", "cancelled": "cancelled"}


def _command_started(event: kinds.CommandStartedEvent) -> Description:
    name = type(event.command).__name__
    return Description(mark="started", subject=name, starts=event.command.id)


def _command_result(event: kinds.CommandResultEvent) -> Description:
    result = event.result
    return Description(
        mark=_BY_STATUS[result.status],
        subject=type(event.command).__name__,
        duration=result.duration,
        error=None if result.status == "cancelled" else result.error,
        content=result.value if isinstance(result.value, str) else "",
        ends=event.command.id,
    )


def _llm_started(event: kinds.LLMCallStartedEvent) -> Description:
    messages = event.request.messages
    return Description(
        mark="started",
        subject=event.request.model or event.provider,
        facts=f"{len(messages)} messages",
        content=messages[-1].text if messages else "",
        starts=event.call_id,
    )


def _llm_result(event: kinds.LLMCallResultEvent) -> Description:
    model = content = ""
    first = event.time_to_first_chunk
    facts = ["" if first is None else f"first {duration_text(first)}"]
    if event.response is not None:
        model, content = event.response.model, event.response.text
        facts = [_tokens(event.response.usage), *facts, event.response.finish_reason]
    mark = _mark(event.error)
    return Description(
        mark=mark,
        subject=model or event.provider,
        duration=event.duration,
        facts="  ".join(filter(None, facts)),
        error=None if mark == "cancelled" else event.error,
        content=content,
        ends=event.call_id,
    )


def _tool_key(event: kinds.ToolExecuteStartedEvent | kinds.ToolExecuteResultEvent) -> str:
    # Providers number their calls, so two sessions may well have the same.
    return f"{event.session_id}/{event.parent_id}/{event.call.id}"


def _tool_started(event: kinds.ToolExecuteStartedEvent) -> Description:
    call = event.call
    return Description(
        mark="started", subject=call.name, content=call.arguments, starts=_tool_key(event)
    )


def _tool_result(event: kinds.ToolExecuteResultEvent) -> Description:
    result = event.result
    return Description(
        mark="failed" if result.is_error else "ok",
        subject=event.call.name,
        duration=event.duration,
        facts=result.error_code or "",
        content=result.text,
        ends=_tool_key(event),
    )


def _span_started(event: kinds.SpanStartedEvent) -> Description:
    facts = _pairs(event.attributes)
    return Description(mark="started", subject=event.name, facts=facts, starts=event.id)


def _span_ended(event: kinds.SpanEndedEvent) -> Description:
    return Description(
        mark=_mark(event.error),
        subject=event.name,
        duration=event.duration,
        facts=_pairs(event.attributes),
        error=event.error,
        ends=event.span_id,
    )


def _log(event: kinds.LogEvent) -> Description:
    mark = "failed" if event.level in ("error", "critical") else "event"
    short = {name: it for name, it in event.attributes.items() if not name.endswith(_LENGTHY)}
    facts = f"{event.text}  {_pairs(short)}".rstrip()
    return Description(mark=mark, subject=event.level, facts=facts)


def _metric(event: kinds.MetricEvent) -> Description:
    unit = "" if event.unit == "1" else f" {event.unit}"
    facts = f"{event.value:g}{unit}  {_pairs(event.attributes)}".rstrip()
    return Description(subject=event.name, facts=facts)


def _handler_failed(event: kinds.EventHandlerFailedEvent) -> Description:
    subject = type(event.event).__name__
    return Description(mark="failed", subject=subject, facts=event.handler, error=event.error)


def _session_ended(event: kinds.SessionEndEvent) -> Description:
    return Description(mark="event" if event.error is None else "failed", error=event.error)


def _history(event: kinds.ChatHistoryUpdatedEvent) -> Description:
    return Description(facts=f"{event.length} messages")


def _approval_asked(event: kinds.ToolApprovalRequestedEvent) -> Description:
    call = event.call
    return Description(subject=call.name, facts=f"/ {call.id}", content=call.arguments)


def _approval_given(event: kinds.ToolApprovalResolvedEvent) -> Description:
    mark = "ok" if event.approved else "cancelled"
    facts = "approved" if event.approved else "denied"
    return Description(mark=mark, subject=event.call.name, facts=facts, content=event.reason)


@singledispatch
def _plainly(_event: Event) -> Description:
    return Description()


_DESCRIBERS = (
    _command_started, _command_result, _llm_started, _llm_result, _tool_started, _tool_result,
    _span_started, _span_ended, _log, _metric, _handler_failed, _session_ended, _history,
    _approval_asked, _approval_given,
)  # fmt: skip
for _each in _DESCRIBERS:
    _plainly.register(_each)  # by the declared type of its argument
_describer = lru_cache(maxsize=2000)(_plainly.dispatch)

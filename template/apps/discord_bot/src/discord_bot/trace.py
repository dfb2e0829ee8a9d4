"""What the last turn of a session did, as text, from the bus's events."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmgine.bus import BusSession
from llmgine.contracts import (
    CommandResultEvent,
    CommandStartedEvent,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    Usage,
)
from llmgine.observability.redaction import redact_text

__all__ = ["Trace"]

_MOST = 100
_SHOWN = 60
_MILLISECONDS = 1000


@dataclass(slots=True)
class _Step:
    """A line: what was done, how deep inside of what, and what came of it."""

    label: str
    depth: int
    began: float
    mark: str = "…"
    duration: float | None = None
    facts: str = ""

    def line(self) -> str:
        lasted = "" if self.duration is None else _lasting(self.duration)
        words = (self.label, lasted, self.facts)
        return f"{'  ' * self.depth}{self.mark} {'  '.join(filter(None, words))}"


@dataclass(slots=True)
class Trace:
    """Keeps the steps of one turn: its commands, model and tool calls, up to a hundred."""

    _steps: dict[str, _Step] = field(default_factory=dict[str, _Step])
    _more: int = 0

    def listen(self, session: BusSession) -> None:
        """Hear what happens in a session, as long as it is open."""
        hear = session.register_event_handler
        hear(CommandStartedEvent, self._command_start, inline=True)
        hear(CommandResultEvent, self._command_end, inline=True)
        hear(LLMCallStartedEvent, self._call_start, inline=True)
        hear(LLMCallResultEvent, self._call_end, inline=True)
        hear(ToolExecuteStartedEvent, self._tool_start, inline=True)
        hear(ToolExecuteResultEvent, self._tool_end, inline=True)
        hear(ToolApprovalRequestedEvent, self._approval_start, inline=True)
        hear(ToolApprovalResolvedEvent, self._approval_end, inline=True)

    def begin(self) -> None:
        """Forget the turn before."""
        self._steps.clear()
        self._more = 0

    def text(self) -> str:
        """Return a line for each step; empty if there was none."""
        more = [f"and {self._more} more"] if self._more else []
        return "\n".join([*(step.line() for step in self._steps.values()), *more])

    def _start(self, key: str, label: str, parent: str | None, began: float) -> None:
        if len(self._steps) >= _MOST:
            self._more += 1
            return
        above = self._steps.get(parent or "")
        depth = 0 if above is None else above.depth + 1
        self._steps[key] = _Step(_in_line(label), depth, began)

    def _end(self, key: str, *, ok: bool, duration: float | None, facts: str) -> None:
        step = self._steps.get(key)
        if step is not None:
            step.mark, step.duration, step.facts = "✔" if ok else "✘", duration, _in_line(facts)

    def _command_start(self, event: CommandStartedEvent) -> None:
        command = event.command
        if isinstance(command, ResolveToolApproval):
            return  # the approval has a line already
        self._start(command.id, type(command).__name__, command.parent_id, event.timestamp)

    def _command_end(self, event: CommandResultEvent) -> None:
        result = event.result
        facts = "" if result.error is None else type(result.error).__name__
        ok = result.status == "ok"
        self._end(event.command.id, ok=ok, duration=result.duration, facts=facts or result.status)

    def _call_start(self, event: LLMCallStartedEvent) -> None:
        label = f"model call to {event.provider}"
        self._start(event.call_id, label, event.parent_id, event.timestamp)

    def _call_end(self, event: LLMCallResultEvent) -> None:
        usage = "" if event.response is None else _tokens(event.response.usage)
        failed = "" if event.error is None else type(event.error).__name__
        facts = ", ".join(filter(None, (usage, failed)))
        self._end(event.call_id, ok=event.error is None, duration=event.duration, facts=facts)

    def _tool_start(self, event: ToolExecuteStartedEvent) -> None:
        label = f"tool {event.call.name}"
        self._start(_key(event.parent_id, event.call), label, event.parent_id, event.timestamp)

    def _tool_end(self, event: ToolExecuteResultEvent) -> None:
        result = event.result
        facts = result.error_code or "failed" if result.is_error else event.call.arguments
        key = _key(event.parent_id, event.call)
        self._end(key, ok=not result.is_error, duration=event.duration, facts=facts)

    def _approval_start(self, event: ToolApprovalRequestedEvent) -> None:
        tool = _key(event.parent_id, event.call)
        self._start(f"approval {tool}", "approval", tool, event.timestamp)

    def _approval_end(self, event: ToolApprovalResolvedEvent) -> None:
        key = f"approval {_key(event.parent_id, event.call)}"
        step = self._steps.get(key)
        waited = None if step is None else event.timestamp - step.began
        facts = "approved" if event.approved else event.reason or "denied"
        self._end(key, ok=event.approved, duration=waited, facts=facts)


def _key(parent_id: str | None, call: ToolCall) -> str:
    return f"{parent_id} {call.id}"


def _tokens(usage: Usage) -> str:
    known = [
        f"{count:,} {way}"
        for way, count in (("in", usage.input_tokens), ("out", usage.output_tokens))
        if count is not None
    ]
    return f"tokens: {', '.join(known)}" if known else ""


def _lasting(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * _MILLISECONDS:.0f} ms"
    return f"{seconds:.1f} s"


def _in_line(text: str) -> str:
    """Return the text on one line, short, and unable to end the block of code that it stands in."""
    line = " ".join(redact_text(text[: _SHOWN * 4]).split()).replace("`", "'")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"

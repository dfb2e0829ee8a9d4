"""A session as a tree with durations, from the event file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TypeAlias, TypeGuard

from llmgine.bootstrap import ApplicationConfig
from rich.text import Text
from rich.tree import Tree

from chat.screen import MARKS, lasting, printable

__all__ = ["TraceError", "is_table", "session_tree"]

Record: TypeAlias = Mapping[str, object]
_SHOWN = 60
_CANCELLED = frozenset({"CallCancelledError", "CancelledError", "cancelled", "interrupted"})


class TraceError(Exception):
    """There is no tree to show; the text says why, and what to do."""


def session_tree(config: ApplicationConfig, session_id: str | None = None) -> Tree:
    """Return the tree of a session; by default of the one that began last.

    Raises:
        TraceError: there is no event file, or no such session in it.
    """
    if not config.file.enabled:
        raise TraceError("no events are kept: file.enabled is off in the settings")
    path = config.file.path
    try:
        events = list(_session(_reader()(path, session_id), session_id))
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror}") from None
    if not events:
        which = "session" if session_id is None else f"session {session_id!r}"
        raise TraceError(f"no {which} in {path} yet")
    growing = _Growing()
    for event in events:
        growing.add(event)
    return growing.rendered()


def _reader() -> Callable[[Path, str | None], Iterable[Record]]:
    try:
        # Not every project has this file, so that a plain import wouldn't do.
        module = import_module("llmgine.observability.jsonl")
    except ModuleNotFoundError:
        text = (
            "no events are kept; to add the handler that keeps them, commit your work and run "
            "`python tools/spine update --to current --data handlers+=file`"
        )
        raise TraceError(text) from None
    reader: Callable[[Path, str | None], Iterable[Record]] = vars(module)["read_events"]
    return reader


def _session(records: Iterable[Record], session_id: str | None) -> Iterator[Record]:
    """Yield one session's records; where none is named, those of the last to begin."""
    if session_id is not None:
        yield from records
        return
    latest: object = None
    found: list[Record] = []
    for record in records:
        if record.get("event_type") == "SessionStartEvent":
            latest = record.get("session_id")
            found = []
        if latest is not None and record.get("session_id") == latest:
            found.append(record)
    yield from found


@dataclass(slots=True)
class _Node:
    """One line of the tree, and when what it stands for began."""

    label: str
    tree: Tree
    began: float | None
    mark: str = ""
    duration: float | None = None
    facts: str = ""

    def text(self) -> Text:
        """Return the line: how it went, what it is, how long it took, what else is known."""
        sign, colour = MARKS.get(self.mark, ("…", "yellow") if self.mark else ("•", "dim"))
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{sign} ", style=colour)
        line.append(printable(self.label).replace("\n", " "))
        if self.duration is not None:
            line.append(f"  {lasting(self.duration)}", style="bold")
        if self.facts:
            facts = printable(self.facts).replace("\n", " ")
            line.append(f"  {facts}", style="red" if self.mark == "error" else "dim")
        return line


class _Growing:
    """A tree that grows with each event.

    A line is hung below its parent if that stands already, else below the session: so that no
    order of events, nor any file, can make a knot of it.
    """

    def __init__(self) -> None:
        self._root = _Node("session", Tree(""), None, mark="open", facts="still open")
        self._nodes: dict[str, _Node] = {}
        self._handlers: Mapping[str, Callable[[Record], None]] = {
            "SessionStartEvent": self._session_start,
            "SessionEndEvent": self._session_end,
            "CommandStartedEvent": self._command_start,
            "CommandResultEvent": self._command_end,
            "LLMCallStartedEvent": self._call_start,
            "LLMCallResultEvent": self._call_end,
            "ToolExecuteStartedEvent": self._tool_start,
            "ToolExecuteResultEvent": self._tool_end,
            "ToolApprovalRequestedEvent": self._approval_start,
            "ToolApprovalResolvedEvent": self._approval_end,
            "SpanStartedEvent": self._span_start,
            "SpanEndedEvent": self._span_end,
        }

    def add(self, event: Record) -> None:
        """Take the next event: a line of its own, or the end of one that stands already."""
        self._handlers.get(_text(event, "event_type"), self._moment)(event)

    def rendered(self) -> Tree:
        """Return the tree, every line as the last event has left it."""
        for node in (self._root, *self._nodes.values()):
            node.tree.label = node.text()
        return self._root.tree

    def _begin(self, key: str, event: Record, label: str, parent: str, mark: str = "open") -> None:
        above = self._nodes.get(parent, self._root)
        self._nodes[key] = _Node(label, above.tree.add(""), _time(event), mark=mark)

    def _end(self, key: str, event: Record, error: object, facts: str = "") -> None:
        node = self._nodes.get(key)
        if node is None:
            return  # it began before the first event that is kept
        node.mark, node.facts = _judged(error, facts)
        node.duration = _number(event, "duration")
        ended = _time(event)
        if node.duration is None and node.began is not None and ended is not None:
            node.duration = ended - node.began

    def _moment(self, event: Record) -> None:
        kind = _text(event, "event_type").removesuffix("Event")
        self._begin(_text(event, "id"), event, kind, _text(event, "parent_id"), mark="")
        node = self._nodes[_text(event, "id")]
        error = event.get("error")
        if is_table(error):
            node.mark, node.facts = _judged(error, "")
        else:
            node.facts = _first(event, "length", "text", "name", "value")

    def _session_start(self, event: Record) -> None:
        began = _time(event)
        local = "" if began is None else f"  {datetime.fromtimestamp(began).astimezone():%F %T}"
        self._root.label = f"session {_text(event, 'session_id')}{local}"
        self._root.began = began

    def _session_end(self, event: Record) -> None:
        ended = _time(event)
        self._root.mark, self._root.facts = _judged(event.get("error"), "")
        if ended is not None and self._root.began is not None:
            self._root.duration = ended - self._root.began

    def _command_start(self, event: Record) -> None:
        command = _table(event, "command")
        self._begin(
            _text(command, "id"), event, _text(command, "$type"), _text(command, "parent_id")
        )

    def _command_end(self, event: Record) -> None:
        result = _table(event, "result")
        key = _text(_table(event, "command"), "id")
        self._end(key, result, result.get("error"))
        if _text(result, "status") == "cancelled" and key in self._nodes:
            self._nodes[key].mark = "cancelled"

    def _call_start(self, event: Record) -> None:
        label = f"model call to {_text(event, 'provider')}"
        self._begin(_text(event, "call_id"), event, label, _text(event, "parent_id"))

    def _call_end(self, event: Record) -> None:
        response = _table(event, "response")
        usage = _table(response, "usage")
        tokens = [
            f"{name} {count}"
            for name, key in (("in", "input_tokens"), ("out", "output_tokens"))
            if (count := usage.get(key)) is not None
        ]
        first = _number(event, "time_to_first_chunk")
        if first is not None:
            tokens.append(f"first after {lasting(first)}")
        facts = ", ".join([*tokens, _text(response, "finish_reason")])
        self._end(_text(event, "call_id"), event, event.get("error"), facts)

    def _tool_start(self, event: Record) -> None:
        label = f"tool {_text(_table(event, 'call'), 'name')}"
        self._begin(_tool_key(event), event, label, _text(event, "parent_id"))

    def _tool_end(self, event: Record) -> None:
        result = _table(event, "result")
        failed = result.get("is_error") is True
        code = _text(result, "error_code") or "failed"
        given = _text(_table(event, "call"), "arguments")[:_SHOWN]
        self._end(_tool_key(event), event, {"type": code} if failed else None, given)

    def _approval_start(self, event: Record) -> None:
        self._begin(f"approval {_tool_key(event)}", event, "approval", _tool_key(event))

    def _approval_end(self, event: Record) -> None:
        refused = {"type": "denied", "message": _text(event, "reason")}
        approved = event.get("approved") is True
        self._end(f"approval {_tool_key(event)}", event, None if approved else refused)

    def _span_start(self, event: Record) -> None:
        self._begin(_text(event, "id"), event, _text(event, "name"), _text(event, "parent_id"))

    def _span_end(self, event: Record) -> None:
        self._end(_text(event, "span_id"), event, event.get("error"))


def is_table(value: object) -> TypeGuard[Record]:
    """Tell whether a value of a JSON text is an object."""
    return isinstance(value, Mapping)


def _table(record: Record, key: str) -> Record:
    value = record.get(key)
    return value if is_table(value) else {}


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _number(record: Record, key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) else None


def _first(record: Record, *keys: str) -> str:
    for key in keys:
        if isinstance(value := record.get(key), str | int | float):
            return f"{key} {value}"[:_SHOWN]
    return ""


def _time(event: Record) -> float | None:
    try:
        return datetime.fromisoformat(_text(event, "timestamp")).timestamp()
    except ValueError:
        return None


def _tool_key(event: Record) -> str:
    return f"{_text(event, 'parent_id')} {_text(_table(event, 'call'), 'id')}"


def _judged(error: object, facts: str) -> tuple[str, str]:
    if not is_table(error):
        return "ok", facts
    kind = _text(error, "type")
    if kind.rpartition(".")[2] in _CANCELLED:
        return "cancelled", facts
    return "error", f"{kind}: {_text(error, 'message')}".removesuffix(": ")

"""What a bus tells of itself: its numbers, and the events that say how a command fares.

The events are made without the cost of a frozen constructor, since each command with a listener
makes two of them; a test holds them equal to what the constructors make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmgine.contracts.events import CommandResultEvent, CommandStartedEvent
from llmgine.contracts.messages import NO_METADATA, Command, CommandResult, Message, Status, new_id

__all__ = ["BusStats", "Counts", "StopReport", "command_result", "command_started"]


@dataclass(kw_only=True, slots=True)
class Counts:
    """The counters of a bus since it was made; plain attributes: each message touches some.

    `BusStats` says what each of them counts.
    """

    commands: int = 0
    commands_failed: int = 0
    commands_unhandled: int = 0
    events: int = 0
    events_handled: int = 0
    events_dropped: int = 0
    events_refused: int = 0
    handlers_failed: int = 0
    handlers_interrupted: int = 0
    observers_failed: int = 0


@dataclass(frozen=True, kw_only=True)
class BusStats:
    """A bus at one moment. Counters run since the bus was made.

    Attributes:
        running: between `start` and `stop`, while the loop runs.
        commands: commands taken on.
        commands_failed: those of them that raised, were cut off or were cancelled.
        commands_unhandled: commands refused for want of a handler.
        commands_in_flight: commands whose handler has suspended.
        events: events published that somebody heard, the bus's own included.
        events_handled: those of them that all their handlers are done with.
        events_queued: those of them that wait.
        events_dropped: those of them cut off by `stop` or a session's exit.
        events_refused: events (and commands) that a full queue, a closing session or a stopping
            bus turned away.
        events_kept: events published before `start`, to be delivered by it.
        events_scheduled: events whose time hasn't come.
        handlers_failed: runs of event handlers that raised or were cut off.
        handlers_interrupted: handlers of commands and events cut off, by a limit or by a stop.
        handlers_abandoned: handlers cut off that go on all the same, right now.
        observers_failed: calls of observers that raised.
        sessions: open sessions.
    """

    running: bool
    commands: int
    commands_failed: int
    commands_unhandled: int
    commands_in_flight: int
    events: int
    events_handled: int
    events_queued: int
    events_dropped: int
    events_refused: int
    events_kept: int
    events_scheduled: int
    handlers_failed: int
    handlers_interrupted: int
    handlers_abandoned: int
    observers_failed: int
    sessions: int


@dataclass(frozen=True, kw_only=True)
class StopReport:
    """What `stop` found and did.

    Attributes:
        events_handled: events handled to their end while stopping.
        events_dropped: events that were still waiting at the limit.
        handlers_interrupted: handlers of commands and events that were still running then.
        handlers_abandoned: those that ignored even that.
        events_scheduled: events whose time hasn't come; a new start takes them up.
        duration: seconds that the stop took.
    """

    events_handled: int = 0
    events_dropped: int = 0
    handlers_interrupted: int = 0
    handlers_abandoned: int = 0
    events_scheduled: int = 0
    duration: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether everything under way came to its own end."""
        return not (self.events_dropped or self.handlers_interrupted or self.handlers_abandoned)


_Setter: TypeAlias = Callable[[object, object], None]


def _setters(kind: type) -> Iterator[_Setter]:
    """Return what sets the fields that a class itself declares, in their order."""
    return (vars(kind)[name].__set__ for name in vars(kind)["__slots__"])


_set_id, _set_timestamp, _set_session_id, _set_parent_id, _set_metadata = _setters(Message)
(_set_started,) = _setters(CommandStartedEvent)
_set_ended, _set_result = _setters(CommandResultEvent)
_set_value, _set_error, _set_status, _set_duration = _setters(CommandResult)


def command_started(command: Command[Any]) -> CommandStartedEvent:
    """Return the event for a command whose handler is about to run."""
    event = object.__new__(CommandStartedEvent)
    _set_id(event, new_id())
    _set_timestamp(event, time.time())
    _set_session_id(event, command.session_id)
    _set_parent_id(event, command.id)
    _set_metadata(event, NO_METADATA)
    _set_started(event, command)
    return event


def command_result(
    command: Command[Any],
    duration: float,
    value: object = None,
    error: BaseException | None = None,
    status: Status = "ok",
) -> CommandResultEvent:
    """Return the event for a command that has ended."""
    result = object.__new__(CommandResult)
    _set_value(result, value)
    _set_error(result, error)
    _set_status(result, status)
    _set_duration(result, duration)
    event = object.__new__(CommandResultEvent)
    _set_id(event, new_id())
    _set_timestamp(event, time.time())
    _set_session_id(event, command.session_id)
    _set_parent_id(event, command.id)
    _set_metadata(event, NO_METADATA)
    _set_ended(event, command)
    _set_result(event, result)
    return event

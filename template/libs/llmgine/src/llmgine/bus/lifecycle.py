"""The events that say how a command fares, made without the cost of a frozen constructor.

Each command with a listener makes two of these, and the generated `__init__` of a frozen
dataclass takes twice as long as setting the slots. A test holds them equal to what the
constructors make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from llmgine.contracts.events import CommandResultEvent, CommandStartedEvent
from llmgine.contracts.messages import NO_METADATA, Command, CommandResult, Message, Status, new_id

__all__ = ["command_result", "command_started"]

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

"""The events that say how a command fares, made without the cost of a frozen constructor.

Each command with a listener makes two of these, and the generated `__init__` of a frozen
dataclass takes twice as long as setting the slots. A test holds them equal to what the
constructors make.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from llmgine.contracts.events import CommandResultEvent, CommandStartedEvent
from llmgine.contracts.ids import new_id
from llmgine.contracts.messages import Command, CommandResult, Message, Status
from llmgine.contracts.metadata import NO_METADATA

__all__ = ["command_result", "command_started"]

_Setter: TypeAlias = Callable[[object, object], None]

_set_id: _Setter = vars(Message)["id"].__set__
_set_timestamp: _Setter = vars(Message)["timestamp"].__set__
_set_session_id: _Setter = vars(Message)["session_id"].__set__
_set_parent_id: _Setter = vars(Message)["parent_id"].__set__
_set_metadata: _Setter = vars(Message)["metadata"].__set__
_set_started: _Setter = vars(CommandStartedEvent)["command"].__set__
_set_ended: _Setter = vars(CommandResultEvent)["command"].__set__
_set_result: _Setter = vars(CommandResultEvent)["result"].__set__
_set_value: _Setter = vars(CommandResult)["value"].__set__
_set_error: _Setter = vars(CommandResult)["error"].__set__
_set_status: _Setter = vars(CommandResult)["status"].__set__
_set_duration: _Setter = vars(CommandResult)["duration"].__set__


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

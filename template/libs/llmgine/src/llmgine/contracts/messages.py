"""What travels over the bus: commands, which one handler answers, and events, which many hear.

@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str

@dataclass(frozen=True, kw_only=True)
class Greeted(Event):
    name: str
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, Self, TypeVar

from llmgine.contracts.ambient import current_parent_id, current_session_id
from llmgine.contracts.ids import new_id
from llmgine.contracts.metadata import NO_METADATA

__all__ = ["Command", "CommandResult", "Event", "Message", "ResultT", "Status"]

ResultT = TypeVar("ResultT")
Status = Literal["ok", "error", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Message:
    """What commands and events have in common. Two messages are equal only if they are one.

    Attributes:
        id: 32 hexadecimal digits, unique.
        timestamp: when it was made, in Unix seconds (UTC).
        session_id: the session it belongs to; by default the one it is made in.
        parent_id: the command, event or call that was being handled when it was made.
        metadata: short texts that travel along, such as a trace context.
    """

    id: str = field(default_factory=new_id)
    timestamp: float = field(default_factory=time.time)
    session_id: str | None = field(default_factory=current_session_id)
    parent_id: str | None = field(default_factory=current_parent_id)
    metadata: Mapping[str, str] = NO_METADATA

    def __init_subclass__(cls, **kwargs: object) -> None:
        # The zero-argument form of super fails in a class that slots have made anew.
        super(Message, cls).__init_subclass__(**kwargs)
        # A subclass's own dataclass decorator would compare by fields; it keeps what it finds.
        if "__eq__" not in cls.__dict__:
            cls.__eq__ = object.__eq__
            cls.__hash__ = object.__hash__


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Command(Message, Generic[ResultT]):
    """A request that exactly one handler answers with a `ResultT`."""

    @classmethod
    def check_handler(cls, handler: Callable[[Self], Awaitable[ResultT] | ResultT], /) -> None:
        """Do nothing at run time: a type checker compares a handler with this signature.

        It is how `register_command_handler` refuses, under pyright and mypy, a handler whose
        argument or result doesn't fit the command.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Event(Message):
    """Something that happened; any number of handlers hear of it.

    A class with `observed = False` is kept from observers: events too many to be written down.
    """

    observed: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """How a command ended.

    Attributes:
        value: what the handler returned, if it did.
        error: what it raised, if it did: the live exception within the process.
        status: `cancelled` only where the caller cancelled; an expired limit is an error.
        duration: seconds from the start of `execute`'s handling to its end.
    """

    value: object = None
    error: BaseException | None = None
    status: Status = "ok"
    duration: float = 0.0

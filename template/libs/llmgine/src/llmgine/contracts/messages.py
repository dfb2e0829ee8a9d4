"""What travels over the bus: commands, which one handler answers, and events, which many hear.

@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str

@dataclass(frozen=True, kw_only=True)
class Greeted(Event):
    name: str
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from traceback import TracebackException
from typing import ClassVar, Generic, Literal, NoReturn, Self, TypeVar

from llmgine.contracts.ambient import current_parent_id, current_session_id
from llmgine.errors import LlmgineError

__all__ = [
    "NO_METADATA",
    "Command",
    "CommandResult",
    "ErrorInfo",
    "Event",
    "Message",
    "ResultT",
    "Status",
    "new_id",
]


class _NoMetadata(dict[str, str]):
    """An empty dict that refuses to be filled; whatever takes a dict takes it.

    A dict of its own for each message would be made, and nearly always thrown away, each time.
    """

    __slots__ = ()
    # Hashable, as dataclasses demand of a default, since it can't change.
    __hash__ = object.__hash__  # type: ignore[assignment]

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a message's metadata is given when it is made: metadata={...}")

    __setitem__ = __ior__ = update = setdefault = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> str:
        """Pickle and copy as the one instance that there is."""
        return "NO_METADATA"


NO_METADATA: Mapping[str, str] = _NoMetadata()

_TRACEBACK_LIMIT = 32 * 1024
_BATCH = 256
_BYTES = 16
# The batch being handed out (and the one before, should two threads begin one together).
_batches: deque[list[str]] = deque(maxlen=2)


def _batch(_: None) -> list[str]:
    ids = os.urandom(_BATCH * _BYTES).hex(" ", -_BYTES).split(" ")
    _batches.append(ids)
    return ids


def _forget() -> None:
    for batch in _batches:
        batch.clear()


if sys.platform != "win32":
    # A forked child must not hand out the ids that its parent hands out.
    os.register_at_fork(after_in_child=_forget)

# An id is made for every message, so this is an iterator that runs in C but for one call in 256;
# uuid4 takes ten times as long.
new_id = chain.from_iterable(map(_batch, repeat(None))).__next__
"""Return a new random id of 32 hexadecimal digits."""


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
    """A request that exactly one handler answers with a `ResultT`.

    A class with `idempotent: ClassVar[bool] = True` may be run again after a failure, where that
    is switched on. Each class says so for itself: a subclass has a handler of its own.
    """

    idempotent: ClassVar[bool] = False

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


class ErrorInfo(LlmgineError):  # noqa: N818 - it describes an error of any class
    """An exception that happened elsewhere, as it is decoded. Equal to another by its fields.

    It is an exception itself, so that fields declared as one hold it, and it can be raised.

    Attributes:
        type: the name of the exception's class, with its module unless that is `builtins`.
        message: its text.
        traceback: as Python prints it; of a very long one the end. Empty if it was never raised.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:  # noqa: A002
        super().__init__(type, message, traceback)
        self.type = type
        self.message = message
        self.traceback = traceback

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Return what can be kept of a live exception."""
        if isinstance(error, ErrorInfo):
            return error
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        # Its text and its traceback are taken the careful way: a broken `__str__` is survived.
        summary = TracebackException.from_exception(error)
        lines = "".join(summary.format()) if error.__traceback__ is not None else ""
        return cls(name, str(summary), lines[-_TRACEBACK_LIMIT:])

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ErrorInfo):
            return NotImplemented
        return self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

"""What is being handled, and inside what.

A frame stands for one message in the hands of a handler. Frames are linked outwards, from a
nested command to the handler that waits for it, so that the bus can tell a wait for oneself from
a wait for somebody else, and can stop all the clocks that run on one piece of work.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from llmgine.contracts.ambient import AMBIENT, NOWHERE, Ambient

__all__ = [
    "Clock",
    "CommandFrame",
    "Frame",
    "HandlerCoroutine",
    "Kind",
    "Place",
    "SessionAmbient",
    "enclosing",
    "inside_bus",
    "inside_place",
]

T = TypeVar("T")
HandlerCoroutine: TypeAlias = Coroutine[Any, None, T]
Kind: TypeAlias = Literal["command", "ordered", "concurrent"]


class Place:
    """Where messages are handled: one session of one bus.

    Attributes:
        owner: what stands for the bus.
    """

    __slots__ = ("owner",)

    owner: object


class Clock(Protocol):
    """The limit that runs on a handler."""

    def pause(self) -> None:
        """Stop it."""
        ...

    def resume(self) -> None:
        """Let it run on with the time it had left."""
        ...

    @property
    def cut(self) -> Exception | None:
        """Why the handler was interrupted, once it is."""
        ...

    @property
    def seconds_left(self) -> float:
        """How long the handler may go on."""
        ...


class Frame(Ambient):
    """One message being handled, as what is ambient for its handler.

    There is no `__init__`: whoever makes a frame sets its attributes, which takes half the time,
    and each message needs a frame.

    Attributes:
        kind: how the handler runs, which decides what waits for it.
        place: where it is handled; None once that is over. A task that a handler started and
            left behind still sees its frame, and sees that it's over.
        outer: the frame that waits for this one, if any does.
        pauses: how many `paused_clock` blocks are open.
        clock: its limit, once the handler has suspended.
    """

    __slots__ = ("clock", "outer", "pauses", "place")

    kind: Kind
    place: Place | None
    outer: Frame | None
    pauses: int
    clock: Clock | None

    def pause(self) -> None:
        """Stop this frame's clock and those outside it."""
        self.pauses += 1
        if self.pauses == 1 and self.clock is not None:
            self.clock.pause()
        if self.outer is not None:
            self.outer.pause()

    def resume(self) -> None:
        """Undo one `pause`."""
        self.pauses -= 1
        if self.pauses == 0 and self.clock is not None:
            self.clock.resume()
        if self.outer is not None:
            self.outer.resume()


class CommandFrame(Frame):
    """A command, awaited by whoever executes it."""

    __slots__ = ()
    kind = "command"


class SessionAmbient(Ambient):
    """What is ambient in the block of a session: its id, and all else as around it."""

    __slots__ = ("outer",)

    def __init__(self, session_id: str, outer: Ambient) -> None:
        self.session_id = session_id
        self.parent_id = outer.parent_id
        self.outer: Ambient = outer if outer is NOWHERE else enclosing(outer) or NOWHERE

    def pause(self) -> None:
        """Stop the clocks of what the session is used in."""
        self.outer.pause()

    def resume(self) -> None:
        """Undo one `pause`."""
        self.outer.resume()


def enclosing(ambient: Ambient | None) -> Frame | None:
    """Return the innermost frame that this is inside of and that isn't over.

    Frames that are over are passed by, here and in every `outer`: where each handler starts a
    task that executes the next command, they would else be kept for ever.
    """
    while isinstance(ambient, _LINKED):
        if isinstance(ambient, Frame) and ambient.place is not None:
            return ambient
        ambient = ambient.outer
    return None


# A union in its place would be made anew for each question.
_LINKED = (Frame, SessionAmbient)


def _enclosing_all(ambient: Ambient, kinds: tuple[Kind, ...]) -> Iterator[Frame]:
    """Yield the frames that this is inside of, innermost first."""
    frame = enclosing(ambient)
    while frame is not None:
        if not kinds or frame.kind in kinds:
            yield frame
        frame = enclosing(frame.outer)


def inside_bus(owner: object, *kinds: Kind, ambient: Ambient | None = None) -> bool:
    """Tell whether the calling code runs in a handler of this bus.

    Args:
        owner: what the bus's places have as their owner.
        kinds: which kinds of handlers count; by default all.
        ambient: where to look from; by default from where the calling code is.
    """
    places = (frame.place for frame in _enclosing_all(ambient or AMBIENT.get(), kinds))
    return any(place is not None and place.owner is owner for place in places)


def inside_place(place: Place, *kinds: Kind) -> bool:
    """Tell whether the calling code runs in a handler of this session (of one of these kinds)."""
    ambient = AMBIENT.get()
    if ambient is NOWHERE:
        return False  # as nearly always where a session closes
    return any(frame.place is place for frame in _enclosing_all(ambient, kinds))

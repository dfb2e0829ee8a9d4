"""What is being handled, and inside what.

A frame stands for one message in the hands of a handler. Frames are linked outwards, from a
nested command to the handler that waits for it, so that the bus can tell a wait for oneself from
a wait for somebody else, and can stop all the clocks that run on one piece of work.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from llmgine.contracts.ambient import AMBIENT, Clock

__all__ = ["Frame", "Kind", "Place", "inside_bus", "inside_place", "open_frames"]


class Kind(IntEnum):
    """How a handler runs, which decides what waits for it."""

    COMMAND = 0
    ORDERED = 1
    CONCURRENT = 2


class Place:
    """Where messages are handled: one session of one bus."""

    __slots__ = ("owner",)

    def __init__(self, owner: object) -> None:
        self.owner = owner


class Frame:
    """One message being handled. `place` is None once that is over.

    A task that a handler started and left behind still sees its frame, and sees that it's over.
    """

    __slots__ = ("kind", "outer", "pauses", "place", "run")

    def __init__(self, place: Place, outer: Clock | None, kind: Kind) -> None:
        self.place: Place | None = place
        self.outer = outer
        self.kind = kind
        self.pauses = 0
        self.run: Clock | None = None

    def pause(self) -> None:
        """Stop this frame's clock and those outside it."""
        self.pauses += 1
        if self.pauses == 1 and self.run is not None:
            self.run.pause()
        if self.outer is not None:
            self.outer.pause()

    def resume(self) -> None:
        """Undo one `pause`."""
        self.pauses -= 1
        if self.pauses == 0 and self.run is not None:
            self.run.resume()
        if self.outer is not None:
            self.outer.resume()


def open_frames() -> Iterator[Frame]:
    """Yield the frames that the calling code runs in and that aren't over, innermost first."""
    frame = AMBIENT.get()[2]
    while isinstance(frame, Frame):
        if frame.place is not None:
            yield frame
        frame = frame.outer


def inside_bus(owner: object, *kinds: Kind) -> bool:
    """Tell whether the calling code runs in a handler of this bus (of one of these kinds)."""
    return any(
        frame.place is not None and frame.place.owner is owner and (not kinds or frame.kind in kinds)
        for frame in open_frames()
    )


def inside_place(place: Place, *kinds: Kind) -> bool:
    """Tell whether the calling code runs in a handler of this session (of one of these kinds)."""
    return any(
        frame.place is place and (not kinds or frame.kind in kinds) for frame in open_frames()
    )

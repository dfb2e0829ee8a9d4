"""How the handler that a middleware stands around has ended, as the bus will tell it.

A handler that is cut off ends with a cancellation; what it was cut off for, a limit or a stop, is
known to the bus alone, which raises that in its place once all middleware has been passed.
"""

from __future__ import annotations

import asyncio
import math

from llmgine.bus.frames import CommandFrame, Frame, enclosing
from llmgine.contracts.ambient import AMBIENT

__all__ = [
    "current_frame",
    "cut_of",
    "failure_of",
    "is_over",
    "is_within",
    "seconds_left",
    "was_cancelled",
]


def current_frame() -> Frame | None:
    """Return the frame of the message that is being handled; None outside every bus."""
    ambient = AMBIENT.get()
    return ambient if isinstance(ambient, Frame) else None


def is_over(frame: Frame | None) -> bool:
    """Tell whether the bus has gone on without a handler that ignored its cancellation."""
    return frame is not None and frame.place is None


def is_within(frame: Frame | None) -> bool:
    """Tell whether the calling code is part of the work on a message."""
    inner = current_frame()
    while inner is not None and inner is not frame:
        inner = enclosing(inner.outer)
    return inner is not None


def was_cancelled(error: BaseException) -> bool:
    """Tell the cancellation of this task from an error, a handler's own cancel included."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


def cut_of(frame: Frame | None) -> Exception | None:
    """Return what a handler is being cut off for, if it is."""
    return None if frame is None or frame.clock is None else frame.clock.cut


def failure_of(error: BaseException, frame: Frame | None) -> BaseException | None:
    """Return what the bus will report for an error; None where a command's caller has left."""
    if isinstance(error, GeneratorExit):
        return None
    cut = cut_of(frame)
    if cut is not None:
        return cut
    return None if isinstance(frame, CommandFrame) and was_cancelled(error) else error


def seconds_left(frame: Frame | None) -> float:
    """Return how long the work under way may go on, by its own limit and by those around it."""
    left = math.inf
    while frame is not None:
        if frame.clock is not None:
            left = min(left, frame.clock.seconds_left)
        frame = enclosing(frame.outer)
    return left

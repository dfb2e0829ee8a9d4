"""Time limits for handlers that have suspended.

A handler's first step runs without a limit, since nothing could interrupt it anyway: a handler
that never suspends pays for no timer. The others share one timer for the whole bus.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from itertools import takewhile
from types import coroutine
from typing import Any, TypeAlias, TypeVar

from llmgine.bus.frames import Frame, HandlerCoroutine, Place, SessionAmbient
from llmgine.bus.handlers import Handler
from llmgine.bus.report import Counts
from llmgine.contracts.messages import Message
from llmgine.settings import BusSettings

__all__ = ["Limiter", "Run", "Step"]

T = TypeVar("T")
Step: TypeAlias = Callable[..., Any]
"""Calls its first argument with the second: `Context.run`, or a plain call."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Run:
    """A suspended handler: whose task it holds up, and until when.

    Attributes:
        cut: why it was interrupted, once it is; raised in place of whatever it ends with.
        left: it ignored its cancellation for too long.
    """

    _limiter: Limiter
    frame: Frame
    task: asyncio.Task[Any]
    remaining: float
    _late: Callable[[], Exception]
    cut: Exception | None = None
    left: bool = False
    cancels: int = 0
    grace: asyncio.TimerHandle | None = None
    _cancelling: int = field(init=False)
    _self_cancels: int = 0

    def __post_init__(self) -> None:
        """Note how often its task had been cancelled before."""
        self._cancelling = self.task.cancelling()

    @property
    def over(self) -> bool:
        """Whether it has ended, or is being cut off."""
        return self.frame.clock is not self or self.cut is not None

    @property
    def seconds_left(self) -> float:
        """How long the handler may go on, as its clock stands now."""
        return self._limiter.seconds_left(self)

    def pause(self) -> None:
        """Stop the clock."""
        self._limiter.in_loop(self._limiter.hold, self)

    def resume(self) -> None:
        """Let the clock run on."""
        self._limiter.in_loop(self._limiter.watch, self)

    def expire(self) -> None:
        """Interrupt the handler, since its time is over."""
        self._limiter.interrupt(self, self._late())

    def cancel(self) -> None:
        """Cancel the handler's task, and remember that it was the bus."""
        self.cancels += 1
        self.task.cancel()

    def leave(self) -> None:
        """Give up waiting for the handler to heed its cancellation."""
        self.left = True
        self.cancel()

    def move(self, task: asyncio.Task[Any]) -> None:
        """Go on in another task; take back what was done to the one before."""
        for _ in range(self.cancels):
            self.task.uncancel()
        self.cancels = self._cancelling = 0
        self.task = task

    def step(self, step: Step, handler: HandlerCoroutine[T], error: BaseException | None) -> Any:
        """Let the handler run to its next suspension, or its end; note what it cancels."""
        before = self.task.cancelling()
        try:
            if error is None:
                return step(handler.send, None)
            return step(handler.throw, error)
        finally:
            self._self_cancels += max(0, self.task.cancelling() - before)

    def settle(self) -> Exception | None:
        """Take back the bus's own cancellations; return what the waiting code must raise.

        Returns None where nothing was cut, and where the caller cancelled too: its word counts.
        """
        if self.grace is not None:
            self.grace.cancel()
        for _ in range(self.cancels):
            self.task.uncancel()
        return self.cut if self.task.cancelling() <= self._cancelling else None

    def end(self, error: BaseException | None = None) -> None:
        """Settle what has ended, perhaps with an error.

        Raises:
            Exception: what the handler was cut off for, if it was.
        """
        cut = self.settle()
        if cut is not None and cut is not error:
            raise cut from error

    def cancelled_itself(self) -> bool:
        """Take back what the handler did to its own task; tell whether it was only that.

        The handlers of queued events run in their queue's task: one that cancels "its" task, or
        raises CancelledError, has failed by itself, and the queue goes on.
        """
        for _ in range(self._self_cancels):
            self.task.uncancel()
        return self.task.cancelling() <= self._cancelling


class Limiter:
    """All limits of one bus on one timer.

    Runs are kept in one dict per limit: what is added last is due last, so a dict's order is the
    order of the deadlines, and adding or removing a run takes constant time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: BusSettings, counts: Counts
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._counts = counts
        self._thread = threading.get_ident()
        self._watched: dict[float, dict[Run, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._runs: dict[Frame, Run] = {}
        self._places: dict[Place, set[Run]] = {}
        self._left: set[asyncio.Task[None]] = set()

    # -- Who runs

    @property
    def left_behind(self) -> int:
        """Handlers that ignore their cancellation and are still running."""
        return len(self._left)

    @property
    def commands(self) -> int:
        """Commands whose handlers have suspended."""
        return sum(run.frame.kind == "command" for run in self._runs.values())

    def running(self, place: Place) -> Collection[Run]:
        """Return the suspended handlers of a place, of commands and of events."""
        return self._places.get(place, ())

    def executing(self, place: Place) -> bool:
        """Whether a command's handler has suspended there."""
        running = self._places.get(place)
        return running is not None and any(run.frame.kind == "command" for run in running)

    def suspend(
        self,
        frame: Frame,
        place: Place,
        task: asyncio.Task[Any] | None,
        handler: Handler,
        message: Message,
        timeout: float | None = None,
    ) -> Run:
        """Start the limit of a handler that has suspended."""
        if task is None:
            raise RuntimeError("a handler can suspend only in an asyncio task")
        timeout = handler.timeout if timeout is None else timeout
        if timeout is None:
            commands = frame.kind == "command"
            timeout = self._settings.command_timeout if commands else self._settings.event_timeout
        seconds = timeout
        run = Run(self, frame, task, seconds, lambda: handler.late(message, seconds))
        frame.clock = self._runs[frame] = run
        self._places.setdefault(place, set()).add(run)
        self.watch(run)
        return run

    def release(self, frame: Frame, place: Place) -> None:
        """End the limit of a handler that has ended, if it has one (still)."""
        run = self._runs.pop(frame, None)
        if run is None:
            return
        self.forget(run)
        frame.clock = None
        running = self._places[place]
        running.discard(run)
        if not running:
            del self._places[place]

    # -- Until when

    def in_loop(self, action: Callable[[Run], None], run: Run) -> None:
        """Do something with a run, from whichever thread."""
        if threading.get_ident() == self._thread:
            action(run)
        else:
            self._loop.call_soon_threadsafe(action, run)

    def watch(self, run: Run) -> None:
        """Start a run's clock, unless it is paused, or over (a thread may ask late)."""
        seconds = run.remaining
        if seconds == math.inf or run.frame.pauses or run.over:
            return
        due = self._loop.time() + seconds
        self._watched.setdefault(seconds, {})[run] = due
        if due < self._due:
            self._arm(due)

    def hold(self, run: Run) -> None:
        """Stop a run's clock; it keeps the time it has left."""
        due = self.forget(run)
        if due is not None:
            run.remaining = max(0.0, due - self._loop.time())

    def seconds_left(self, run: Run) -> float:
        """Return the time that a run has left."""
        due = self._watched.get(run.remaining, {}).get(run)
        return run.remaining if due is None else due - self._loop.time()

    def forget(self, run: Run) -> float | None:
        """Take a run's clock away; return when it was due."""
        group = self._watched.get(run.remaining, {})
        due = group.pop(run, None)
        if not group:
            self._watched.pop(run.remaining, None)
        return due

    def interrupt(self, run: Run, error: Exception) -> None:
        """Cancel a run for this reason; leave it behind if it ignores that for too long."""
        self.forget(run)
        if run.cut is None:
            run.cut = error
            self._counts.handlers_interrupted += 1
        run.cancel()
        if run.grace is None:
            run.grace = self._loop.call_later(self._settings.cancel_grace, run.leave)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf
        self._watched.clear()

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        overdue = [
            run
            for group in self._watched.values()
            for run, _ in takewhile(lambda entry: entry[1] <= now, group.items())
        ]
        for run in overdue:
            run.expire()
        self._timer, self._due = None, math.inf
        if self._watched:
            self._arm(min(next(iter(group.values())) for group in self._watched.values()))

    # -- To the end

    @coroutine
    def driven(
        self, run: Run, handler: HandlerCoroutine[T], pending: object
    ) -> Generator[object, None, T]:
        """Step a handler, suspended on `pending`, to its end, in the task that awaits it.

        Not `yield from`: the bus must be able to step aside when the handler won't stop.

        Raises:
            BaseException: the last cancellation, where the handler wouldn't stop.
        """
        while True:
            error: BaseException | None = None
            try:
                yield pending
            except BaseException as thrown:
                error = thrown
            if error is not None and run.left:
                self.adopt(run, _call, handler, error)
                raise error
            try:
                pending = run.step(_call, handler, error)
            except StopIteration as done:
                return done.value

    def adopt(
        self, run: Run, step: Step, handler: HandlerCoroutine[Any], error: BaseException
    ) -> None:
        """Let a handler that won't stop go on by itself, with nobody waiting for it."""
        task = self._loop.create_task(_to_the_end(step, handler, error))
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        for other in self._runs.values():
            # The commands that it waits for go with it: their limits must not hit this task.
            if other.task is run.task and _within(other.frame, run.frame):
                other.move(task)


def _within(frame: Frame, outer: Frame) -> bool:
    ambient = frame.outer
    while isinstance(ambient, Frame | SessionAmbient):
        if ambient is outer:
            return True
        ambient = ambient.outer
    return False


def _call(function: Callable[[Any], object], argument: object) -> object:
    return function(argument)


async def _to_the_end(step: Step, handler: HandlerCoroutine[Any], error: BaseException) -> None:
    try:
        await _thrown(step, handler, error)
    except (Exception, SystemExit, asyncio.CancelledError) as end:
        _log.warning("a handler that ignored its cancellation has ended: %r", end)


@coroutine
def _thrown(
    step: Step, handler: HandlerCoroutine[Any], error: BaseException | None
) -> Generator[object, None, None]:
    while True:
        try:
            pending = step(handler.send, None) if error is None else step(handler.throw, error)
        except StopIteration:
            return
        error = None
        try:
            yield pending
        except BaseException as thrown:
            error = thrown

"""Time limits for handlers that have suspended.

A handler's first step runs without a limit, since a handler that never suspends can't be
cancelled anyway: a quick one pays for no timer. The others share one timer for the whole bus.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Generator
from itertools import takewhile
from types import coroutine
from typing import Any, TypeVar

from llmgine.bus.frames import Frame
from llmgine.bus.report import Counts

__all__ = ["HandlerCoroutine", "Limiter", "Run", "resumed_in"]

T = TypeVar("T")
HandlerCoroutine = Coroutine[Any, None, T]
_log = logging.getLogger(__name__)


class Run:
    """A suspended handler: whose task it holds up, and until when.

    Attributes:
        cut: why it was interrupted, once it is; raised in place of whatever it ends with.
        left: it ignored its cancellation and goes on without those who waited for it.
    """

    __slots__ = ("_cancelling", "cancels", "cut", "frame", "grace", "late", "left", "limiter",
                 "remaining", "self_cancels", "task")  # fmt: skip

    def __init__(
        self, limiter: Limiter, frame: Frame, seconds: float, late: Callable[[], Exception]
    ) -> None:
        task = asyncio.current_task()
        if task is None:
            message = "a handler can suspend only in an asyncio task"
            raise RuntimeError(message)
        self.limiter = limiter
        self.frame = frame
        self.remaining = seconds
        self.late = late
        self.task: asyncio.Task[Any] = task
        self.cut: Exception | None = None
        self.left = False
        self.cancels = 0
        self.self_cancels = 0
        self.grace: asyncio.TimerHandle | None = None
        self._cancelling = task.cancelling()

    def pause(self) -> None:
        """Stop the clock."""
        self.limiter.in_loop(self.limiter.hold, self)

    def resume(self) -> None:
        """Let the clock run on."""
        self.limiter.in_loop(self.limiter.watch, self)

    def own_cancellation(self) -> bool:
        """Take back what the handler did to its own task; tell whether it was only that.

        A handler of queued events runs in the queue's task: if it cancels "its" task, or raises
        CancelledError, that is its own failure and not the end of the queue.
        """
        for _ in range(self.self_cancels):
            self.task.uncancel()
        return self.task.cancelling() <= self._cancelling

    def settle(self) -> Exception | None:
        """Take back the bus's own cancellations; return what the waiting code must raise.

        Returns None where nothing was cut, and where the caller cancelled too: its word counts.
        """
        if self.grace is not None:
            self.grace.cancel()
        for _ in range(self.cancels):
            self.task.uncancel()
        return self.cut if self.task.cancelling() <= self._cancelling else None


class Limiter:
    """All limits of one bus on one timer.

    Runs are kept in one dict per limit: what is added last is due last, so a dict's order is the
    order of the deadlines, and adding or removing a run takes constant time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, grace: float, counts: Counts) -> None:
        self._loop = loop
        self._counts = counts
        self._grace = grace
        self._thread = threading.get_ident()
        self._watched: dict[float, dict[Run, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._left: set[asyncio.Task[None]] = set()

    @property
    def left_behind(self) -> int:
        """Handlers that ignore their cancellation and are still running."""
        return len(self._left)

    def in_loop(self, action: Callable[[Run], None], run: Run) -> None:
        """Do something with a run, from whichever thread."""
        if threading.get_ident() == self._thread:
            action(run)
        else:
            self._loop.call_soon_threadsafe(action, run)

    def watch(self, run: Run) -> None:
        """Start a run's clock."""
        seconds = run.remaining
        if seconds == math.inf or run.frame.pauses:
            return
        due = self._loop.time() + seconds
        self._watched.setdefault(seconds, {})[run] = due
        if due < self._due:
            self._arm(due)

    def hold(self, run: Run) -> None:
        """Stop a run's clock; it keeps the time it has left."""
        due = self._forget(run)
        if due is not None:
            run.remaining = max(0.0, due - self._loop.time())

    async def finish(self, run: Run, handler: HandlerCoroutine[T], pending: object) -> T:
        """Run a handler, suspended on `pending`, to its end or its limit.

        Raises:
            Exception: what the run was cut for, else what the handler raised.
        """
        run.frame.run = run
        self.watch(run)
        try:
            value = await self._driven(run, handler, pending)
        except BaseException as error:
            cut = run.settle()
            if cut is not None and error is not cut:
                raise cut from error
            raise
        else:
            cut = run.settle()
            if cut is not None:
                raise cut
            return value
        finally:
            self._forget(run)
            run.frame.run = None

    def interrupt(self, run: Run, error: Exception) -> None:
        """Cancel a run for this reason; leave it behind if it ignores that for too long."""
        self._forget(run)
        if run.cut is None:
            run.cut = error
            self._counts.interrupted += 1
        self._cancel(run)
        if run.grace is None:
            run.grace = self._loop.call_later(self._grace, self._leave, run)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf
        self._watched.clear()

    def _forget(self, run: Run) -> float | None:
        group = self._watched.get(run.remaining)
        due = None if group is None else group.pop(run, None)
        if group is not None and not group:
            del self._watched[run.remaining]
        return due

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
            self.interrupt(run, run.late())
        self._timer, self._due = None, math.inf
        if self._watched:
            self._arm(min(next(iter(group.values())) for group in self._watched.values()))

    @staticmethod
    def _cancel(run: Run) -> None:
        run.cancels += 1
        run.task.cancel()

    def _leave(self, run: Run) -> None:
        run.left = True
        self._cancel(run)

    @coroutine
    def _driven(
        self, run: Run, handler: HandlerCoroutine[T], pending: object
    ) -> Generator[object, None, T]:
        """Step a handler to its end, in the task that awaits it.

        Not `yield from`: the bus must be able to step aside when the handler won't stop.
        """
        task = run.task
        while True:
            error: BaseException | None = None
            try:
                yield pending
            except BaseException as thrown:  # noqa: BLE001 - the handler gets it
                error = thrown
            if error is not None and run.left and run.cut is not None:
                self._adopt(handler, error)
                raise run.cut
            before = task.cancelling()
            try:
                pending = handler.send(None) if error is None else handler.throw(error)
            except StopIteration as done:
                return done.value
            finally:
                run.self_cancels += max(0, task.cancelling() - before)

    def _adopt(self, handler: HandlerCoroutine[Any], error: BaseException) -> None:
        task = self._loop.create_task(_to_the_end(handler, error))
        self._left.add(task)
        task.add_done_callback(self._left.discard)


async def _to_the_end(handler: HandlerCoroutine[Any], error: BaseException) -> None:
    """Run a handler that was left behind, with nobody waiting for it."""
    try:
        await _thrown(handler, error)
    except (Exception, asyncio.CancelledError) as end:  # noqa: BLE001 - its time is long over
        _log.warning("a handler that ignored its cancellation has ended: %r", end)


@coroutine
def _thrown(handler: HandlerCoroutine[T], error: BaseException) -> Generator[object, None, T]:
    try:
        pending = handler.throw(error)
    except StopIteration as done:
        return done.value
    return (yield from _resumed(handler.send, handler.throw, pending))


@coroutine
def resumed_in(
    run: Callable[..., Any], handler: HandlerCoroutine[T], pending: object
) -> Generator[object, None, T]:
    """Step a coroutine, suspended on `pending`, to its end; each step inside `run` (Context.run).

    The task stays the awaiting one, so `asyncio.timeout` and task groups work inside.
    """
    return (
        yield from _resumed(
            lambda value: run(handler.send, value),
            lambda error: run(handler.throw, error),
            pending,
        )
    )


def _resumed(
    send: Callable[[None], object], throw: Callable[[BaseException], object], pending: object
) -> Generator[object, None, Any]:
    while True:
        error: BaseException | None = None
        try:
            yield pending
        except BaseException as thrown:  # noqa: BLE001 - the coroutine gets it
            error = thrown
        try:
            pending = send(None) if error is None else throw(error)
        except StopIteration as done:
            return done.value

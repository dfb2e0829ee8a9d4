"""Running a tool's function: in a thread or on the loop, within its limit, whatever it does.

A coroutine runs in a task of its own: `asyncio.timeout` and task groups cancel the task they were
entered in, and those of a coroutine that is left behind would one day cancel a caller who has long
gone on to something else. But it takes its first step at once, in that task's name; one that
doesn't wait for anything is over then, without a trip through the loop, a timer or a callback.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Lock
from time import monotonic
from types import CoroutineType
from typing import Any, NoReturn, TypeAlias, TypeGuard

from llmgine.contracts.threads import WorkerThreads
from llmgine.errors import ToolError
from llmgine.settings import ToolSettings
from llmgine.tools.approvals import INSIDE, Clock, Place

__all__ = ["Failed", "Runner"]

Bound: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tool raised; as a value, since some exceptions can't cross threads and tasks."""

    error: BaseException


# What asyncio's manual offers to tasks of other makes, under "Extending".
_enter_task = asyncio.tasks._enter_task  # noqa: SLF001
_leave_task = asyncio.tasks._leave_task  # noqa: SLF001

# The mark on a future by which a task knows an `await`, and which it then takes away: as long as
# it is there, nobody else can wait for the same.
_AWAITED = "_asyncio_future_blocking"


class Runner:
    """Runs the functions of all sessions' tools, for one event loop.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._places = _Places(settings.concurrency)
        self._stuck: set[asyncio.Task[None]] = set()
        self._threads = WorkerThreads(
            limit=settings.threads,
            abandoned_limit=settings.abandoned_threads,
            name="llmgine-tool",
        )

    @property
    def abandoned(self) -> int:
        """Calls that still run although they were given up on."""
        return self._threads.abandoned + len(self._stuck)

    async def run(
        self, function: Bound, session_id: str | None, timeout: float | None, *, threaded: bool
    ) -> object | Failed:
        """Return what the function returns, awaited where it is awaitable, or what it raised.

        Args:
            function: the function with its arguments.
            session_id: the session that gives it a place.
            timeout: its limit; by default that of the settings.
            threaded: whether it might block, and has to be called in a thread.

        Raises:
            ToolError: it ran past its limit, or too many others did.
        """
        self._check_room()
        limit = self._settings.timeout if timeout is None else timeout
        outer = INSIDE.get()
        if outer is not None and outer.place.active:
            # It is called by a tool that has a place: to wait for another might take for ever.
            return await self._limited(function, outer.place, limit, threaded=threaded)
        at_once = self._places.take(session_id)
        if not at_once:
            await self._places.wait(session_id)
        place = Place()
        try:
            if not at_once:
                self._check_room()
            return await self._limited(function, place, limit, threaded=threaded)
        finally:
            place.active = False
            self._places.leave(session_id)

    def close(self) -> None:
        """Let the idle threads end."""
        self._threads.close()

    def _check_room(self) -> None:
        if self.abandoned >= self._settings.abandoned_threads:
            raise ToolError("Too many earlier calls still hang; try again later.", code="busy")

    async def _limited(
        self, function: Bound, place: Place, limit: float, *, threaded: bool
    ) -> object | Failed:
        started, loop = monotonic(), asyncio.get_running_loop()
        clock = Clock(place, loop, INSIDE.get())
        token = INSIDE.set(clock)
        try:
            value = await self._in_thread(function, limit) if threaded else function()
            if not _is_awaitable(value):
                return value
            outcome: list[object | Failed] = []
            task = _begun(_kept(value, outcome), loop)
            if not outcome:
                clock.begin(limit - (monotonic() - started))
                await self._end_of(task, clock, limit)
            # Nothing is kept of what is to end the process.
            return outcome[0] if outcome else task.result()
        finally:
            if clock.outer is not None:
                clock.leave()
            INSIDE.reset(token)

    async def _end_of(self, task: asyncio.Task[None], clock: Clock, limit: float) -> None:
        """Wait for a task's end, or cancel it; where that doesn't end it, leave it behind.

        Raises:
            ToolError: it ran past its limit.
            CancelledError: the caller was cancelled.
        """
        try:
            while (left := clock.left) > 0:
                if clock.paused is not None:
                    await asyncio.wait((task, clock.paused), return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.wait((task,), timeout=None if left == math.inf else left)
                if task.done():
                    return
        finally:
            if not task.done():
                await self._cut_off(task)
        _late(limit)

    async def _cut_off(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=self._settings.cancel_grace)
        finally:
            if not task.done():
                self._stuck.add(task)
                task.add_done_callback(self._stuck.discard)

    async def _in_thread(self, function: Bound, limit: float) -> object | Failed:
        begun = Lock()  # held by the thread that begins, or by a caller who no longer waits
        try:
            # The function's own TimeoutError comes back as a value.
            end = None if limit == math.inf else limit
            return await self._threads.run(partial(_called, begun), function, timeout=end)
        except TimeoutError:
            if begun.acquire(blocking=False):
                text = f"No thread was free within {limit:g} s; the tool was not run."
                raise ToolError(text, code="busy") from None
            _late(limit)
        finally:
            begun.acquire(blocking=False)  # what a cancelled caller still had waiting never begins


def _is_awaitable(value: object) -> TypeGuard[Awaitable[object]]:
    # Nearly all are coroutines, for which the first question is enough.
    return isinstance(value, CoroutineType) or inspect.isawaitable(value)


def _late(limit: float) -> NoReturn:
    text = f"The tool took longer than {limit:g} s and was given up; it may still be running."
    raise ToolError(text, code="timeout") from None


def _called(begun: Lock, function: Bound) -> object | Failed:
    try:
        return function() if begun.acquire(blocking=False) else None
    except BaseException as error:
        return Failed(error)


async def _kept(awaitable: Awaitable[object], outcome: list[object | Failed]) -> None:
    """Keep what an awaitable returns or raises, whatever its task makes of the end."""
    try:
        outcome.append(await awaitable)
    except KeyboardInterrupt:
        raise  # somebody wants the process to end
    except BaseException as error:
        outcome.append(Failed(error))


if sys.version_info >= (3, 12):

    def _begun(
        steps: Coroutine[Any, None, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Return the task of a coroutine, which has taken its first step."""
        return asyncio.Task(steps, loop=loop, name="llmgine-tool", eager_start=True)

else:

    def _begun(
        steps: Coroutine[Any, None, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        """Return the task of a coroutine, which has taken its first step."""
        parked = _parked(steps.__await__())
        context, caller = copy_context(), asyncio.current_task(loop)
        task = asyncio.Task(parked, loop=loop, name="llmgine-tool", context=context)
        if caller is not None:
            _leave_task(loop, caller)
        _enter_task(loop, task)
        try:
            context.run(next, parked)
        finally:
            _leave_task(loop, task)
            if caller is not None:
                _enter_task(loop, caller)
        return task


def _parked(steps: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """Take a coroutine's first step, park until its task comes to it, and go on."""
    try:
        waits_for = next(steps)
    except StopIteration:
        yield
        return
    try:
        more = yield from _handed_over(steps, waits_for)
        del waits_for  # what came of it is the tool's to keep
        if more:
            yield from steps
    finally:
        steps.close()


def _handed_over(
    steps: Generator[Any, None, None], waits_for: object
) -> Generator[object, None, bool]:
    """Park, and let the task wait for what the first step does; tell whether there are more steps.

    What is waited for is the task's to know: it isn't marked as awaited until then. It is the
    first to hear of a cancellation, as it would be of the task's own.
    """
    awaited = _mark(waits_for, awaited=False)
    error = yield from _wait(None)
    if error is None or _cancel(waits_for, error):
        _mark(waits_for, awaited=awaited)
        error = yield from _wait(waits_for)
    try:
        while error is not None:
            error = yield from _wait(steps.throw(error))
    except StopIteration:
        return False
    return True


def _wait(waits_for: object) -> Generator[object, None, BaseException | None]:
    """Let the task wait; return what it throws in, if it does."""
    try:
        yield waits_for
    except BaseException as error:
        return error
    return None


def _mark(waits_for: object, *, awaited: bool) -> bool:
    """Mark a future as awaited, or not; return whether it was."""
    if not asyncio.isfuture(waits_for):
        return False
    before: bool = getattr(waits_for, _AWAITED)
    setattr(waits_for, _AWAITED, awaited)
    return before


def _cancel(waits_for: object, error: BaseException) -> bool:
    # Some know their own cancellations by the message.
    return asyncio.isfuture(waits_for) and waits_for.cancel(*error.args[:1])


class _Places:
    """Room for so many calls of each session at once; who comes first is served first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: dict[str | None, int] = {}
        self._turns: defaultdict[str | None, dict[asyncio.Future[None], None]] = defaultdict(dict)

    def take(self, session_id: str | None) -> bool:
        """Take a place, if one is free."""
        taken = self._taken.get(session_id, 0)
        if taken == self._limit:
            return False
        self._taken[session_id] = taken + 1
        return True

    async def wait(self, session_id: str | None) -> None:
        """Wait for a place that somebody leaves."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns = self._turns[session_id]
        turns[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave(session_id)
            raise
        finally:
            del turns[turn]
            if not turns:
                del self._turns[session_id]

    def leave(self, session_id: str | None) -> None:
        """Leave a place to the one who has waited longest."""
        for turn in self._turns.get(session_id, ()):
            if not turn.done():
                turn.set_result(None)
                return
        taken = self._taken.pop(session_id)
        if taken > 1:
            self._taken[session_id] = taken - 1

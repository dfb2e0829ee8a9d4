"""Running a tool's function: in a thread or on the loop, within its limit, whatever it does.

A coroutine runs in a task of its own. In its caller's it would be cheaper, but `asyncio.timeout`
and task groups cancel the task they were entered in: those of a coroutine that is left behind
would one day cancel a caller who has long gone on to something else.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from threading import Lock
from time import monotonic
from typing import NoReturn, TypeAlias
from weakref import WeakValueDictionary

from llmgine.contracts.threads import WorkerThreads
from llmgine.errors import ToolError
from llmgine.settings import ToolSettings

__all__ = ["Failed", "Runner"]

Bound: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tool raised; as a value, since some exceptions can't cross threads and tasks."""

    error: BaseException


@dataclass(slots=True)
class _Held:
    """A place that a running tool has."""

    active: bool = True


# What a tool starts gets a copy of this, and may outlive the tool: hence `active`.
_inside: ContextVar[_Held | None] = ContextVar("llmgine_inside_tool", default=None)


class Runner:
    """Runs the functions of all sessions' tools, for one event loop.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._places: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()
        self._stuck: set[asyncio.Task[object]] = set()
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
        held = _inside.get()
        if held is not None and held.active:
            # It is called by a tool that has a place: to wait for another might take for ever.
            return await self._limited(function, limit, threaded)
        async with self._place(session_id):
            self._check_room()
            held = _Held()
            token = _inside.set(held)
            try:
                return await self._limited(function, limit, threaded)
            finally:
                held.active = False
                _inside.reset(token)

    def close(self) -> None:
        """Let the idle threads end."""
        self._threads.close()

    def _check_room(self) -> None:
        if self.abandoned >= self._settings.abandoned_threads:
            raise ToolError("Too many earlier calls still hang; try again later.", code="busy")

    def _place(self, session_id: str | None) -> asyncio.Semaphore:
        # A semaphore that no call holds or waits for is gone from the dictionary by itself.
        place = self._places.get(session_id)
        if place is None:
            place = self._places[session_id] = asyncio.Semaphore(self._settings.concurrency)
        return place

    async def _limited(self, function: Bound, limit: float, threaded: bool) -> object | Failed:
        started = monotonic()
        value = await self._in_thread(function, limit) if threaded else function()
        if not inspect.isawaitable(value):
            return value
        steps = value if inspect.iscoroutine(value) else _steps(value)
        left = limit - (monotonic() - started)
        try:
            return await _limited(steps, left, self._settings.cancel_grace, self._stuck)
        except TimeoutError:
            _late(limit)

    async def _in_thread(self, function: Bound, limit: float) -> object | Failed:
        begun = Lock()  # held by the thread that begins, or by a caller who no longer waits
        try:
            # The function's own TimeoutError comes back as a value.
            async with asyncio.timeout(None if limit == math.inf else limit):
                return await self._threads.run(partial(_called, begun), function)
        except TimeoutError:
            if begun.acquire(blocking=False):
                text = f"No thread was free within {limit:g} s; the tool was not run."
                raise ToolError(text, code="busy") from None
            _late(limit)
        finally:
            begun.acquire(blocking=False)  # what a cancelled caller still had waiting never begins


def _late(limit: float) -> NoReturn:
    text = f"The tool took longer than {limit:g} s and was given up; it may still be running."
    raise ToolError(text, code="timeout") from None


def _called(begun: Lock, function: Bound) -> object | Failed:
    try:
        return function() if begun.acquire(blocking=False) else None
    except BaseException as error:
        return Failed(error)


async def _steps(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def _limited(
    steps: Coroutine[object, None, object],
    seconds: float,
    grace: float,
    stuck: set[asyncio.Task[object]],
) -> object | Failed:
    """Return how a coroutine ends, or cancel it; where that doesn't end it, leave it behind.

    Args:
        steps: the coroutine.
        seconds: its limit.
        grace: how long it may ignore its cancellation.
        stuck: where its task is kept once it is left behind.

    Raises:
        TimeoutError: it ran past its limit.
        CancelledError: the caller was cancelled.
    """
    task = _begun(_contained(steps))
    try:
        if not task.done():
            await asyncio.wait((task,), timeout=None if seconds == math.inf else seconds)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            await _end(task, grace, stuck)
    raise TimeoutError


def _begun(steps: Coroutine[object, None, object]) -> asyncio.Task[object]:
    """Return the task of a coroutine, which has taken its first step where Python offers that."""
    if sys.version_info < (3, 12):
        return asyncio.create_task(steps)
    return asyncio.Task(steps, loop=asyncio.get_running_loop(), eager_start=True)


async def _contained(steps: Coroutine[object, None, object]) -> object | Failed:
    try:
        return await steps
    except KeyboardInterrupt:
        raise  # somebody wants the process to end
    except BaseException as error:
        return Failed(error)


async def _end(task: asyncio.Task[object], grace: float, stuck: set[asyncio.Task[object]]) -> None:
    task.cancel()
    try:
        await asyncio.wait((task,), timeout=grace)
    finally:
        if not task.done():
            stuck.add(task)
            task.add_done_callback(stuck.discard)

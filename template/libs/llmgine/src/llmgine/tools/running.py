"""Running a tool's function: in a thread or on the loop, within its limit, whatever it does."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

from llmgine.contracts.threads import WorkerThreads
from llmgine.errors import ToolError
from llmgine.settings import ToolSettings

__all__ = ["Failed", "Runner"]

_inside: ContextVar[bool] = ContextVar("llmgine_inside_tool", default=False)

T = TypeVar("T")
Bound: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tool raised; as a value, since some exceptions can't cross threads and tasks."""

    error: BaseException


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
        self, function: Bound, session_id: str | None, timeout: float | None
    ) -> object | Failed:
        """Return what the function returns, awaited where it is awaitable, or what it raised.

        Raises:
            ToolError: it ran past its limit, or too many others did.
        """
        # A semaphore that no call holds or waits for is gone from the dictionary by itself.
        places = self._places.setdefault(session_id, asyncio.Semaphore(self._settings.concurrency))
        limit = self._settings.timeout if timeout is None else timeout
        self._check_room()
        # A tool that calls tools holds a place already; to wait for another might take for ever.
        async with nullcontext() if _inside.get() else places:
            self._check_room()
            return await self._within(limit, function)

    def _check_room(self) -> None:
        if self.abandoned >= self._settings.abandoned_threads:
            raise ToolError("Too many earlier calls still hang; try again later.", code="busy")

    def close(self) -> None:
        """Let the idle threads end."""
        self._threads.close()

    async def _within(self, limit: float, function: Bound) -> object | Failed:
        task = asyncio.create_task(self._outcome(function))
        try:
            await asyncio.wait((task,), timeout=None if limit == math.inf else limit)
            if task.done():
                return task.result()
            text = (
                f"The tool took longer than {limit:g} s and was given up; it may still be running."
            )
            raise ToolError(text, code="timeout")
        finally:
            if not task.done():
                # A task that ignores this is kept and counted until it ends.
                task.cancel()
                self._stuck.add(task)
                task.add_done_callback(self._stuck.discard)
                await asyncio.wait((task,), timeout=self._settings.cancel_grace)

    async def _outcome(self, function: Bound) -> object | Failed:
        _inside.set(True)
        if inspect.iscoroutinefunction(function):
            return await _awaited(function())
        value = await self._threads.run(_called, function)
        return await _awaited(value) if inspect.isawaitable(value) else value


def _called(function: Bound) -> object | Failed:
    try:
        return function()
    except BaseException as error:
        return Failed(error)


async def _awaited(awaitable: Awaitable[T]) -> T | Failed:
    try:
        return await awaitable
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Failed(error)

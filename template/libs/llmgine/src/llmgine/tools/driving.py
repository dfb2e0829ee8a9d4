"""Awaiting a coroutine up to a limit, also one that ignores its cancellation.

It runs in a task of its own. In its caller's it would be cheaper, but `asyncio.timeout` and task
groups cancel the task they were entered in: those of a coroutine that is left behind would one
day cancel a caller who has long gone on to something else.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Coroutine
from dataclasses import dataclass

__all__ = ["Failed", "limited"]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tool raised; as a value, since some exceptions can't cross threads and tasks."""

    error: BaseException


async def limited(
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

"""Awaiting a coroutine up to a limit, also one that ignores its cancellation.

It runs in the task that awaits it, which costs a tenth of what a task of its own costs. Only one
that won't stop gets a task, to go on in by itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Generator
from contextvars import Context
from dataclasses import dataclass
from types import coroutine

__all__ = ["Failed", "Limited"]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tool raised; as a value, since some exceptions can't cross threads and tasks."""

    error: BaseException


class Limited:
    """A coroutine with a limit, which starts when it first suspends.

    Args:
        steps: the coroutine.
        context: what it runs in.
        seconds: its limit.
        grace: how long it may ignore its cancellation.

    Attributes:
        expired: whether it ran past its limit.
    """

    def __init__(
        self, steps: Coroutine[object, None, object], context: Context, seconds: float, grace: float
    ) -> None:
        self._steps = steps
        self._context = context
        self._seconds = seconds
        self._grace = grace
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancels = 0
        self._cancelling = 0
        self.expired = False

    async def run(self, stuck: set[asyncio.Task[object]]) -> object | Failed:
        """Return how it ends; one that won't end goes on in a task among `stuck`.

        Raises:
            CancelledError: the caller was cancelled.
        """
        outcome = await self._driven(None)
        if self._task is None:
            return outcome
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self._cancels):
            self._task.uncancel()
        if self._cancels > 1:
            left = asyncio.create_task(self._to_the_end())
            stuck.add(left)
            left.add_done_callback(stuck.discard)
        if self._task.cancelling() > self._cancelling:
            raise asyncio.CancelledError
        return outcome

    async def _to_the_end(self) -> object:
        self._cancels = 0
        return await self._driven(asyncio.CancelledError())

    @coroutine
    def _driven(self, error: BaseException | None) -> Generator[object, None, object | Failed]:
        """Step to the end, or until it has ignored its cancellation for too long."""
        while True:
            try:
                if error is None:
                    pending = self._context.run(self._steps.send, None)
                else:
                    pending = self._context.run(self._steps.throw, error)
            except StopIteration as done:
                return done.value
            except KeyboardInterrupt:
                raise  # somebody wants the process to end
            except BaseException as raised:
                return Failed(raised)
            if self._task is None:
                self._watch()
            error = None
            try:
                yield pending
            except BaseException as thrown:
                if self._cancels > 1:
                    return Failed(thrown)
                error = thrown

    def _watch(self) -> None:
        self._task = asyncio.current_task()
        if self._task is not None and self._seconds != math.inf:
            self._cancelling = self._task.cancelling()
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        """Cancel the coroutine; the second time, it is left behind."""
        self.expired = True
        self._cancels += 1
        if self._task is not None:
            self._task.cancel()
        if self._cancels == 1:
            self._timer = asyncio.get_running_loop().call_later(self._grace, self._expire)

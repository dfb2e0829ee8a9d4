"""Bounded worker threads for plain functions, which give up on a call that never returns.

Both the bus (`def` handlers) and the tools (`def` tools) run on these, which is why they stand
here, below both. The executors of the standard library don't serve: a stuck call would keep
one of their threads for ever, and would keep the process from ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

__all__ = ["WorkerThreads"]

T = TypeVar("T")
R = TypeVar("R")


class _Job:
    """One call on its way through a worker thread; with `last`, its thread ends with it."""

    __slots__ = ("abandoned", "call", "done", "finished", "last", "loop")

    def __init__(self, call: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.done: asyncio.Future[bool] = loop.create_future()
        self.finished = False
        self.abandoned = False
        self.last = False

    def end(self, *, in_time: bool) -> None:
        """Tell the caller, if it still waits, that the call is over, or that its time is."""
        if not self.done.done():
            self.done.set_result(in_time)


class WorkerThreads:
    """Runs plain functions in daemon threads, for one event loop.

    A call that is cancelled can't be stopped; its thread is abandoned, counted, and replaced.

    Args:
        limit: calls at once; more wait for their turn.
        abandoned_limit: abandoned threads that are replaced. Beyond it each one takes a place
            from `limit` until its call returns.
        name: how the threads are called.
    """

    def __init__(self, *, limit: int, abandoned_limit: int, name: str) -> None:
        self._places = asyncio.Semaphore(limit)
        self._abandoned_limit = abandoned_limit
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._abandoned = 0
        self._closed = False

    @property
    def abandoned(self) -> int:
        """Threads that still run a call on which its caller has given up."""
        return self._abandoned

    async def run(
        self, function: Callable[[T], R], argument: T, *, timeout: float | None = None
    ) -> R:
        """Call `function(argument)` in a thread, with a copy of the caller's context.

        Args:
            function: what to call.
            argument: its argument.
            timeout: seconds after which the call is given up, if there is a limit.

        Raises:
            TimeoutError: the limit is over.
            BaseException: whatever the function raises, SystemExit included.
        """
        results: list[R] = []
        errors: list[BaseException] = []
        context = copy_context()

        def call() -> None:
            try:
                results.append(context.run(function, argument))
            except BaseException as error:
                errors.append(error)

        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        await self._place(end)
        job = _Job(call, loop)
        self._submit(job)
        await self._end_of(job, end)
        if errors:
            raise errors.pop()  # its traceback holds this frame, which no longer holds it
        return results[0]

    def close(self) -> None:
        """Let the idle threads end, and busy ones after their call; a later call opens it again."""
        self._closed = True
        for _ in range(self._threads - self._busy):
            self._jobs.put(None)
        self._threads = self._busy

    async def _place(self, end: float | None) -> None:
        if self._places.locked():
            async with asyncio.timeout_at(end):
                await self._places.acquire()
        else:
            await self._places.acquire()

    async def _end_of(self, job: _Job, end: float | None) -> None:
        # `asyncio.timeout` would be a quarter of all that is added to the bare thread.
        timer = None if end is None else job.loop.call_at(end, partial(job.end, in_time=False))
        in_time = False
        try:
            in_time = await job.done
        finally:
            if timer is not None:
                timer.cancel()
            if not in_time:
                self._abandon(job)
        if not in_time:
            raise TimeoutError

    def _submit(self, job: _Job) -> None:
        if self._busy == self._threads:
            try:
                Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError:  # the system has no more threads
                self._places.release()
                raise
            self._threads += 1
        self._closed = False
        self._busy += 1
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.call()
            job.last = self._closed
            try:
                job.loop.call_soon_threadsafe(self._finish, job)
            except RuntimeError:
                return  # the loop is closed, and with it everyone who could have asked
            if job.last:
                return
            del job  # an idle thread keeps nothing alive

    def _finish(self, job: _Job) -> None:
        job.finished = True
        if job.abandoned:
            # Another thread took its place: one of them has to go.
            if self._abandoned > self._abandoned_limit:
                self._places.release()
            self._abandoned -= 1
            self._let_go(job)
            return
        self._busy -= 1
        self._places.release()
        if job.last or self._closed:
            self._threads -= 1
            self._let_go(job)
        job.end(in_time=True)

    def _let_go(self, job: _Job) -> None:
        if not job.last:
            self._jobs.put(None)

    def _abandon(self, job: _Job) -> None:
        if job.finished:
            return
        job.abandoned = True
        self._abandoned += 1
        self._busy -= 1
        self._threads -= 1
        if self._abandoned <= self._abandoned_limit:
            self._places.release()

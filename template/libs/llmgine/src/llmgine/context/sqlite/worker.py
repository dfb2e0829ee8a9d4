"""A thread of its own for a database connection, so that no event loop waits for a disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

from llmgine.context.sqlite.database import DatabaseFile, error_code
from llmgine.errors import ContextStoreError, LlmgineError

__all__ = ["Worker"]

T = TypeVar("T")


class _Job:
    """Work on the database, and who waits for it."""

    __slots__ = ("done", "error", "loop", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.error: Exception | None = None

    def attempt(self, db: sqlite3.Connection) -> None:
        """Do the work, or keep its refusal; refusals come before anything is written."""
        self.error = None
        try:
            self.work(db)
        except (LlmgineError, ValueError) as error:
            self.error = error


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(job.error)


class Worker:
    """A thread with a connection, which does jobs in the order in which they come.

    Args:
        file: what to connect to.
        begin: the statement that starts a transaction.
        group: how many waiting jobs share a transaction.
    """

    def __init__(self, file: DatabaseFile, begin: str, *, group: int) -> None:
        self._file = file
        self._begin = begin
        self._group = group
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._process = os.getpid()
        self._ended = False
        self._db: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in a transaction; return its value once that is committed.

        Work that is cancelled before its turn isn't done.

        Raises:
            ContextStoreError: the store is closed, or the database failed.
        """
        values: list[T] = []

        def keep(db: sqlite3.Connection) -> None:
            values[:] = (work(db),)

        job = _Job(keep)
        self._submit(job)
        await job.done
        return values[0]

    def end(self) -> None:
        """Take no more jobs, and let the thread end after those it has."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._jobs.put(None)

    def join(self) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join()

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._ended:
                raise ContextStoreError("the context store is closed: make another one")
            if self._thread is None:
                self._process = os.getpid()
                self._thread = Thread(target=self._serve, name="llmgine-context", daemon=True)
                self._thread.start()
            elif self._process != os.getpid():
                raise ContextStoreError(
                    "the context store was in use before this process was forked: make one here"
                )
            self._jobs.put(job)

    def _serve(self) -> None:
        while self._round():
            pass
        self._disconnect()

    def _round(self) -> bool:
        """Do the next jobs; return whether more may come."""
        jobs: list[_Job] = []
        more = self._take(jobs)
        self._do([job for job in jobs if not job.done.cancelled()])
        waiting: defaultdict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
        for job in jobs:
            waiting[job.loop].append(job)
        for loop, settled in waiting.items():
            # A loop that is closed took everyone who waited with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, settled)
        return more

    def _take(self, jobs: list[_Job]) -> bool:
        """Wait for a job, and take along what waits behind it."""
        job = self._jobs.get()
        with suppress(Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) == self._group:
                    return True
                job = self._jobs.get_nowait()
            return False
        return True

    def _do(self, jobs: Sequence[_Job]) -> None:
        try:
            if jobs:
                self._transact(jobs)
        except Exception as error:
            # Closing undoes the transaction, in whatever state the failure left it.
            self._disconnect()
            if len(jobs) > 1 and error_code(error) != sqlite3.SQLITE_BUSY:
                for job in jobs:
                    self._do((job,))
                return
            for job in jobs:
                job.error = self._file.explained(error)

    def _transact(self, jobs: Sequence[_Job]) -> None:
        if self._db is None:
            self._db = self._file.connect()
        self._db.execute(self._begin)
        for job in jobs:
            job.attempt(self._db)
        self._db.execute("COMMIT")

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

"""The database file, and threads for its connections, so that no event loop waits for a disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from llmgine.errors import ConfigurationError, ContextStoreError, LlmgineError

__all__ = ["MIGRATIONS", "Connection", "DatabaseFile", "Worker"]

T = TypeVar("T")

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE messages (
            tenant TEXT NOT NULL,
            session TEXT NOT NULL,
            number INTEGER NOT NULL,
            body TEXT NOT NULL,
            stored_at REAL NOT NULL,
            PRIMARY KEY (tenant, session, number)
        )""",
    ),
)
"""What leads from each version of the schema to the next; released ones never change."""

_INSERT = "INSERT INTO messages VALUES (?, ?, ?, CAST(? AS TEXT), ?)"
# "llmg", by which a file of ours is told from other programs' databases.
_APPLICATION_ID = 0x6C6C6D67
_STATE = """
    SELECT user_version, application_id, EXISTS (SELECT 1 FROM sqlite_master)
    FROM pragma_user_version, pragma_application_id
"""
# SQLite counts milliseconds in 32 bits.
_LONGEST_WAIT = 2_000_000.0
_MOST_VERSIONS = 10_000
_WAL_LIMIT = 64 * 1024 * 1024

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process kept it locked for longer than `context.busy_timeout`",
    sqlite3.SQLITE_CANTOPEN: "the file and its folder must be readable and writable",
    sqlite3.SQLITE_CORRUPT: "put a backup in its place, or try `sqlite3 FILE .recover`",
    sqlite3.SQLITE_FULL: "make room on the disk; nothing of this write is kept",
    sqlite3.SQLITE_NOTADB: "name another file as `context.path`",
    sqlite3.SQLITE_READONLY: "the file and its folder must be writable",
}


# SQLite's locks belong to a process, but it believes them inherited by a fork: a file that was
# open then can't be used safely in the child, not even by a connection of its own.
_open_files: dict[int, str] = {}
_inherited: set[str] = set()
_forks: list[str] = []


def _in_child() -> None:
    _inherited.update(_open_files.values())
    _forks.append("forked")


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_in_child)


class Connection(sqlite3.Connection):
    """A connection that remembers how far the conversations are, and puts rows in together.

    Attributes:
        rows: those that go in before the next statement, and so before the end of the transaction.
        versions: the version of each session that was asked for or written to, for as long as
            nobody else has written to the file.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__(path, timeout=min(timeout, _LONGEST_WAIT), isolation_level=None)
        _open_files[id(self)] = os.path.realpath(path)
        self.rows: list[tuple[str, str, int, bytes, float]] = []
        self.versions: dict[str, int] = {}
        self._seen = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - sqlite3's
        """Put in the rows that wait, and execute a statement."""
        if self.rows:
            self.executemany(_INSERT, self.rows)
            self.rows = []  # those that fail stay, so that the transaction fails, too
        return super().execute(sql, parameters)

    def close(self) -> None:
        """Let go of the file."""
        super().close()
        _open_files.pop(id(self), None)

    def begin(self, statement: str) -> None:
        """Start a transaction, and forget what somebody else may have changed."""
        self.execute(statement)
        if self.versions:
            seen = int(self.execute("PRAGMA data_version").fetchone()[0])
            if seen != self._seen or len(self.versions) > _MOST_VERSIONS:
                self.versions.clear()
            self._seen = seen


class DatabaseFile:
    """A database file, and how it is opened."""

    def __init__(self, path: Path, synchronous: str, busy_timeout: float) -> None:
        if not busy_timeout >= 0:
            raise ConfigurationError(
                f"busy_timeout: expected a number from 0 up, found {busy_timeout}"
            )
        self._path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout

    def connect(self) -> Connection:
        """Open the file, at the present version of the schema; make it where there is none."""
        if os.path.realpath(self._path) in _inherited:
            raise self.forked()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file readable for all; those beside it take their mode from it.
        # One that is there isn't opened: to close it would drop all locks that this process has.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with ExitStack() as stack:
            db = Connection(self._path, timeout=self._busy_timeout)
            stack.callback(db.close)
            steps = self._steps_left(db)
            self._share(db)
            if steps:
                self._migrate(db)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            stack.pop_all()
            return db

    def _steps_left(self, db: Connection) -> tuple[tuple[str, ...], ...]:
        version, application, used = db.execute(_STATE).fetchone()
        if used and application != _APPLICATION_ID:
            raise ContextStoreError(
                f"{self._path}: this is a database of another program: name another file as "
                "`context.path`"
            )
        if version > len(MIGRATIONS):
            raise ContextStoreError(
                f"{self._path}: a newer llmgine wrote this file (schema {version}; this one knows "
                f"up to {len(MIGRATIONS)}): update the project, or name another file as "
                "`context.path`"
            )
        return MIGRATIONS[version:] if used else MIGRATIONS

    def _share(self, db: Connection) -> None:
        """Let readers and a writer at the file at once, for good."""
        give_up = time.monotonic() + self._busy_timeout
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Here SQLite doesn't wait for others that open the file at this moment.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _migrate(self, db: Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        for step in self._steps_left(db):
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")

    def forked(self) -> ContextStoreError:
        """Return the error for a process that was forked while the file was open."""
        return ContextStoreError(
            f"{self._path}: this process was forked while the file was open: open it after the "
            "fork only, or start processes anew (`spawn`)"
        )

    def explained(self, error: Exception) -> Exception:
        """Return what the caller of a failed job is told."""
        if not isinstance(error, (sqlite3.Error, OSError)):
            return error
        remedy = _REMEDIES.get(_code(error))
        told = ContextStoreError(f"{self._path}: {error}{f'; {remedy}' if remedy else ''}")
        told.__cause__ = error
        return told


def _code(error: Exception) -> int:
    """Return SQLite's own code, or the one that fits an error of the system; else 0."""
    if isinstance(error, OSError):
        return sqlite3.SQLITE_CANTOPEN
    return int(vars(error).get("sqlite_errorcode", 0)) & 0xFF


class _Job:
    """Work on the database, and who waits for it."""

    __slots__ = ("done", "error", "loop", "value", "work")

    def __init__(self, work: Callable[[Connection], object]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()
        self.value: object = None
        self.error: Exception | None = None

    def attempt(self, db: Connection) -> None:
        """Do the work, or keep its refusal; refusals come before anything is written."""
        self.error = None
        try:
            self.value = self.work(db)
        except UnicodeError as error:
            self.error = ContextStoreError(f"the session id or tenant is no valid text: {error}")
        except (LlmgineError, ValueError) as error:
            self.error = error


def _settle(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is None:
            job.done.set_result(job.value)
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
        self._forks = 0
        self._ended = False
        self._db: Connection | None = None

    def run(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Do the work in a transaction; the future has its value once that is committed.

        Work that is cancelled before its turn isn't done.

        Raises:
            ContextStoreError: the store is closed, or the database failed.
        """
        job = _Job(work)
        self._submit(job)
        return job.done

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
                thread = Thread(target=self._serve, name="llmgine-context", daemon=True)
                thread.start()
                self._thread, self._forks = thread, len(_forks)
            elif self._forks != len(_forks):  # which left the thread behind
                raise self._file.forked()
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
            if len(jobs) > 1 and _code(error) != sqlite3.SQLITE_BUSY:
                for job in jobs:
                    self._do((job,))
                return
            for job in jobs:
                job.error = self._file.explained(error)

    def _transact(self, jobs: Sequence[_Job]) -> None:
        if self._db is None:
            self._db = self._file.connect()
        self._db.begin(self._begin)
        for job in jobs:
            job.attempt(self._db)
        self._db.execute("COMMIT")

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

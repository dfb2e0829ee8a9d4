"""The file that a store keeps its conversations in: how it is opened, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import ExitStack
from pathlib import Path

from llmgine.errors import ContextStoreError

__all__ = ["DatabaseFile", "error_code"]

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
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

_WAL_LIMIT = 64 * 1024 * 1024

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process kept it locked for longer than `context.busy_timeout`",
    sqlite3.SQLITE_CANTOPEN: "the file and its folder must be readable and writable",
    sqlite3.SQLITE_CORRUPT: "put a backup in its place, or try `sqlite3 FILE .recover`",
    sqlite3.SQLITE_FULL: "make room on the disk; nothing of this write is kept",
    sqlite3.SQLITE_NOTADB: "name another file as `context.path`",
    sqlite3.SQLITE_READONLY: "the file and its folder must be writable",
}


class DatabaseFile:
    """A database file, and how it is opened."""

    def __init__(self, path: Path, synchronous: str, busy_timeout: float) -> None:
        self._path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout

    def connect(self) -> sqlite3.Connection:
        """Open the file, at the present version of the schema; make it where there is none."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would make the file readable for all; those beside it take their mode from it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        with ExitStack() as stack:
            db = sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)
            stack.callback(db.close)
            if self._steps_left(db):
                self._share(db)
                self._migrate(db)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            stack.pop_all()
            return db

    def _steps_left(self, db: sqlite3.Connection) -> tuple[tuple[str, ...], ...]:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(_MIGRATIONS):
            raise ContextStoreError(
                f"{self._path}: a newer llmgine wrote this file (schema {version}; this one knows "
                f"up to {len(_MIGRATIONS)}): update the project, or name another file as "
                "`context.path`"
            )
        return _MIGRATIONS[version:]

    def _share(self, db: sqlite3.Connection) -> None:
        """Let readers and a writer at the file at once, for good."""
        give_up = time.monotonic() + self._busy_timeout
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Here SQLite doesn't wait for others that open the file at this moment.
                if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _migrate(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        for step in self._steps_left(db):
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.execute("COMMIT")

    def explained(self, error: Exception) -> Exception:
        """Return what the caller of a failed job is told."""
        if not isinstance(error, (sqlite3.Error, OSError)):
            return error
        remedy = _REMEDIES.get(error_code(error))
        told = ContextStoreError(f"{self._path}: {error}{f'; {remedy}' if remedy else ''}")
        told.__cause__ = error
        return told


def error_code(error: Exception) -> int:
    """Return SQLite's own code; 0 where the error isn't from there."""
    return int(vars(error).get("sqlite_errorcode", 0)) & 0xFF

"""Conversations in a file: SQLite from the standard library, safe to share between processes.

One row holds one message, under its tenant, its session and its number in the conversation, which
starts at 1. Whoever writes waits in one queue for one thread, which stores all that waits in one
transaction and acknowledges it once that is on disk. Reads have a thread and a connection of their
own. Nothing is opened before it is needed, so a store can be made before a loop runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Literal, Self, get_args
from weakref import finalize

from pydantic_core import from_json, to_json

from llmgine.context.sqlite.database import Connection, DatabaseFile, Worker
from llmgine.context.sqlite.listing import found_session, listed_sessions
from llmgine.context.window import (
    check_limit,
    copied,
    history_window,
    unmatched_results,
    window_start,
)
from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    ContextStore,
    Publisher,
    StoredSession,
    TextPart,
)
from llmgine.contracts.chat import Role
from llmgine.contracts.codec import decode, encode
from llmgine.contracts.protocols import tell
from llmgine.errors import CodecError, ContextStoreError, CorruptRowError, VersionConflictError
from llmgine.settings import ContextSettings

__all__ = ["SQLiteContextStore", "build"]

_GROUP = 500
_PURGED_AT_ONCE = 100
_AFTER_ALL = 2**62
_LONG = 1024 * 1024
_ROLES: tuple[Role, ...] = get_args(Role)

_OF_SESSION = "FROM messages WHERE tenant = ? AND session = ?"
_CLEAR = f"DELETE {_OF_SESSION}"
_VERSION = f"SELECT coalesce(max(number), 0) {_OF_SESSION}"
_TAIL = f"SELECT number, CAST(body AS BLOB) {_OF_SESSION} AND number < ? ORDER BY number DESC"
_FORK = f"INSERT INTO messages SELECT tenant, ?, number, body, ? {_OF_SESSION} AND number <= ?"
# Goes from one session to the next by the key, and looks at the last message of each.
_PURGE = """
    DELETE FROM messages WHERE tenant = :tenant AND session IN (
        WITH RECURSIVE names (name) AS (
            SELECT min(session) FROM messages WHERE tenant = :tenant UNION ALL
            SELECT (SELECT min(session) FROM messages WHERE tenant = :tenant AND session > name)
            FROM names WHERE name IS NOT NULL
        )
        SELECT name FROM names WHERE :before > (
            SELECT stored_at FROM messages WHERE tenant = :tenant AND session = name
            ORDER BY number DESC LIMIT 1
        ) LIMIT :most
    )
"""


class SQLiteContextStore:
    """Keeps every conversation in a file until it is cleared or purged.

    What was acknowledged survives the end of the process, however it ends; with `synchronous`
    "full" also that of the machine. Several stores, in several processes, may use one file; tasks
    and threads may share a store. A write that is cancelled is stored whole or not at all.

    A message that can't be read any more raises `CorruptRowError` wherever it is wanted; other
    conversations, and windows that don't reach back to it, are read as ever, and `salvage` returns
    the rest of its conversation. Whatever else fails on disk is a `ContextStoreError`.

    The event loop never waits for the disk. But messages of several megabytes hold the interpreter
    while they are turned into JSON: give pictures and films by `url` or `file_id`.

    Args:
        path: the file; it and its folder are made on first use, for their owner alone.
        publisher: who is told of changes.
        tenant: whose conversations; those of other tenants are out of sight.
        synchronous: "full" waits for the disk; with "normal" a power failure may cost the last
            messages, never the file.
        busy_timeout: how long to wait for other processes that write, in seconds.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        publisher: Publisher | None = None,
        tenant: str = "",
        synchronous: Literal["full", "normal"] = "full",
        busy_timeout: float = 5.0,
    ) -> None:
        self._publisher = publisher
        self._tenant = tenant
        file = DatabaseFile(Path(path).absolute(), synchronous, busy_timeout)
        self._writer = Worker(file, "BEGIN IMMEDIATE", group=_GROUP)
        self._reader = Worker(file, "BEGIN", group=1)
        # A store that is dropped without `close` doesn't leave its threads behind.
        finalize(self, _end, self._reader, self._writer)

    async def add_message(self, session_id: str, message: ChatMessage) -> None:
        """Append one message."""
        await self.add_messages(session_id, (message,))

    async def add_messages(
        self,
        session_id: str,
        messages: Sequence[ChatMessage],
        *,
        expected_version: int | None = None,
    ) -> int:
        """Append all messages or none; return the new version.

        Raises:
            VersionConflictError: `expected_version` isn't the conversation's version.
            CodecError: a message can't be written as JSON.
        """
        fresh = [copied(message) for message in messages]

        def append(db: Connection) -> int:
            version = self._version(db, session_id)
            if expected_version is not None and expected_version != version:
                raise VersionConflictError(session_id, version, expected_version)
            now = time.time()
            rows = [
                (self._tenant, session_id, number, _body(message), now)
                for number, message in enumerate(fresh, version + 1)
            ]
            db.rows += rows
            db.versions[session_id] = version + len(rows)
            return version + len(rows)

        version = await self._writer.run(append)
        if self._publisher is not None:
            await self._changed(session_id, version)
        return version

    async def get_context(self, session_id: str, *, last: int | None = None) -> list[ChatMessage]:
        """Return the messages, oldest first; with `last` about that many from the end.

        A window is read from the end, so its cost doesn't grow with the conversation, unless it
        holds a result without a call, which is looked for all the way back.

        Raises:
            CorruptRowError: one of them can't be read.
            ValueError: `last` is negative.
        """
        if last is not None and last < 0:
            raise ValueError(f"last must be 0 or more, not {last}")

        def read(db: Connection) -> list[ChatMessage]:
            found: list[ChatMessage] = []
            least = _AFTER_ALL if last is None else min(last, _AFTER_ALL)
            before, wanted = _AFTER_ALL, least
            while True:
                rows = self._rows(db, session_id, before, wanted)
                earlier = [_message(session_id, number, body) for number, body in rows]
                found = [*reversed(earlier), *found]
                if len(rows) < wanted or _is_sound(found, least):
                    return history_window(found, last)
                before, wanted = rows[-1][0], len(found)

        return await self._reader.run(read)

    async def clear_context(self, session_id: str) -> None:
        """Forget the conversation; one that doesn't exist is fine."""
        key = self._tenant, session_id
        await self._writer.run(lambda db: _change(db, _CLEAR, key))
        await self._changed(session_id, 0)

    async def list_sessions(
        self, *, limit: int = 100, after: StoredSession | None = None
    ) -> list[StoredSession]:
        """Return conversations, the one that changed last first; from `after` on, where given.

        Each conversation's last message is looked at, whatever the limit.

        Raises:
            ValueError: `limit` is negative.
        """
        check_limit(limit)
        return await self._reader.run(lambda db: listed_sessions(db, self._tenant, limit, after))

    async def find_session(self, session_id: str) -> StoredSession | None:
        """Return one conversation; nothing where it holds no message."""
        return await self._reader.run(lambda db: found_session(db, self._tenant, session_id))

    async def salvage(self, session_id: str) -> tuple[list[ChatMessage], list[CorruptRowError]]:
        """Return the messages that can be read, and an error for each that can't.

        To mend the conversation, clear it and add `repaired(messages)`.
        """

        def read(db: Connection) -> tuple[list[ChatMessage], list[CorruptRowError]]:
            sound: list[ChatMessage] = []
            errors: list[CorruptRowError] = []
            for number, body in reversed(self._rows(db, session_id, _AFTER_ALL, _AFTER_ALL)):
                try:
                    sound.append(_message(session_id, number, body))
                except CorruptRowError as error:
                    errors.append(error)
            return sound, errors

        return await self._reader.run(read)

    async def fork(self, session_id: str, new_session_id: str, *, at: int | None = None) -> int:
        """Copy a conversation, up to version `at` or whole, into a new one; return its version.

        Raises:
            ContextStoreError: the new one exists, or `at` is no version of the old one.
        """

        def copy(db: Connection) -> int:
            if self._version(db, new_session_id):
                raise ContextStoreError(f"{new_session_id!r} has messages: fork into a new session")
            version = self._version(db, session_id)
            end = version if at is None else at
            if not 0 <= end <= version:
                raise ContextStoreError(f"at: expected a version from 0 to {version}, found {at}")
            key = self._tenant, session_id
            _change(db, _FORK, (new_session_id, time.time(), *key, end))
            return end

        return await self._writer.run(copy)

    async def purge(self, older_than: datetime | timedelta) -> int:
        """Forget the conversations without a message since then; return how many messages went.

        They go in groups, so that other writers don't have to wait for all of them.

        Args:
            older_than: a moment, with its time zone, or how long ago.

        Raises:
            ValueError: the moment has no time zone, or the time is negative.
        """
        wanted = {"tenant": self._tenant, "before": _moment(older_than), "most": _PURGED_AT_ONCE}
        total = 0
        while gone := await self._writer.run(lambda db: _change(db, _PURGE, wanted)):
            total += gone
        return total

    async def close(self) -> None:
        """Finish what was accepted, then let go of the file; closing twice is fine."""
        _end(self._reader, self._writer)
        # The writer goes last: whoever closes a file's last connection tidies up.
        await asyncio.to_thread(self._reader.join)
        await asyncio.to_thread(self._writer.join)

    async def __aenter__(self) -> Self:
        """Open the file, so that one that can't be used shows now."""
        await self._writer.run(lambda db: self._version(db, ""))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""
        await self.close()

    def _version(self, db: Connection, session_id: str) -> int:
        known = db.versions.get(session_id)
        if known is None:
            row = db.execute(_VERSION, (self._tenant, session_id)).fetchone()
            known = db.versions[session_id] = int(row[0])
        return known

    def _rows(
        self, db: Connection, session_id: str, before: int, most: int
    ) -> list[tuple[int, bytes]]:
        """Return the last rows before a number, the latest first."""
        key = self._tenant, session_id
        return db.execute(f"{_TAIL} LIMIT ?", (*key, before, most)).fetchall()

    async def _changed(self, session_id: str, length: int) -> None:
        if self._publisher is not None:
            event = ChatHistoryUpdatedEvent(session_id=session_id, length=length)
            await tell(self._publisher, event)


def build(settings: ContextSettings, *, publisher: Publisher | None = None) -> ContextStore:
    """Make the store that `context.store = "sqlite"` names."""
    return SQLiteContextStore(
        settings.path,
        publisher=publisher,
        tenant=settings.tenant,
        synchronous=settings.synchronous,
        busy_timeout=settings.busy_timeout,
    )


def _change(db: Connection, statement: str, values: Sequence[object] | Mapping[str, object]) -> int:
    db.versions.clear()
    return db.execute(statement, values).rowcount


# Nearly all messages are one text, which the codec writes between the same words each time.


@cache
def _around(role: Role) -> tuple[bytes, bytes]:
    """Return what stands before and after the text of a message."""
    before, after = encode(ChatMessage(role=role, parts=(TextPart(text=""),))).split(b'""')
    return before, after


def _body(message: ChatMessage) -> bytes:
    """Return what `encode` returns, in a fifth of the time for one text."""
    text = _only_text(message)
    if text is None:
        return encode(message)
    try:
        written = to_json(text)
    except ValueError:  # half of a surrogate pair, for which the codec has a way
        return encode(message)
    before, after = _around(message.role)
    return before + written + after


def _only_text(message: ChatMessage) -> str | None:
    """Return a message's text, if that and who speaks is all there is to it."""
    if type(message) is not ChatMessage:  # one of a class of your own has more to it
        return None
    if message.id is not None or message.name is not None or message.provider_data is not None:
        return None
    part = message.parts[0] if len(message.parts) == 1 else None
    if type(part) is not TextPart or part.provider_data is not None:
        return None
    known = type(message.role) is str and message.role in _ROLES
    return part.text if known and type(part.text) is str and len(part.text) < _LONG else None


def _text_message(body: bytes) -> ChatMessage | None:
    """Return the message of one text that was written as such; nothing if it is any other."""
    for role in _ROLES:
        before, after = _around(role)
        if body.startswith(before) and body.endswith(after):
            try:
                text: object = from_json(body[len(before) : -len(after)])
            except ValueError:
                return None
            if type(text) is str:
                return ChatMessage(role=role, parts=(TextPart(text=text),))
    return None


def _message(session_id: str, number: int, body: bytes) -> ChatMessage:
    try:
        return _text_message(body) or decode(body, ChatMessage)
    except CodecError as error:
        raise CorruptRowError(f"session {session_id!r}, message {number}: {error}") from error


def _is_sound(found: Sequence[ChatMessage], last: int) -> bool:
    return not unmatched_results(found[window_start(found, last) :])


def _moment(older_than: datetime | timedelta) -> float:
    if isinstance(older_than, datetime):
        if older_than.tzinfo is None:
            raise ValueError(f"older_than: expected a time zone, found none in {older_than}")
        return older_than.timestamp()
    if older_than < timedelta():
        raise ValueError(f"older_than: expected 0 or more, found {older_than}")
    return time.time() - older_than.total_seconds()


def _end(*workers: Worker) -> None:
    for worker in workers:
        worker.end()

"""Conversations kept in memory: gone when the process ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock

from llmgine.context.window import FIRST_FEW, copied, history_window, listed, opening
from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    ContextStore,
    Publisher,
    StoredSession,
)
from llmgine.contracts.protocols import tell
from llmgine.errors import VersionConflictError
from llmgine.settings import ContextSettings

__all__ = ["InMemoryContextStore", "build"]


class InMemoryContextStore:
    """Keeps every conversation in memory until it is cleared.

    Writers in any task or thread are fine: a batch is stored whole or not at all, and never
    interleaved with another. Each change is followed by a `ChatHistoryUpdatedEvent`; if that
    can't be published the change stands all the same, and the log says so.

    Args:
        publisher: who is told of changes.
    """

    def __init__(self, publisher: Publisher | None = None) -> None:
        self._publisher = publisher
        self._conversations: dict[str, list[ChatMessage]] = {}
        self._times: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

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
        """
        fresh = [copied(message) for message in messages]
        with self._lock:
            version = len(self._conversations.get(session_id, ()))
            if expected_version is not None and expected_version != version:
                raise VersionConflictError(session_id, version, expected_version)
            if fresh:
                self._conversations.setdefault(session_id, []).extend(fresh)
                now = time.time()
                self._times[session_id] = self._times.get(session_id, (now,))[0], now
            version += len(fresh)
        await self._changed(session_id, version)
        return version

    async def get_context(self, session_id: str, *, last: int | None = None) -> list[ChatMessage]:
        """Return copies of the messages, oldest first; with `last` about that many from the end.

        Raises:
            ValueError: `last` is negative.
        """
        with self._lock:
            stored = tuple(self._conversations.get(session_id, ()))
        return [copied(message) for message in history_window(stored, last)]

    async def clear_context(self, session_id: str) -> None:
        """Forget the conversation; one that doesn't exist is fine."""
        with self._lock:
            self._conversations.pop(session_id, None)
            self._times.pop(session_id, None)
        await self._changed(session_id, 0)

    async def list_sessions(
        self, *, limit: int = 100, after: StoredSession | None = None
    ) -> list[StoredSession]:
        """Return conversations, the one that changed last first; from `after` on, where given.

        Raises:
            ValueError: `limit` is negative.
        """
        with self._lock:
            sessions = [self._stored(session_id) for session_id in self._times]
        return listed(sessions, limit, after)

    async def find_session(self, session_id: str) -> StoredSession | None:
        """Return one conversation; nothing where it holds no message."""
        with self._lock:
            return self._stored(session_id) if session_id in self._times else None

    def _stored(self, session_id: str) -> StoredSession:
        messages = self._conversations[session_id]
        created, updated = self._times[session_id]
        return StoredSession(
            session_id=session_id,
            messages=len(messages),
            created_at=created,
            updated_at=updated,
            opening=opening(messages[:FIRST_FEW]),
        )

    async def _changed(self, session_id: str, length: int) -> None:
        await tell(self._publisher, ChatHistoryUpdatedEvent(session_id=session_id, length=length))


def build(settings: ContextSettings, *, publisher: Publisher | None = None) -> ContextStore:
    """Make the store that `context.store = "memory"` names; it has no settings of its own."""
    del settings
    return InMemoryContextStore(publisher)

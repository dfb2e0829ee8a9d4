"""The sessions that are open, and what is known of those that no store tells of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import ListsSessions
from llmgine.errors import SessionOpenError

from api.problems import Problem
from api.sessions.live import LiveSession
from api.settings import ApiSettings

__all__ = ["Known", "Sessions", "missing"]

_MISSING = 404
_CONFLICT = 409
_UNAVAILABLE = 503
_MOST_KNOWN = 10_000
_MOST_UNUSED = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What this process knows of a session by itself.

    Attributes:
        created_at: when it was made or first used here, in Unix seconds (UTC).
        updated_at: when it was last used.
    """

    created_at: float
    updated_at: float


class Sessions:
    """The open sessions of a web application: opened when used, let go when nobody uses them.

    Conversations are the context store's. Only what that can't tell is known here: sessions
    without a message, and all since the start where the store doesn't list any. Turns and events
    are this process's own: more than one process needs whoever sends each session to one of them.

    Args:
        app: the application; started before this, and stopped after it.
        settings: how long sessions stay open, and what they keep.

    Attributes:
        known: what the store doesn't tell of, by session id, the oldest first.
    """

    def __init__(self, app: ApplicationBootstrap, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._live: dict[str, LiveSession] = {}
        self._going: set[str] = set()
        self._stopping = False
        self.known: dict[str, Known] = {}

    async def __aenter__(self) -> Self:
        """Start."""
        self._stopping = False
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take nothing new, stop all turns, and end all streams once they have told of that."""
        self._stopping = True
        await asyncio.gather(*(each.close() for each in tuple(self._live.values())))
        self.known.clear()

    def is_going(self, session_id: str) -> bool:
        """Tell whether a session is being forgotten at this moment."""
        return session_id in self._going

    def live(self, session_id: str) -> LiveSession | None:
        """Return a session if it is open."""
        live = self._live.get(session_id)
        return None if live is None or live.closing else live

    @asynccontextmanager
    async def used(self, session_id: str) -> AsyncGenerator[LiveSession, None]:
        """Use a session, which is opened if it isn't open.

        Raises:
            Problem: it is being forgotten, somebody else has it open, or the application stops.
        """
        live = await self._present(session_id)
        live.hold()
        try:
            await live.opened()
            if live.closing:
                raise _closing(session_id)
            yield live
        except SessionOpenError as error:
            text = f"session {session_id!r} is in use by another part of this program"
            raise Problem(status=_CONFLICT, message=text, code="session_in_use") from error
        finally:
            live.release()

    @asynccontextmanager
    async def gone(self, session_id: str) -> AsyncGenerator[None, None]:
        """Let go of a session, its turn stopped; inside the block its conversation is forgotten.

        Meanwhile it is there for nobody: who watched it comes back at once.
        """
        self._going.add(session_id)
        try:
            live = self._live.get(session_id)
            if live is not None:
                await live.close()
            yield
            self.forget(session_id)
        finally:
            self._going.discard(session_id)

    async def _present(self, session_id: str) -> LiveSession:
        """Return the session, which may still have to open, once an earlier one has ended."""
        while (live := self._live.get(session_id)) is not None and live.closing:
            await asyncio.wait((live.task,))
            self._ended(live)
        if session_id in self._going:
            raise missing(session_id)
        if self._stopping:
            text = "the server is stopping: try again once it is back"
            raise Problem(status=_UNAVAILABLE, message=text, code="stopping")
        return self._made(session_id) if live is None else live

    def _made(self, session_id: str) -> LiveSession:
        unused = [each for each in self._live.values() if each.unused_since is not None]
        if len(unused) >= _MOST_UNUSED:
            min(unused, key=lambda each: each.unused_since or 0).leave()
        live = self._live[session_id] = LiveSession(
            session_id,
            self._app.bus,
            idle=self._settings.session_idle,
            events_kept=self._settings.events_kept,
            turn_ended=self._turn_ended,
        )
        live.task.add_done_callback(lambda _: self._ended(live))
        return live

    def _ended(self, live: LiveSession) -> None:
        if self._live.get(live.id) is live:
            del self._live[live.id]

    # -- What is known

    def note(self, session_id: str) -> None:
        """Take note of a session that the store doesn't tell of, or of its being used."""
        before = self.known.pop(session_id, None)
        now = time.time()
        created = now if before is None else before.created_at
        self.known[session_id] = Known(created_at=created, updated_at=now)
        if len(self.known) > _MOST_KNOWN:
            del self.known[next(iter(self.known))]

    def forget(self, session_id: str) -> None:
        """Know no more of a session, since it is gone, or since the store tells of it."""
        self.known.pop(session_id, None)

    def _turn_ended(self, session_id: str) -> None:
        if session_id in self.known or not isinstance(self._app.context, ListsSessions):
            self.note(session_id)


def missing(session_id: str) -> Problem:
    """Return what is told of a session that isn't there."""
    text = f"there is no session {session_id!r}: POST /sessions makes one"
    return Problem(status=_MISSING, message=text, param="session_id")


def _closing(session_id: str) -> Problem:
    text = f"session {session_id!r} is being closed: try again"
    return Problem(status=_CONFLICT, message=text, code="session_closing")

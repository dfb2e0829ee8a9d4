"""Which sessions there are: those of the context store, and those that hold no message yet."""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from llmgine.contracts import ContextStore, ListsSessions, StoredSession
from pydantic import TypeAdapter

from api.problems import Problem
from api.sessions.models import Session, SessionList
from api.sessions.registry import Sessions, missing
from api.sessions.texts import title

__all__ = ["Catalog"]

_PLACE = TypeAdapter(tuple[float, str])
_FIRST = math.inf, ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unlisted:
    """A conversation in a store that lists none."""

    messages: int
    opening: str


class Catalog:
    """Finds and lists sessions.

    Args:
        store: who has the conversations.
        sessions: the open ones, and what they know.
    """

    def __init__(self, store: ContextStore, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def check(self, session_id: str) -> None:
        """Return if there is such a session.

        Raises:
            Problem: there is none.
        """
        if not self._is_known(session_id):
            await self.find(session_id)

    async def find(self, session_id: str) -> Session:
        """Return a session.

        Raises:
            Problem: there is none of this id.
        """
        stored = await self._stored(session_id)
        if self._sessions.is_going(session_id) or not (stored or self._is_known(session_id)):
            raise missing(session_id)
        return self._shown(session_id, stored)

    async def page(self, limit: int, after: str | None) -> SessionList:
        """Return sessions, the one that changed last first.

        Args:
            limit: how many at most.
            after: the `next` of the page before.

        Raises:
            Problem: `after` is no such thing.
        """
        start = _FIRST if after is None else _place(after)
        listed = await self._listed(limit + 1, None if after is None else start)
        known = self._sessions.known
        places = [(each.updated_at, name) for name, each in {**known, **listed}.items()]
        left = sorted((each for each in places if each < start), reverse=True)
        shown: list[Session] = []
        for _, name in left[:limit]:
            stored = listed.get(name) or await self._stored(name)
            # One that holds messages by now has its place among those that the store lists.
            if _can_be_named(name) and (name in listed or self._is_noted(name)):
                shown.append(self._shown(name, stored))
        more = len(left) > limit
        return SessionList(sessions=shown, next=_cursor(left[limit - 1]) if more else None)

    def _is_known(self, session_id: str) -> bool:
        return self._sessions.live(session_id) is not None or self._is_noted(session_id)

    def _is_noted(self, session_id: str) -> bool:
        return session_id in self._sessions.known and not self._sessions.is_going(session_id)

    async def _listed(
        self, limit: int, start: tuple[float, str] | None
    ) -> dict[str, StoredSession]:
        store = self._store
        if not isinstance(store, ListsSessions):
            return {}
        after = None if start is None else _at(*start)
        return {
            each.session_id: each for each in await store.list_sessions(limit=limit, after=after)
        }

    async def _stored(self, session_id: str) -> StoredSession | _Unlisted | None:
        store = self._store
        if isinstance(store, ListsSessions):
            found = await store.find_session(session_id)
            if found is not None:
                self._sessions.forget(session_id)
            return found
        messages = await store.get_context(session_id)
        said = (each.text for each in messages if each.role == "user")
        return _Unlisted(messages=len(messages), opening=next(said, "")) if messages else None

    def _shown(self, session_id: str, stored: StoredSession | _Unlisted | None) -> Session:
        live = self._sessions.live(session_id)
        known = self._sessions.known.get(session_id)
        turn = None if live is None else live.turn
        said = "" if turn is None else turn.text
        times = stored if isinstance(stored, StoredSession) else known
        return Session(
            id=session_id,
            title=title(said if stored is None else stored.opening),
            created_at=None if times is None else times.created_at,
            updated_at=None if times is None else times.updated_at,
            messages=0 if stored is None else stored.messages,
            running=turn is not None,
            approvals=0 if live is None else len(live.approvals),
        )


def _can_be_named(session_id: str) -> bool:
    """Tell whether a path can have it as a part; other programs may store under other names."""
    return session_id.isprintable() and "/" not in session_id and session_id not in {"", ".", ".."}


def _cursor(place: tuple[float, str]) -> str:
    return urlsafe_b64encode(_PLACE.dump_json(place)).decode()


def _place(cursor: str) -> tuple[float, str]:
    try:
        return _PLACE.validate_json(urlsafe_b64decode(cursor))
    except ValueError as error:
        text = "after: expected the `next` of an earlier list"
        raise Problem(message=text, param="after") from error


def _at(updated_at: float, session_id: str) -> StoredSession:
    return StoredSession(
        session_id=session_id, messages=0, created_at=updated_at, updated_at=updated_at
    )

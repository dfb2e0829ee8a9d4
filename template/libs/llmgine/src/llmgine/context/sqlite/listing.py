"""Which conversations the file holds: found by its key alone, so that writing costs no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from llmgine.context.sqlite.database import Connection
from llmgine.context.window import FIRST_FEW, opening
from llmgine.contracts import ChatMessage, StoredSession
from llmgine.contracts.codec import decode
from llmgine.errors import CodecError

__all__ = ["found_session", "listed_sessions"]

# A first message longer than this, such as one with a film in it, isn't read for its title.
_MOST_BYTES = 1024 * 1024
_AFTER_ALL = math.inf, ""
_MOST_LISTED = 2**62  # SQLite knows no greater numbers than of 63 bits

# Goes from one session to the next by the key, and looks at the last message of each.
_LIST = """
    WITH RECURSIVE names (name) AS (
        SELECT min(session) FROM messages WHERE tenant = :tenant UNION ALL
        SELECT (SELECT min(session) FROM messages WHERE tenant = :tenant AND session > name)
        FROM names WHERE name IS NOT NULL
    ), changed (name, updated) AS (
        SELECT name, (
            SELECT stored_at FROM messages WHERE tenant = :tenant AND session = name
            ORDER BY number DESC LIMIT 1
        ) FROM names WHERE name IS NOT NULL
    )
    SELECT name FROM changed WHERE (updated, name) < (:updated, :name)
    ORDER BY updated DESC, name DESC LIMIT :limit
"""
_ENDS = """
    SELECT number, stored_at FROM messages WHERE tenant = :tenant AND session = :session
    AND number IN (
        SELECT min(number) FROM messages WHERE tenant = :tenant AND session = :session UNION ALL
        SELECT max(number) FROM messages WHERE tenant = :tenant AND session = :session
    ) ORDER BY number
"""
_FIRST = """
    SELECT CAST(body AS BLOB) FROM messages
    WHERE tenant = :tenant AND session = :session AND number <= :few
    AND length(CAST(body AS BLOB)) <= :most ORDER BY number
"""


def listed_sessions(
    db: Connection, tenant: str, limit: int, after: StoredSession | None
) -> list[StoredSession]:
    """Return a tenant's conversations, the one that changed last first."""
    updated, name = _AFTER_ALL if after is None else (after.updated_at, after.session_id)
    wanted = {"tenant": tenant, "updated": updated, "name": name, "limit": min(limit, _MOST_LISTED)}
    names = [row[0] for row in db.execute(_LIST, wanted)]
    found = (found_session(db, tenant, name) for name in names)
    return [each for each in found if each is not None]


def found_session(db: Connection, tenant: str, session_id: str) -> StoredSession | None:
    """Return one conversation; nothing where it holds no message."""
    key = {"tenant": tenant, "session": session_id}
    ends = db.execute(_ENDS, key).fetchall()
    if not ends:
        return None
    return StoredSession(
        session_id=session_id,
        messages=ends[-1][0],
        created_at=ends[0][1],
        updated_at=ends[-1][1],
        opening=opening(_sound(db, key)),
    )


def _sound(db: Connection, key: Mapping[str, str]) -> Iterator[ChatMessage]:
    """Yield those of the first few messages that can be read."""
    wanted = {**key, "few": FIRST_FEW, "most": _MOST_BYTES}
    for (body,) in db.execute(_FIRST, wanted):
        try:
            yield decode(body, ChatMessage)
        except CodecError:
            continue

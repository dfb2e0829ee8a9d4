"""How conversations are listed: what a list shows of one, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

from llmgine.contracts import ChatMessage, StoredSession

__all__ = ["FIRST_FEW", "check_limit", "listed", "opening"]

FIRST_FEW = 4
"""Among so many messages the user's first is looked for."""

_LONGEST = 200


def opening(messages: Iterable[ChatMessage]) -> str:
    """Return how the user began, given the first few messages."""
    for message in messages:
        if message.role == "user":
            return message.text[:_LONGEST]
    return ""


def _place(session: StoredSession) -> tuple[float, str]:
    return session.updated_at, session.session_id


def listed(
    sessions: Iterable[StoredSession], limit: int, after: StoredSession | None
) -> list[StoredSession]:
    """Return a page of all the sessions that there are.

    Raises:
        ValueError: `limit` is negative.
    """
    check_limit(limit)
    left = (
        sessions if after is None else (each for each in sessions if _place(each) < _place(after))
    )
    return sorted(left, key=_place, reverse=True)[:limit]


def check_limit(limit: int) -> None:
    """Refuse a limit that can't be meant.

    Raises:
        ValueError: it is negative.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")

"""Where a piece of code runs: in which session, handling which message, against which clock.

Every handler and every `async with session` sets this, new messages take their `session_id` and
`parent_id` from it, and a copy travels with each queued event. The bus alone writes it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = [
    "AMBIENT",
    "NOWHERE",
    "Ambient",
    "current_parent_id",
    "current_session_id",
    "paused_clock",
]


class Ambient:
    """What is ambient outside every handler and session, and the base of what is inside.

    Attributes:
        session_id: the session's id, if any.
        parent_id: the id of the command or event being handled, if any.
    """

    __slots__ = ("parent_id", "session_id")

    session_id: str | None
    parent_id: str | None

    def pause(self) -> None:
        """Stop the clock of the work under way, and of every work that waits for it."""

    def resume(self) -> None:
        """Let the clocks run on with the time they had left."""


def _nowhere() -> Ambient:
    ambient = Ambient()
    ambient.session_id = ambient.parent_id = None
    return ambient


NOWHERE = _nowhere()
"""What is ambient outside every handler and session."""

AMBIENT: ContextVar[Ambient] = ContextVar("llmgine_ambient", default=NOWHERE)


def current_session_id() -> str | None:
    """Return the id of the session that the calling code runs in, if any."""
    return AMBIENT.get().session_id


def current_parent_id() -> str | None:
    """Return the id of the command or event that the calling code handles, if any."""
    return AMBIENT.get().parent_id


@contextmanager
def paused_clock() -> Generator[None]:
    """Stop every limit of the work under way, as while a person is asked.

    The limits of the handler that runs this, and of those that wait for it, stand still inside
    the `with` block and go on with the time they had left. Nesting is fine; outside a handler
    nothing happens.
    """
    ambient = AMBIENT.get()
    ambient.pause()
    try:
        yield
    finally:
        ambient.resume()

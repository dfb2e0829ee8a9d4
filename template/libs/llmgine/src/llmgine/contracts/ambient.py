"""Where a piece of code runs: in which session, handling which message, against which clock.

Every handler and every `async with session` sets this, new messages take their `session_id` and
`parent_id` from it, and a copy travels with each queued event. The bus alone writes it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeAlias

__all__ = ["AMBIENT", "Ambient", "Clock", "current_parent_id", "current_session_id", "paused_clock"]


class Clock(Protocol):
    """The limit that runs on the work under way; `paused_clock` stops and restarts it."""

    def pause(self) -> None:
        """Stop this clock, and every clock of the work that waits for this work."""
        ...

    def resume(self) -> None:
        """Let the clocks run on with the time they had left."""
        ...


Ambient: TypeAlias = tuple[str | None, str | None, Clock | None]
"""Session id, id of the message being handled, and the clock that runs on it.

A plain tuple, since one is made for every message handled.
"""

AMBIENT: ContextVar[Ambient] = ContextVar("llmgine_ambient", default=(None, None, None))


def current_session_id() -> str | None:
    """Return the id of the session that the calling code runs in, if any."""
    return AMBIENT.get()[0]


def current_parent_id() -> str | None:
    """Return the id of the command or event that the calling code handles, if any."""
    return AMBIENT.get()[1]


@contextmanager
def paused_clock() -> Generator[None]:
    """Stop every limit of the work under way, as while a person is asked.

    The limits of the handler that runs this, and of those that wait for it, stand still inside
    the `with` block and go on with the time they had left. Nesting is fine; outside a handler
    nothing happens.
    """
    clock = AMBIENT.get()[2]
    if clock is None:
        yield
        return
    clock.pause()
    try:
        yield
    finally:
        clock.resume()

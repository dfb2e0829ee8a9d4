"""How a session opens and closes."""

from __future__ import annotations

import asyncio
import unicodedata

from llmgine.bus.engine import Engine
from llmgine.bus.frames import inside_place
from llmgine.bus.lane import Lane
from llmgine.contracts.events import SessionEndEvent, SessionStartEvent
from llmgine.errors import (
    InvalidSessionIdError,
    SessionClosedError,
    SessionOpenError,
    WouldDeadlockError,
)

__all__ = ["check_session_id", "close_session", "end_session", "open_session"]

_LONGEST_ID = 200


def check_session_id(session_id: str) -> str:
    """Return a session id as it is.

    Raises:
        InvalidSessionIdError: it's empty, longer than 200 characters, or holds a character that
            a terminal or a log file would obey rather than show.
    """
    if not session_id or len(session_id) > _LONGEST_ID:
        message = f"a session id has 1 to {_LONGEST_ID} characters, got {len(session_id)}"
        raise InvalidSessionIdError(message)
    hidden = next((char for char in session_id if unicodedata.category(char)[0] == "C"), None)
    if hidden is not None:
        message = f"a session id holds no control characters, got {session_id!a}"
        raise InvalidSessionIdError(message)
    return session_id


def open_session(engine: Engine, session_id: str) -> Lane:
    """Open a session, with its start event first in its queue.

    Raises:
        SessionOpenError: the id is open, or still closing.
    """
    if engine.core.loop is not asyncio.get_running_loop():
        raise engine.not_here("opening a session")
    if engine.root.guarded:
        engine.admit(engine.root)
    lane = engine.lane(session_id)
    if lane.is_session:
        message = f"session {session_id!r} is open already; leave it first, or choose another id"
        raise SessionOpenError(message)
    lane.is_session = True
    engine.tell(SessionStartEvent(session_id=session_id))
    return lane


async def close_session(engine: Engine, lane: Lane, error: BaseException | None) -> None:
    """Finish what is under way, deliver the end event last, and forget the session.

    A cancellation meanwhile cuts the work off but not the end: it's raised when that is done.

    Raises:
        WouldDeadlockError: called from a handler of this very session.
    """
    if inside_place(lane):
        message = f"a handler of session {lane.session_id!r} can't wait for that session's end"
        raise WouldDeadlockError(message)
    lane.guarded = lane.closing = True
    lane.turn_away(_closed(lane))
    if not (lane.busy or lane.commands_running or lane.route(SessionEndEvent)):
        end_session(engine, lane, error)
        lane.settle()
        return
    closing = asyncio.get_running_loop().create_task(_close(engine, lane, error))
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
            lane.cut(_closed(lane))
    closing.result()
    if cancelled is not None:
        raise cancelled


def end_session(engine: Engine, lane: Lane, error: BaseException | None) -> None:
    """Queue a session's last event, and take its handlers' registrations away.

    Those of its handlers that hear the event are in the queue with it and still get it.
    """
    engine.tell(SessionEndEvent(session_id=lane.session_id, error=error))
    lane.ended = True
    lane.is_session = False


async def _close(engine: Engine, lane: Lane, error: BaseException | None) -> None:
    await _idle_or_cut(engine, lane)
    end_session(engine, lane, error)
    await _idle_or_cut(engine, lane)
    for handler in lane.handlers():
        handler.cancel()
    lane.settle()


async def _idle_or_cut(engine: Engine, lane: Lane) -> None:
    settings = engine.core.settings
    try:
        async with asyncio.timeout(settings.drain_timeout):
            await lane.idle(commands=True)
    except TimeoutError:
        lane.cut(_closed(lane))
        await lane.gone(settings.cancel_grace)
    lane.mend()


def _closed(lane: Lane) -> SessionClosedError:
    return SessionClosedError(f"session {lane.session_id!r} has closed")

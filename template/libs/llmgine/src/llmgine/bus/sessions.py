"""How a session opens and closes."""

from __future__ import annotations

import asyncio

from llmgine.bus.engine import Engine
from llmgine.bus.frames import inside_place
from llmgine.bus.lane import Lane
from llmgine.contracts.events import SessionEndEvent, SessionStartEvent
from llmgine.contracts.messages import Event
from llmgine.errors import (
    InvalidSessionIdError,
    SessionClosedError,
    SessionOpenError,
    WouldDeadlockError,
)

__all__ = ["Sessions", "check_session_id"]

_LONGEST_ID = 200


def check_session_id(session_id: str) -> str:
    """Return a session id as it is.

    Raises:
        InvalidSessionIdError: it's empty, longer than 200 characters, or holds a character (a
            control character, say) that a terminal or a log file would obey rather than show.
    """
    if not session_id or len(session_id) > _LONGEST_ID:
        message = f"a session id has 1 to {_LONGEST_ID} characters, got {len(session_id)}"
        raise InvalidSessionIdError(message)
    if not session_id.isprintable():
        message = f"a session id holds printable characters only, got {session_id!a}"
        raise InvalidSessionIdError(message)
    return session_id


class Sessions(Engine):
    """The sessions of one bus."""

    def open_session(self, session_id: str) -> Lane:
        """Open a session, with its start event first. `BusSession` calls this.

        Raises:
            SessionOpenError: the id is open, or still closing.
            BusNotRunningError: the bus isn't started, or is stopping.
        """
        if self._core.loop is not asyncio.get_running_loop():
            raise self._not_here("opening a session")
        if self._root.guarded:
            self._admit(self._root)
        lane = self._lane(session_id)
        if lane.is_session:
            message = f"session {session_id!r} is open already; leave it first, or take another id"
            raise SessionOpenError(message)
        lane.is_session = True
        if self._is_heard(lane, SessionStartEvent):
            self._tell(SessionStartEvent(session_id=session_id))
        return lane

    async def close_session(self, lane: Lane, error: BaseException | None) -> None:
        """Finish what is under way, deliver the end event last, and forget the session.

        `BusSession` calls this. A cancellation meanwhile cuts the work short but not the end: it
        is raised when that is done.

        Raises:
            WouldDeadlockError: called from a handler of this very session.
        """
        if inside_place(lane):
            message = f"a handler of session {lane.session_id!r} can't wait for that session's end"
            raise WouldDeadlockError(message)
        if not (lane.active or lane.route(SessionEndEvent)):
            if self._core.observers:
                lane.guard()  # they might bring new work
                self._end_session(lane, error)
            self._forget_session(lane)
            return
        self._begin_to_close(lane)
        closing = asyncio.get_running_loop().create_task(self._close(lane, error))
        await self._see_closed(lane, closing)

    def _begin_to_close(self, lane: Lane) -> None:
        lane.guard()
        lane.closing = True
        if lane.crowded:
            lane.turn_away(_closed(lane))

    async def _see_closed(self, lane: Lane, closing: asyncio.Task[None]) -> None:
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
                if not lane.ended:
                    lane.cut(_closed(lane))
        closing.result()
        if cancelled is not None:
            raise cancelled

    def _end_session(self, lane: Lane, error: BaseException | None) -> None:
        """Queue a session's last event, once; nothing comes after it."""
        if lane.ended or not lane.is_session:
            return  # a stop has ended it meanwhile
        lane.closing = True
        if self._is_heard(lane, SessionEndEvent):
            self._tell(SessionEndEvent(session_id=lane.session_id, error=error))
        lane.ended = True

    def _is_heard(self, lane: Lane, kind: type[Event]) -> bool:
        return bool(self._core.observers or lane.route(kind))

    async def _close(self, lane: Lane, error: BaseException | None) -> None:
        await self._idle_or_cut(lane)
        self._end_session(lane, error)
        await self._idle_or_cut(lane)
        self._forget_session(lane)

    async def _idle_or_cut(self, lane: Lane) -> None:
        settings = self._core.settings
        try:
            async with asyncio.timeout(settings.drain_timeout):
                await lane.idle(commands=True)
        except TimeoutError:
            lane.cut(_closed(lane))
            await lane.gone(settings.cancel_grace)

    def _forget_session(self, lane: Lane) -> None:
        # The lane outlives its session where work that was cut off goes on in it.
        lane.is_session = lane.closing = lane.ended = False
        lane.guarded = self._stopping
        if lane.has_handlers:
            lane.cancel_handlers()
        lane.settle()


def _closed(lane: Lane) -> SessionClosedError:
    return SessionClosedError(f"session {lane.session_id!r} has closed")

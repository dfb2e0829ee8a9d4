"""An open session: its turn, the calls that wait for a person, and its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from assistant import RunTurn, TurnResult
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    Event,
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    tell,
)
from llmgine.errors import LlmgineError, NoHandlerError, SessionClosedError

from api.problems import Problem
from api.sessions.log import EventLog
from api.sessions.turns import ended

__all__ = ["LiveSession", "Turn"]

_CONFLICT = 409
_GRACE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A turn under way.

    Attributes:
        id: the id of its command.
        text: what the user said.
        work: the task that runs it.
    """

    id: str
    text: str
    work: asyncio.Task[TurnResult]


class LiveSession:
    """A session of the bus that somebody uses.

    It lives in a task of its own, so that no request's end is its end; turns do as well.

    Args:
        session_id: its id.
        bus: the bus.
        idle: how many seconds it stays open when nobody uses it.
        events_kept: how many events are kept for those who come back.
        turn_ended: called with its id when a turn has ended.

    Attributes:
        id: its id.
        log: its events.
        approvals: the calls that wait for a person, by their ids.
        turn: the turn under way, if there is one.
        closing: whether it takes nothing new.
        unused_since: when it was last used, by the loop's clock; nothing while it is used.
        task: what it lives in; done once it has ended.
    """

    def __init__(
        self,
        session_id: str,
        bus: MessageBus,
        *,
        idle: float,
        events_kept: int,
        turn_ended: Callable[[str], None],
    ) -> None:
        self.id = session_id
        self.log = EventLog(kept=events_kept)
        self.approvals: dict[str, ToolApprovalRequestedEvent] = {}
        self.turn: Turn | None = None
        self.closing = False
        self.unused_since: float | None = None
        self._idle = idle
        self._turn_ended = turn_ended
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._session = BusSession(session_id, bus=bus)
        self._leave = asyncio.Event()
        self._endings: set[asyncio.Task[None]] = set()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # In an empty context: what its first user is about isn't what the session is about.
        self.task = asyncio.create_task(self._live(), context=Context())

    async def opened(self) -> None:
        """Wait until it is open.

        Raises:
            SessionOpenError: somebody else has a session of this id.
        """
        await asyncio.shield(self._opened)

    def hold(self) -> None:
        """Use it: it stays open until it is released as often as it was held."""
        self._users += 1
        self._no_timer()

    def release(self) -> None:
        """Use it no more."""
        self._users -= 1
        if not (self._users or self.closing):
            loop = asyncio.get_running_loop()
            self.unused_since = loop.time()
            self._timer = loop.call_later(self._idle, self._let_go)

    def leave(self) -> None:
        """Take nothing new, and end: the turn is stopped, its events are delivered."""
        self.closing = True
        self._no_timer()
        self._leave.set()

    async def close(self) -> None:
        """End, and wait for it."""
        self.leave()
        await asyncio.wait((self.task,))

    # -- Turns

    def start_turn(self, text: str) -> str:
        """Start a turn and return its id; how it goes is told by events.

        Raises:
            Problem: another one runs.
        """
        if self.turn is not None:
            why = f"turn {self.turn.id} runs in this session: wait for its end, or stop it"
            raise Problem(status=_CONFLICT, message=why, code="turn_running")
        command = RunTurn(text=text, session_id=self.id)
        self.log.begin_turn()
        work = asyncio.create_task(self._session.execute(command))
        self.turn = Turn(id=command.id, text=text, work=work)
        self.hold()
        ending = asyncio.create_task(self._end(self.turn))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return command.id

    def stop_turn(self) -> Turn | None:
        """Stop the turn under way, and return it if there was one."""
        turn = self.turn
        return turn if turn is not None and turn.work.cancel() else None

    async def _end(self, turn: Turn) -> None:
        """Wait for a turn's end, and tell of it behind all its other events."""
        await asyncio.wait((turn.work,))
        self.turn = None
        self.log.end_turn()
        self._turn_ended(self.id)
        await tell(self._session, ended(turn.id, turn.work))
        self.release()

    # -- Approvals

    async def resolve(self, call_id: str, *, approved: bool, reason: str) -> bool:
        """Answer a call that waits; return whether there was one."""
        command = ResolveToolApproval(call_id=call_id, approved=approved, reason=reason)
        try:
            found = await self._session.execute(command)
        except (NoHandlerError, SessionClosedError):  # no tool's call waits here, or no more
            return False
        self.approvals.pop(call_id, None)
        return found

    # -- Life

    async def _live(self) -> None:
        try:
            async with self._session:
                self._session.register_event_handler(Event, self._hear, inline=True)
                self._opened.set_result(None)
                await self._leave.wait()
                await self._finish()
        except LlmgineError as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)
        finally:
            self.closing = True
            self.log.close()

    async def _finish(self) -> None:
        self.stop_turn()
        if self._endings:
            # A turn that ignores this is cut off when the session closes.
            await asyncio.wait(tuple(self._endings), timeout=_GRACE)

    def _let_go(self) -> None:
        if self.approvals:  # of work that isn't a turn of ours
            self.hold()
            self.release()
        else:
            self.leave()

    def _no_timer(self) -> None:
        self.unused_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hear(self, event: Event) -> None:
        match event:
            case ToolApprovalRequestedEvent():
                self.approvals[event.call.id] = event
            case ToolApprovalResolvedEvent():
                self.approvals.pop(event.call.id, None)
            case _:
                pass
        self.log.add(event)

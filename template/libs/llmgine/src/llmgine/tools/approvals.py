"""Calls that wait for a person, and the clocks of tools, which stand still meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from llmgine.contracts import (
    Publisher,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
    paused_clock,
    tell,
)
from llmgine.contracts.protocols import tell_surely
from llmgine.errors import ToolError

__all__ = ["INSIDE", "Answer", "Approvals", "Clock", "Place", "paused_tools"]


_CANCELLED = "the call was cancelled"
_EXPIRED = "nobody answered in time"


class Place:
    """A place that a running tool has, with the tools that it calls; these may outlive it."""

    active = True


class Clock:
    """The time of a tool under way, which stands still while a call that it makes waits.

    While it does, so does that of the tool which waits for this one, if both go by one loop.

    Args:
        place: the tool's.
        loop: the event loop that it goes by.
        outer: the clock of the tool which calls this one, if one does.

    Attributes:
        place: the tool's.
        loop: the event loop that it goes by.
        outer: the clock of the tool that waits for this one, if one does.
        paused: what waits for it to go on, while it stands still.
    """

    # Most tools never wait for anything: what that takes is not set for each of them.
    paused: asyncio.Future[None] | None = None
    _pauses = 0
    _since = _end = 0.0

    def __init__(self, place: Place, loop: asyncio.AbstractEventLoop, outer: Clock | None) -> None:
        self.place = place
        self.loop = loop
        self.outer = outer if outer is not None and outer.loop is loop else None

    def begin(self, seconds: float) -> None:
        """Give the tool so many seconds from now on."""
        self._since = self.loop.time()
        self._end = self._since + seconds

    @property
    def left(self) -> float:
        """How many seconds the tool still has."""
        return self._end - (self.loop.time() if self.paused is None else self._since)

    def hold(self) -> None:
        """Stand still, once more."""
        self._pauses += 1
        if self.paused is None:
            self.paused = self.loop.create_future()
            self._since = self.loop.time()
            if self.outer is not None:
                self.outer.hold()

    def go_on(self) -> None:
        """Go on, where nobody else wants it to stand still."""
        self._pauses -= 1
        if self.paused is not None and not self._pauses:
            self._end += self.loop.time() - self._since
            self.paused.set_result(None)
            self.paused = None
            if self.outer is not None:
                self.outer.go_on()

    def leave(self) -> None:
        """Note that nobody waits for the tool any more, even if it goes on."""
        outer, self.outer = self.outer, None
        if outer is not None and self.paused is not None:
            outer.go_on()


# What a tool starts gets a copy of this.
INSIDE: ContextVar[Clock | None] = ContextVar("llmgine_inside_tool", default=None)


@contextmanager
def paused_tools() -> Generator[None]:
    """Stop the clocks of the tool that this runs in, and of the tools that wait for it.

    Nesting is fine. The limit of a plain tool, which has a thread, runs on.
    """
    clock = INSIDE.get()
    if clock is None or clock.loop is not asyncio.get_running_loop():
        yield
        return
    clock.hold()
    try:
        yield
    finally:
        clock.go_on()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a person said to a call."""

    approved: bool
    reason: str = ""


class Approvals:
    """The waiting calls of all sessions, by session and call.

    Args:
        timeout: how long a call waits.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._waiting: dict[tuple[str | None, str], asyncio.Future[Answer]] = {}

    def resolve(self, session_id: str | None, call_id: str, answer: Answer) -> bool:
        """Answer a waiting call, from any thread; return whether there was one.

        Without a session id, the call may be any session's, if just one such call waits.
        """
        keys = [(session_id, call_id)]
        if session_id is None:
            keys = [key for key in tuple(self._waiting) if key[1] == call_id]
        waiting = self._waiting.pop(keys[0], None) if len(keys) == 1 else None
        if waiting is None:
            return False
        waiting.get_loop().call_soon_threadsafe(_set, waiting, answer)
        return True

    async def ask(
        self, call: ToolCall, session_id: str | None, publisher: Publisher | None
    ) -> None:
        """Return once a person has approved the call.

        No limit of the bus runs meanwhile, nor that of an `async def` tool which makes the call.

        Raises:
            ToolError: it was denied, or nobody answered in time.
        """
        key = (session_id, call.id)
        if key in self._waiting:
            raise ToolError("Another call with this id waits for approval.", code="duplicate_call")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        answer = Answer(approved=False, reason=_CANCELLED)
        deadline = time.monotonic() + self._timeout
        asked = ToolApprovalRequestedEvent(
            session_id=session_id, call=call, expires_at=time.time() + self._timeout
        )
        try:
            with paused_clock(), paused_tools():
                await tell(publisher, asked)
                await asyncio.wait((waiting,), timeout=max(0, deadline - time.monotonic()))
            # Whoever answers takes the call out, perhaps in this very moment.
            expired = self._waiting.get(key) is waiting
            answer = Answer(approved=False, reason=_EXPIRED) if expired else await waiting
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]
            resolved = ToolApprovalResolvedEvent(
                session_id=session_id, call=call, approved=answer.approved, reason=answer.reason
            )
            await tell_surely(publisher, resolved)
        if not answer.approved:
            raise _refusal(answer)


def _set(waiting: asyncio.Future[Answer], answer: Answer) -> None:
    if not waiting.done():
        waiting.set_result(answer)


def _refusal(answer: Answer) -> ToolError:
    if answer.reason is _EXPIRED:
        return ToolError("Nobody approved the call in time; it was not run.", code="expired")
    reason = f": {answer.reason}" if answer.reason else "."
    return ToolError(f"The user denied the call, and it was not run{reason}", code="denied")

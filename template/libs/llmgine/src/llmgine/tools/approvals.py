"""Calls that wait for a person."""

from __future__ import annotations

import asyncio
import time
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
from llmgine.tools.running import paused_tools

__all__ = ["Answer", "Approvals"]


_CANCELLED = "the call was cancelled"
_EXPIRED = "nobody answered in time"


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

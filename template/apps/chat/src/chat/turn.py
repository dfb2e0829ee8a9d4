"""A turn as the user sees it: the answer appears while it is made, and Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from assistant import RunTurn, TurnResult
from llmgine.bus import BusSession
from llmgine.contracts import (
    LLMChunkEvent,
    ResolveToolApproval,
    StreamStart,
    TextDelta,
    ToolApprovalRequestedEvent,
    Usage,
)
from llmgine.errors import ProviderError

from chat.calls import CallLines, Decide
from chat.screen import Screen

__all__ = ["Outcome", "TurnView"]

Outcome = Literal["ok", "failed", "cancelled"]


class TurnView:
    """Runs the turns of one session and shows them.

    Args:
        session: the session, open.
        screen: where to show them.
        decide: who decides about tool calls that wait for approval.
    """

    def __init__(self, session: BusSession, screen: Screen, decide: Decide) -> None:
        self._session = session
        self._screen = screen
        self._decide = decide
        self._turn: asyncio.Task[TurnResult] | None = None
        self._waiting: asyncio.Queue[ToolApprovalRequestedEvent] = asyncio.Queue()
        self._written = False
        session.register_event_handler(LLMChunkEvent, self._show, inline=True)
        session.register_event_handler(ToolApprovalRequestedEvent, self._wait, inline=True)
        CallLines(session, screen)

    def cancel(self) -> None:
        """End the turn under way, if there is one; the conversation keeps what was said."""
        if self._turn is not None:
            self._turn.cancel()

    async def run(self, text: str) -> Outcome:
        """Run a turn; what goes wrong is said in a line."""
        self._written = False
        self._waiting = asyncio.Queue()
        with self._screen.events.held():
            turn = self._turn = asyncio.create_task(self._session.execute(RunTurn(text=text)))
            deciding = asyncio.create_task(self._answer_approvals())
            # A turn can't go on where nobody decides any more.
            deciding.add_done_callback(lambda _: turn.cancel())
            try:
                # Waited for like this, its cancellation and ours can be told apart.
                await asyncio.wait([turn])
                deciding.cancel()
                await asyncio.wait([deciding])
                await self._session.bus.join()
            finally:
                self._turn = None
                deciding.cancel()
                self._screen.end_answer()
            undecided = None if deciding.cancelled() else deciding.exception()
            return self._judged(turn, undecided)

    async def _answer_approvals(self) -> None:
        """Have the calls that wait decided, one after the other, until there is no decision."""
        while True:
            event = await self._waiting.get()
            try:
                async with asyncio.timeout(event.expires_at - time.time()):
                    decision = await self._decide(event.call)
            except TimeoutError:
                continue
            if decision is None:
                return
            answer = ResolveToolApproval(
                call_id=event.call.id, approved=decision.approved, reason=decision.reason
            )
            if not await self._session.execute(answer):
                self._screen.remark("too late: the call waits no longer")

    def _judged(self, turn: asyncio.Task[TurnResult], undecided: BaseException | None) -> Outcome:
        if turn.cancelled() and undecided is None:
            self._screen.remark("(cancelled)")
            return "cancelled"
        error = undecided or turn.exception()
        if error is None:
            if not self._written:
                self._screen.remark("(the model gave no answer)")
            self._screen.remark(_tokens(turn.result().usage))
            return "ok"
        if not isinstance(error, Exception):
            raise error
        again = isinstance(error, ProviderError) and error.retryable
        hint = "; trying again may help" if again else ""
        self._screen.remark(f"{type(error).__name__}: {error}{hint}", "red")
        return "failed"

    def _show(self, event: LLMChunkEvent) -> None:
        if isinstance(event.chunk, StreamStart) and self._written:
            self._screen.end_answer()
            self._screen.write("\n")  # the answer goes on after a tool
        elif isinstance(event.chunk, TextDelta) and event.chunk.text:
            self._written = True
            self._screen.write(event.chunk.text)
            if self._screen.broken:
                self.cancel()

    def _wait(self, event: ToolApprovalRequestedEvent) -> None:
        self._waiting.put_nowait(event)


def _tokens(usage: Usage) -> str:
    """Return what a turn has cost, as far as it is known."""
    known = [
        f"{count:,} {way}"
        for way, count in (("in", usage.input_tokens), ("out", usage.output_tokens))
        if count is not None
    ]
    about = "about " if "estimated" in usage.details else ""
    return f"tokens: {about}{', '.join(known) or 'not reported'}"

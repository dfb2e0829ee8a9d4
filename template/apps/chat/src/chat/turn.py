"""A turn as the user sees it: the answer appears while it is made, and Ctrl-C ends it."""

from __future__ import annotations

import asyncio
from typing import Literal

from assistant import RunTurn, TurnResult
from llmgine.bus import BusSession
from llmgine.contracts import LLMChunkEvent, StreamStart, TextDelta
from llmgine.errors import ProviderError

from chat.screen import Screen

__all__ = ["Outcome", "TurnView"]

Outcome = Literal["ok", "failed", "cancelled"]


class TurnView:
    """Runs the turns of one session and shows them.

    Args:
        session: the session, open.
        screen: where to show them.
    """

    def __init__(self, session: BusSession, screen: Screen) -> None:
        self._session = session
        self._screen = screen
        self._turn: asyncio.Task[TurnResult] | None = None
        self._written = False
        session.register_event_handler(LLMChunkEvent, self._show, inline=True)

    def cancel(self) -> None:
        """End the turn under way, if there is one; the conversation keeps what was said."""
        if self._turn is not None:
            self._turn.cancel()

    async def run(self, text: str) -> Outcome:
        """Run a turn; what goes wrong is said in a line."""
        self._written = False
        with self._screen.events.held():
            self._turn = asyncio.create_task(self._session.execute(RunTurn(text=text)))
            try:
                # Waited for like this, its cancellation and ours can be told apart.
                await asyncio.wait([self._turn])
                await self._session.bus.join()
            finally:
                turn, self._turn = self._turn, None
                turn.cancel()
                self._screen.end_answer()
            return self._judged(turn)

    def _judged(self, turn: asyncio.Task[TurnResult]) -> Outcome:
        if turn.cancelled():
            self._screen.remark("(cancelled)")
            return "cancelled"
        error = turn.exception()
        if error is None:
            if not self._written:
                self._screen.remark("(the model gave no answer)")
            return "ok"
        if not isinstance(error, Exception):
            raise error
        again = isinstance(error, ProviderError) and error.retryable
        hint = "; trying again may help" if again else ""
        self._screen.remark(f"{type(error).__name__}: {error}{hint}", "red")
        return "failed"

    def _show(self, event: LLMChunkEvent) -> None:
        if isinstance(event.chunk, StreamStart) and self._written:
            self._screen.write("\n\n")  # the answer goes on after a tool
        elif isinstance(event.chunk, TextDelta) and event.chunk.text:
            self._written = True
            self._screen.write(event.chunk.text)
            if self._screen.broken:
                self.cancel()

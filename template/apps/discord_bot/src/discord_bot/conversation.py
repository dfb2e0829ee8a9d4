"""A conversation: one place on Discord, one session, one question after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from llmgine.contracts import ToolApprovalResolvedEvent

from discord_bot.approvals import Approvals
from discord_bot.reports import TROUBLE, trouble
from discord_bot.trace import Trace
from discord_bot.turn import STOPPED, Question, Turns

__all__ = ["Conversation"]

_log = logging.getLogger(__name__)
_MOST_WAITING = 5


class Conversation:
    """Answers the questions of one place, in the order in which they were asked.

    Its session is open from the first question until nobody has spoken for a while.

    Args:
        app: the application, started.
        session_id: the session.
        idle: for how long it waits for another question, in seconds.
        approvals: who asks about tool calls.
        gone: called when it is over.

    Attributes:
        trace: what the last turn did.
    """

    def __init__(
        self,
        app: ApplicationBootstrap,
        session_id: str,
        *,
        idle: float,
        approvals: Approvals,
        gone: Callable[[], None],
    ) -> None:
        self._app = app
        self._session_id = session_id
        self._idle = idle
        self._approvals = approvals
        self._gone = gone
        self._questions: asyncio.Queue[Question] = asyncio.Queue(_MOST_WAITING)
        self._answering = False
        self.trace = Trace()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_report)

    @property
    def busy(self) -> bool:
        """Whether a question is being answered, or waits for it."""
        return self._answering or not self._questions.empty()

    def ask(self, question: Question) -> bool:
        """Take a question; return whether there was room for it."""
        try:
            self._questions.put_nowait(question)
        except asyncio.QueueFull:
            return False
        return True

    async def end(self) -> None:
        """Cut short what is under way, say so, and leave."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        # Nothing may happen between the last look at the questions and `gone`.
        try:
            while True:
                await self._converse()
                if self._questions.empty():
                    return
        finally:
            self._gone()

    async def _converse(self) -> None:
        async with BusSession(self._session_id, bus=self._app.bus) as session:
            self.trace.listen(session)
            session.register_event_handler(ToolApprovalResolvedEvent, self._approvals.settle)
            turns = Turns(session, self._approvals)
            try:
                while question := await self._next():
                    await self._answer(turns, question)
            except asyncio.CancelledError:
                await self._turn_away()
                raise

    async def _next(self) -> Question | None:
        self._answering = False
        try:
            async with asyncio.timeout(self._idle):
                question = await self._questions.get()
        except TimeoutError:
            return None
        self._answering = True
        return question

    async def _answer(self, turns: Turns, question: Question) -> None:
        self.trace.begin()
        try:
            await turns.run(question)
        except TROUBLE as error:
            _log.warning("session %s: %s", self._session_id, trouble(error))

    async def _turn_away(self) -> None:
        while not self._questions.empty():
            with suppress(*TROUBLE):  # it is no time to try again
                await self._questions.get_nowait().say(STOPPED)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a conversation broke off", exc_info=error)

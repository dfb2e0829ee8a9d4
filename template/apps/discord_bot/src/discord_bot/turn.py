"""A turn as people see it: the answer grows, and a call that needs approval is two buttons."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import discord
from assistant import RunTurn, TurnResult
from llmgine.bus import BusSession
from llmgine.contracts import (
    Event,
    LLMChunkEvent,
    ResolveToolApproval,
    StreamStart,
    TextDelta,
    ToolApprovalRequestedEvent,
)
from llmgine.errors import ProviderError

from discord_bot.answer import Answer, Say
from discord_bot.approvals import Approvals
from discord_bot.reports import TROUBLE, trouble

__all__ = ["STOPPED", "Question", "Turns"]

_log = logging.getLogger(__name__)

STOPPED = "-# Stopped: the bot is going offline."
_CUT_OFF = "-# Cut off: the answer has reached the model's limit."
_NOTHING = "-# The model gave no answer."


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks, and where.

    Attributes:
        text: the words.
        asker: the person, who alone may approve of tool calls.
        say: sends a message there.
        heading: what the answer begins with.
    """

    text: str
    asker: discord.abc.User
    say: Say
    heading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _AllHeardEvent(Event):
    """Comes behind all that a turn has published."""

    observed: ClassVar[bool] = False


class Turns:
    """Runs the turns of one session, one after the other, and shows them.

    Args:
        session: the session, open.
        approvals: who asks about tool calls.
    """

    def __init__(self, session: BusSession, approvals: Approvals) -> None:
        self._session = session
        self._approvals = approvals
        self._speaking = asyncio.Lock()
        self._question: Question | None = None
        self._answer: Answer | None = None
        self._turn: asyncio.Task[TurnResult] | None = None
        self._written = False
        self._goes_on = False
        session.register_event_handler(LLMChunkEvent, self._show, inline=True)
        session.register_event_handler(_AllHeardEvent, self._all_heard, inline=True)
        session.register_event_handler(
            ToolApprovalRequestedEvent, self._ask, concurrent=True, timeout=math.inf
        )

    async def run(self, question: Question) -> None:
        """Answer a question. Where the task is cancelled, say so, and end the turn.

        Raises:
            DiscordException: the answer can't be shown.
            OSError: nor can Discord be reached.
        """
        self._question, self._written, self._goes_on = question, False, False
        self._turn = asyncio.create_task(self._session.execute(RunTurn(text=question.text)))
        self._answer = self._new_answer(question, question.heading)
        self._answer.start()
        showing = asyncio.create_task(self._shown(question, self._turn))
        try:
            await asyncio.wait({showing})
        except asyncio.CancelledError:
            self._turn.cancel()
            await asyncio.wait({showing})  # an answer that is there already is shown to its end
            raise
        finally:
            if not showing.done():
                showing.cancel()
        showing.result()

    async def _shown(self, question: Question, turn: asyncio.Task[TurnResult]) -> None:
        """Show the turn's answer to its end, and what is left to say."""
        await asyncio.wait({turn})
        await self._session.publish_and_wait(_AllHeardEvent())
        async with self._speaking:
            self._question = None
            if self._answer is not None:
                await self._answer.finish()
            if note := self._note(turn):
                await question.say(note)

    def _new_answer(self, question: Question, heading: str = "") -> Answer:
        return Answer(question.say, heading, failed=self._cancel)

    def _cancel(self) -> None:
        if self._turn is not None:
            self._turn.cancel()  # what nobody can see needn't be worked out

    def _show(self, event: LLMChunkEvent) -> None:
        if self._answer is None:
            return
        if isinstance(event.chunk, StreamStart):
            self._goes_on = self._answer.begun  # after a tool; and there may be several attempts
        elif isinstance(event.chunk, TextDelta) and event.chunk.text:
            self._answer.add(f"\n\n{event.chunk.text}" if self._goes_on else event.chunk.text)
            self._goes_on = False
            self._written = self._written or not event.chunk.text.isspace()

    def _all_heard(self, event: _AllHeardEvent) -> None:
        """Be handled: whoever published the event waits for that."""

    async def _ask(self, event: ToolApprovalRequestedEvent) -> None:
        question = self._question
        if question is None:
            return  # the turn is over
        key = self._approvals.expect(self._session, event, question.asker)
        try:
            async with self._speaking:
                if self._question is not question:
                    return
                # What is said meanwhile will stand in messages of its own, below the buttons.
                before = self._answer
                begun = before is not None and before.begun
                self._answer = self._new_answer(question, "" if begun else question.heading)
                if before is not None:
                    await before.finish()
                try:
                    await self._approvals.ask(key, question.say)
                finally:
                    self._answer.start()
        except TROUBLE as error:
            _log.warning("%s", trouble(error))
            reason = "nobody could be asked"
            command = ResolveToolApproval(call_id=event.call.id, approved=False, reason=reason)
            await self._session.execute(command)

    def _note(self, turn: asyncio.Task[TurnResult]) -> str:
        """Return what is left to say of a turn that has ended."""
        if turn.cancelled():
            return STOPPED
        error = turn.exception()
        if error is None:
            if turn.result().finish_reason == "length":
                return _CUT_OFF
            return "" if self._written else _NOTHING
        if not isinstance(error, Exception):
            raise error
        kind = type(error).__name__
        # The text of an error may say what isn't everybody's business: it goes to the log alone.
        _log.error("session %s: %s: %s", self._session.session_id, kind, error)
        again = isinstance(error, ProviderError) and error.retryable
        return f"-# That went wrong ({kind}){': trying again may help' if again else ''}."

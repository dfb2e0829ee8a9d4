"""Sending letters again: each to the handler that had failed, and no message twice at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from llmgine.bus.delivery import Delivery
from llmgine.bus.handlers import qualified_name
from llmgine.bus.message_bus import MessageBus
from llmgine.bus.middleware.dead_letter_file import DeadLetter
from llmgine.bus.middleware.keys import is_command
from llmgine.bus.middleware.letter_box import place_of
from llmgine.bus.middleware.outcome import current_frame, was_cancelled
from llmgine.contracts.messages import Event, Message
from llmgine.errors import BusNotRunningError, WouldDeadlockError, WrongLoopError

__all__ = ["ReplayReport", "Replays"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """What came of sending letters again.

    Attributes:
        handled: messages that were handled this time; their letters are gone.
        failed: those that weren't, or that nobody handles any more; their letters stay.
    """

    handled: int = 0
    failed: int = 0


@dataclass(eq=False, slots=True)
class _Replay:
    """A letter that is being sent again.

    Attributes:
        called: whether the handler that had failed was called again.
        failed: whether it failed again.
    """

    letter: DeadLetter
    called: bool = False
    failed: bool = False

    def is_for(self, handler: str) -> bool:
        """Note that a handler is about to be called, if it's the one that had failed."""
        self.called = self.called or handler == self.letter.handler
        return handler == self.letter.handler


class Replays:
    """The letters that are being sent again, and the messages that are going to be."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Replay] = {}
        self._taken_up: set[str] = set()

    def lets_through(self, message: Message) -> bool:
        """Tell whether a message may go on to the handler that is about to be called."""
        if not self._under_way:
            return True
        replay = self._under_way.get(message.id)
        return replay is None or replay.is_for(_handler())

    def failed(self, message: Message) -> int:
        """Note that a message has failed; return how often it has been sent again."""
        replay = self._under_way.get(message.id)
        if replay is None:
            return 0
        replay.failed = True
        return replay.letter.replays + 1

    @contextmanager
    def taking_up(self, letters: Iterable[DeadLetter]) -> Generator[Collection[DeadLetter]]:
        """Give one letter for each failure, of messages that no other replay has taken up."""
        free = [letter for letter in letters if letter.message.id not in self._taken_up]
        messages = {letter.message.id for letter in free}
        self._taken_up |= messages
        try:
            yield {place_of(letter): letter for letter in free}.values()
        finally:
            self._taken_up -= messages

    async def sent(self, bus: MessageBus, letter: DeadLetter) -> bool:
        """Send a letter's message again, and tell whether it was handled.

        Raises:
            BusNotRunningError: the bus doesn't run.
            WouldDeadlockError: called from a handler that an event would have to wait for.
            WrongLoopError: the bus runs on another loop or thread.
        """
        with self._replaying(letter) as replay:
            try:
                if is_command(letter.message):
                    await bus.execute(letter.message)
                elif isinstance(letter.message, Event):
                    await bus.publish_and_wait(letter.message)
            except (BusNotRunningError, WouldDeadlockError, WrongLoopError):
                raise
            except (Exception, asyncio.CancelledError) as error:
                if was_cancelled(error):
                    raise
                name = type(letter.message).__qualname__
                _log.warning("%s was sent again, and failed again: %r", name, error)
                return False
        return replay.called and not replay.failed

    @contextmanager
    def _replaying(self, letter: DeadLetter) -> Generator[_Replay]:
        replay = self._under_way[letter.message.id] = _Replay(letter)
        try:
            yield replay
        finally:
            del self._under_way[letter.message.id]


def _handler() -> str:
    """Return the name of the handler that is about to be called for an event."""
    frame = current_frame()
    if isinstance(frame, Delivery) and frame.handler is not None:
        return qualified_name(frame.handler.callback)
    return ""

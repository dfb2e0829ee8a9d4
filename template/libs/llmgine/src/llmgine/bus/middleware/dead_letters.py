"""Keeping what has failed for good, so that it can be looked at and sent again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from llmgine.bus.delivery import Delivery
from llmgine.bus.handlers import qualified_name
from llmgine.bus.message_bus import MessageBus
from llmgine.bus.middleware.dead_letter_file import DeadLetter, DeadLetterFile
from llmgine.bus.middleware.keys import BySession, Place, is_command
from llmgine.bus.middleware.outcome import current_frame, was_cancelled
from llmgine.contracts.events import (
    CommandResultEvent,
    EventHandlerFailedEvent,
    SessionEndEvent,
)
from llmgine.contracts.messages import ErrorInfo, Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import BusNotRunningError, WouldDeadlockError, WrongLoopError
from llmgine.settings import DeadLetterSettings

__all__ = ["DeadLetter", "DeadLetterCounts", "DeadLetters", "ReplayReport", "build"]

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class DeadLetterCounts:
    """What has become of the letters since a `DeadLetters` was made.

    Attributes:
        failed: failures that became letters, those of messages sent again included.
        dropped: letters that made way for newer ones.
        ended: letters that went with their session.
        unwritten: letters that the sink didn't take.
    """

    failed: int = 0
    dropped: int = 0
    ended: int = 0
    unwritten: int = 0


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


class DeadLetters:
    """Middleware that keeps commands that have failed, and events that a handler has failed at.

    A letter is what the bus reports as failed: after all attempts, limits in time and stops
    included. A command whose caller has cancelled it is none, and neither are the handlers of a
    session's end. Letters are kept in memory, the oldest making way for the newest, and those of a
    session until it ends; a sink is given each letter when it arises, to keep it for longer.

    Add it first, so that a message that is sent again goes through all other middleware anew.
    Handlers are known by their qualified names: several objects' same method is one handler here.

    Args:
        settings: how many letters are kept, and whether a file gets them as well.
        sink: called with each letter, on the loop; what it raises is logged and counted. By
            default the settings' file, if they name one.
        keep: whether a failed message becomes a letter; by default each does.

    Attributes:
        counts: what has become of the letters so far.
    """

    def __init__(
        self,
        settings: DeadLetterSettings | None = None,
        *,
        sink: Callable[[DeadLetter], object] | None = None,
        keep: Callable[[Message, BaseException], bool] | None = None,
    ) -> None:
        self._settings = settings = settings or DeadLetterSettings()
        if sink is None and settings.path is not None:
            sink = DeadLetterFile(settings.path)
        self._sink = sink
        self._keep = keep
        self._letters = BySession[DeadLetter]()
        self._replays: dict[str, _Replay] = {}
        self._taken_up: set[str] = set()
        self.counts = DeadLetterCounts()

    # -- Letters

    def letters(self, session_id: str | None = None) -> list[DeadLetter]:
        """Return the letters, the oldest first: all of them, or those of one session."""
        kept = [letter for _, letter in self._letters.items()]
        if session_id is None:
            return kept
        return [letter for letter in kept if letter.message.session_id == session_id]

    def clear(self, session_id: str | None = None) -> int:
        """Forget the letters, all of them or those of one session; return how many."""
        cleared = self.letters(session_id)
        for letter in cleared:
            self._letters.pop(_place(letter))
        return len(cleared)

    async def replay(
        self, bus: MessageBus, letters: Iterable[DeadLetter] | None = None
    ) -> ReplayReport:
        """Send messages again, one after the other, and wait until each is handled.

        It is the same message, with its id. An event goes to the handler that had failed, and to
        no other. Of several letters of one failure, such as a file may hold, the last one counts.
        Messages that another replay has taken up already are passed over.

        Args:
            bus: where to send them.
            letters: by default all that are kept; others may come from a file.

        Raises:
            BusNotRunningError: the bus doesn't run.
            WouldDeadlockError: called from a handler that an event would have to wait for.
            WrongLoopError: the bus runs on another loop or thread.
        """
        handled = failed = 0
        with self._taking_up(self.letters() if letters is None else letters) as chosen:
            for place, letter in chosen.items():
                if letters is None and self._letters.get(place) is not letter:
                    continue  # it has gone meanwhile, with its session perhaps
                succeeded = await self._sent_again(bus, letter)
                handled += succeeded
                failed += not succeeded
        return ReplayReport(handled=handled, failed=failed)

    @contextmanager
    def _taking_up(self, letters: Iterable[DeadLetter]) -> Generator[Mapping[Place, DeadLetter]]:
        """Give one letter for each failure, of messages that no other replay has taken up."""
        free = [letter for letter in letters if letter.message.id not in self._taken_up]
        messages = {letter.message.id for letter in free}
        self._taken_up |= messages
        try:
            yield {_place(letter): letter for letter in free}
        finally:
            self._taken_up -= messages

    async def _sent_again(self, bus: MessageBus, letter: DeadLetter) -> bool:
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
        if replay.failed or not replay.called:
            return False
        self._letters.pop(_place(letter))
        return True

    @contextmanager
    def _replaying(self, letter: DeadLetter) -> Generator[_Replay]:
        replay = self._replays[letter.message.id] = _Replay(letter)
        try:
            yield replay
        finally:
            del self._replays[letter.message.id]

    # -- What the bus calls

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message, unless it is sent again for the sake of another handler."""
        if self._replays:
            replay = self._replays.get(message.id)
            if replay is not None and not replay.is_for(_handler()):
                return None
        return await call_next(message)

    def observe(self, event: Event) -> None:
        """Make a letter of a failure; forget those of a session that has ended."""
        if isinstance(event, CommandResultEvent):
            error = event.result.error
            if event.result.status == "error" and error is not None:
                self._failed(event.command, "", error)
        elif isinstance(event, EventHandlerFailedEvent):
            if not isinstance(event.event, SessionEndEvent):
                self._failed(event.event, event.handler, event.error)
        elif isinstance(event, SessionEndEvent):
            self.counts.ended += self._letters.drop_session(event.session_id)

    def _failed(self, message: Message, handler: str, error: BaseException) -> None:
        replay = self._replays.get(message.id)
        if replay is not None:
            replay.failed = True
        if self._keep is not None and not self._keep(message, error):
            return
        letter = DeadLetter(
            message=message,
            error=ErrorInfo.of(error),
            handler=handler,
            replays=0 if replay is None else replay.letter.replays + 1,
        )
        self.counts.failed += 1
        self._letters.put(_place(letter), letter)
        self._write(letter)
        if len(self._letters) > self._settings.limit:
            oldest, _ = next(iter(self._letters.items()))
            self._letters.pop(oldest)
            self.counts.dropped += 1
            if _is_worth_a_line(self.counts.dropped):
                limit, dropped = self._settings.limit, self.counts.dropped
                _log.warning("more than %d dead letters: %d dropped so far", limit, dropped)

    def _write(self, letter: DeadLetter) -> None:
        if self._sink is None:
            return
        try:
            self._sink(letter)
        except Exception:
            self.counts.unwritten += 1
            if _is_worth_a_line(self.counts.unwritten):
                text = "%d dead letters were not written so far, the last one a %s"
                name = type(letter.message).__qualname__
                _log.exception(text, self.counts.unwritten, name)


def _place(letter: DeadLetter) -> Place:
    return (letter.message.session_id, (letter.message.id, letter.handler))


def _handler() -> str:
    """Return the name of the handler that is about to be called for an event."""
    frame = current_frame()
    if isinstance(frame, Delivery) and frame.handler is not None:
        return qualified_name(frame.handler.callback)
    return ""


def _is_worth_a_line(count: int) -> bool:
    """Let the log have the 1st, the 2nd, the 4th, the 8th and so on."""
    return count & (count - 1) == 0


def build(settings: DeadLetterSettings) -> DeadLetters:
    """Make one from settings, for the bootstrap."""
    return DeadLetters(settings)

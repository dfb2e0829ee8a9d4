"""Keeping what has failed for good, so that it can be looked at and sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmgine.bus.message_bus import MessageBus
from llmgine.bus.middleware.dead_letter_file import DeadLetter, DeadLetterFile
from llmgine.bus.middleware.letter_box import DeadLetterCounts, LetterBox
from llmgine.bus.middleware.replays import ReplayReport, Replays
from llmgine.contracts.events import (
    CommandResultEvent,
    EventHandlerFailedEvent,
    SessionEndEvent,
)
from llmgine.contracts.messages import ErrorInfo, Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.settings import DeadLetterSettings

__all__ = ["DeadLetterCounts", "DeadLetters", "build"]


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
        settings = settings or DeadLetterSettings()
        if sink is None and settings.path is not None:
            sink = DeadLetterFile(settings.path)
        self._keep = keep
        self._box = LetterBox(settings.limit, sink)
        self._replays = Replays()
        self.counts: DeadLetterCounts = self._box.counts

    # -- Letters

    def letters(self, session_id: str | None = None) -> list[DeadLetter]:
        """Return the letters, the oldest first: all of them, or those of one session."""
        return self._box.letters(session_id)

    def clear(self, session_id: str | None = None) -> int:
        """Forget the letters, all of them or those of one session; return how many."""
        cleared = self.letters(session_id)
        for letter in cleared:
            self._box.remove(letter)
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
        with self._replays.taking_up(self.letters() if letters is None else letters) as chosen:
            for letter in chosen:
                if letters is None and not self._box.holds(letter):
                    continue  # it has gone meanwhile, with its session perhaps
                succeeded = await self._replays.sent(bus, letter)
                if succeeded:
                    self._box.remove(letter)
                handled += succeeded
                failed += not succeeded
        return ReplayReport(handled=handled, failed=failed)

    # -- What the bus calls

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message, unless it is sent again for the sake of another handler."""
        if not self._replays.lets_through(message):
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
            self._box.drop_session(event.session_id)

    def _failed(self, message: Message, handler: str, error: BaseException) -> None:
        replays = self._replays.failed(message)
        if self._keep is not None and not self._keep(message, error):
            return
        letter = DeadLetter(
            message=message, error=ErrorInfo.of(error), handler=handler, replays=replays
        )
        self._box.add(letter)


def build(settings: DeadLetterSettings) -> DeadLetters:
    """Make one from settings, for the bootstrap."""
    return DeadLetters(settings)

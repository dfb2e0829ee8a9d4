"""The letters that are kept: bounded, gone with their session, each handed on to a sink."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from llmgine.bus.middleware.dead_letter_file import DeadLetter
from llmgine.bus.middleware.keys import BySession, Place

__all__ = ["DeadLetterCounts", "LetterBox", "place_of"]

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


def place_of(letter: DeadLetter) -> Place:
    """Return where a letter is kept: one for each handler of a message."""
    return (letter.message.session_id, (letter.message.id, letter.handler))


class LetterBox:
    """Letters, the oldest of which make way for the newest.

    Args:
        limit: how many are kept.
        sink: called with each; what it raises is logged and counted.

    Attributes:
        counts: what has become of the letters so far.
    """

    def __init__(self, limit: int, sink: Callable[[DeadLetter], object] | None) -> None:
        self._limit = limit
        self._sink = sink
        self._letters = BySession[DeadLetter]()
        self.counts = DeadLetterCounts()

    def letters(self, session_id: str | None = None) -> list[DeadLetter]:
        """Return the letters, the oldest first: all of them, or those of one session."""
        kept = [letter for _, letter in self._letters.items()]
        if session_id is None:
            return kept
        return [letter for letter in kept if letter.message.session_id == session_id]

    def holds(self, letter: DeadLetter) -> bool:
        """Tell whether this very letter is kept, and not another one in its place."""
        return self._letters.get(place_of(letter)) is letter

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter in place of the one before it, and give it to the sink."""
        self.counts.failed += 1
        self._letters.put(place_of(letter), letter)
        self._write(letter)
        if len(self._letters) > self._limit:
            oldest, _ = next(iter(self._letters.items()))
            self._letters.pop(oldest)
            self.counts.dropped += 1
            if _is_worth_a_line(self.counts.dropped):
                dropped = self.counts.dropped
                _log.warning("more than %d dead letters: %d dropped so far", self._limit, dropped)

    def remove(self, letter: DeadLetter) -> None:
        """Forget what is kept in a letter's place."""
        self._letters.pop(place_of(letter))

    def drop_session(self, session_id: str | None) -> None:
        """Forget the letters of a session that has ended."""
        self.counts.ended += self._letters.drop_session(session_id)

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


def _is_worth_a_line(count: int) -> bool:
    """Let the log have the 1st, the 2nd, the 4th, the 8th and so on."""
    return count & (count - 1) == 0

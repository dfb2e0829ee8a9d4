"""The events of one session, as many as are kept, for whoever watches or comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from llmgine.contracts import Event
from llmgine.contracts.chat import JsonObject
from llmgine.observability.record import to_record

__all__ = ["EVERYTHING", "QUIET", "Entry", "EventLog"]

EVERYTHING = "0"
"""What stands for the id before every id: all that is kept."""

_ENVELOPE = ("event_type", "timestamp", "session_id", "id", "parent_id")
_LONGEST = 256 * 1024
_MOST_CHARACTERS = 8 * 1024 * 1024
_MOST_DIGITS = 18

_RESET = "events are missing here, or belong to another run: load the messages again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An event as it goes out.

    Attributes:
        id: its id, by which a watcher goes on.
        kind: the name of its type.
        data: what it holds, as JSON.
    """

    id: str
    kind: str
    data: str


QUIET = Entry(id="", kind="", data="")
"""What stands for a time without events."""


class EventLog:
    """Keeps the last events of a session, and hands them to any number of watchers.

    Watchers read from here, each at its own pace: one that doesn't keep up costs nothing, and is
    told when it has been overtaken.

    Args:
        kept: how many events are kept at most; fewer where they are large.
    """

    def __init__(self, *, kept: int) -> None:
        self._kept = kept
        # An id of another log, of an earlier run for instance, is known as such by this.
        self._name = f"{time.time_ns():x}"
        self._entries: dict[int, Entry] = {}
        self._first = self._end = 1
        self._characters = 0
        self._turn = 0
        self._news = asyncio.Event()
        self._closed = False

    def add(self, event: Event) -> None:
        """Keep an event without its secrets, and one that is too large without its content."""
        data = _written(event)
        number = self._end
        self._entries[number] = Entry(id=self._id(number), kind=type(event).__name__, data=data)
        self._end += 1
        self._characters += len(data)
        while len(self._entries) > self._kept or self._characters > _MOST_CHARACTERS:
            self._characters -= len(self._entries.pop(self._first).data)
            self._first += 1
        self._tell()

    def begin_turn(self) -> None:
        """Let those who come from now on begin here, until the turn ends."""
        self._turn = self._end

    def end_turn(self) -> None:
        """Let those who come from now on begin with what is new then."""
        self._turn = 0

    def close(self) -> None:
        """Let watchers go, once they have read what there is."""
        self._closed = True
        self._tell()

    async def watch(
        self, after: str | None = None, *, silence: float | None = None
    ) -> AsyncGenerator[Entry, None]:
        """Yield events as they come, until the log is closed.

        Args:
            after: the id of the last event that the watcher has. Without one it begins with the
                turn under way, or with what is new; `EVERYTHING` gives all that is kept.
            silence: seconds without an event after which it gets `QUIET`, each time.
        """
        position = self._place(after)
        while True:
            if position < self._first:
                position = self._beginning()
                yield self._reset(position)
            entry = self._entries.get(position)
            if entry is not None:
                position += 1
                yield entry
            elif self._closed:
                return
            elif position >= self._first:
                try:
                    async with asyncio.timeout(silence):
                        await self._news.wait()
                except TimeoutError:
                    yield QUIET

    def _place(self, after: str | None) -> int:
        """Return the number of the event to begin with; 0 where it isn't known."""
        if after is None:
            return self._beginning()
        if after == EVERYTHING:
            return self._first
        name, _, digits = after.partition("-")
        if name != self._name or not digits.isascii() or not digits.isdigit():
            return 0
        number = int(digits[:_MOST_DIGITS]) + 1
        return number if number <= self._end else 0

    def _beginning(self) -> int:
        return self._turn if self._turn >= self._first else self._end

    def _reset(self, position: int) -> Entry:
        return Entry(id=self._id(position - 1), kind="Reset", data=_json({"reason": _RESET}))

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _written(event: Event) -> str:
    """Return an event as JSON, as much of it as is short enough."""
    data = _json(to_record(event))
    if len(data) <= _LONGEST:
        return data
    record = to_record(event, content=False)
    data = _json(record)
    if len(data) <= _LONGEST:
        return data
    return _json({**{name: record[name] for name in _ENVELOPE}, "$truncated": True})


def _json(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

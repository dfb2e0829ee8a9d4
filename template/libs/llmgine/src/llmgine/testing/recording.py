"""Doubles that keep what they are given: a handler for events, and a publisher."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from llmgine.contracts.messages import Event
from llmgine.observability.handler import ObservabilityEventHandler

__all__ = ["RecordingHandler", "RecordingPublisher"]

EventT = TypeVar("EventT", bound=Event)

_LIMIT = 100_000


class _Recorder:
    """Keeps events.

    Args:
        limit: how many are kept; the oldest go first.
    """

    def __init__(self, limit: int) -> None:
        self._events: deque[Event] = deque(maxlen=limit)

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, in the order in which they came."""
        return tuple(self._events)

    def of(self, kind: type[EventT]) -> tuple[EventT, ...]:
        """Return the events of one class, its subclasses' included."""
        return tuple(event for event in self._events if isinstance(event, kind))

    def clear(self) -> None:
        """Forget the events so far."""
        self._events.clear()


class RecordingHandler(_Recorder, ObservabilityEventHandler):
    """An observability handler that keeps the events themselves, as soon as they are observed.

        handler = RecordingHandler()
        async with ApplicationBootstrap(handlers=[handler]) as app:
            await app.bus.execute(...)
        assert handler.of(CommandResultEvent)[0].result.status == "ok"

    Args:
        limit: how many events are kept; the oldest go first.

    Attributes:
        started: how often it was started.
        handled: how many events came through its own thread.
        stopped: how often it was stopped.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        super().__init__(limit)
        self.started = 0
        self.handled = 0
        self.stopped = 0

    def observe(self, event: Event) -> None:
        """Keep an event."""
        self._events.append(event)

    def start(self) -> None:
        """Count the starts."""
        self.started += 1

    def handle(self, event: Event) -> None:
        """Count what came through the handler's own thread."""
        del event
        self.handled += 1

    def stop(self, timeout: float) -> None:
        """Count the stops."""
        del timeout
        self.stopped += 1


class RecordingPublisher(_Recorder):
    """A publisher that keeps what is published, for parts that take one.

    Args:
        error: raised by `publish`, after keeping the event.
        limit: how many events are kept; the oldest go first.
    """

    def __init__(self, error: Exception | None = None, limit: int = _LIMIT) -> None:
        super().__init__(limit)
        self._error = error

    async def publish(self, event: Event) -> None:
        """Keep an event.

        Raises:
            Exception: the error given at the start, if one was.
        """
        self._events.append(event)
        if self._error is not None:
            raise self._error

"""Events for later: on timers of their own, outside every queue until they are due."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime

from llmgine.contracts.messages import Event
from llmgine.errors import BusNotRunningError, BusStoppedError, ConfigurationError, LlmgineError

__all__ = ["Schedule", "Scheduled"]

_log = logging.getLogger(__name__)

# A date is compared with the system's clock this often, since that clock may be set meanwhile.
_RECHECK = 60.0


@dataclass(eq=False, slots=True)
class Scheduled:
    """One event that waits for its time."""

    event: Event
    seconds_left: Callable[[], float]
    _forget: Callable[[Scheduled], None]
    context: Context = field(default_factory=copy_context)
    timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Take the event back; once it is published this does nothing."""
        self.disarm()
        self._forget(self)

    def disarm(self) -> None:
        """Stop the timer; the event stays scheduled."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Schedule:
    """The scheduled events of one bus, kept while the bus is stopped.

    Args:
        publish: the bus's own `publish`.
    """

    def __init__(self, publish: Callable[[Event], Coroutine[None, None, None]]) -> None:
        self._publish = publish
        self._waiting: dict[Scheduled, None] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Return how many events wait for their time."""
        return len(self._waiting)

    def add(self, event: Event, at: datetime | None, after: float | None) -> Scheduled:
        """Schedule an event; while the bus is stopped its timer waits too.

        Raises:
            ConfigurationError: not exactly one time is given, or it can't be used.
        """
        scheduled = Scheduled(event, _countdown(at, after), self._forget)
        self._waiting[scheduled] = None
        if self._loop is not None:
            self._arm(scheduled)
        return scheduled

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the timers."""
        self._loop = loop
        for scheduled in list(self._waiting):
            self._arm(scheduled)

    def stop(self) -> None:
        """Stop the timers; what is not yet due stays for the next start."""
        self._loop = None
        for scheduled in self._waiting:
            scheduled.disarm()

    def _forget(self, scheduled: Scheduled) -> None:
        self._waiting.pop(scheduled, None)

    def _arm(self, scheduled: Scheduled) -> None:
        if self._loop is not None:
            delay = min(max(0.0, scheduled.seconds_left()), _RECHECK)
            scheduled.timer = self._loop.call_later(delay, self._ring, scheduled)

    def _ring(self, scheduled: Scheduled) -> None:
        scheduled.timer = None
        if scheduled.seconds_left() > 0:
            self._arm(scheduled)
            return
        self._forget(scheduled)
        if self._loop is not None:
            # A task of its own: the queue may be full, and a timer can't wait.
            publishing = self._publish_due(scheduled)
            task = self._loop.create_task(publishing, context=scheduled.context)
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish_due(self, scheduled: Scheduled) -> None:
        try:
            await self._publish(scheduled.event)
        except (BusNotRunningError, BusStoppedError):
            self._waiting[scheduled] = None  # it was a moment late: the next start takes it up
        except LlmgineError as error:
            _log.error("the scheduled %r was refused: %s", scheduled.event, error)


def _countdown(at: datetime | None, after: float | None) -> Callable[[], float]:
    """Return a function that tells the seconds left."""
    if (at is None) == (after is None):
        message = f"schedule takes either at= or after=, got at={at!r} and after={after!r}"
        raise ConfigurationError(message)
    if at is not None:
        if at.utcoffset() is None:
            message = f"at= needs a time zone, such as datetime.now(UTC); got {at!r}"
            raise ConfigurationError(message)
        due = at.timestamp()
        return lambda: due - time.time()
    if after is None or not 0 <= after < math.inf:
        raise ConfigurationError(f"after= is in seconds, 0 or more; got {after!r}")
    ring = time.monotonic() + after
    return lambda: ring - time.monotonic()

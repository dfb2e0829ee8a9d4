"""What the parts of one bus share: settings, loop, clock, threads and counters."""

from __future__ import annotations

import asyncio
import logging

from llmgine.bus.limits import Limiter
from llmgine.bus.report import Counts
from llmgine.contracts.messages import Event
from llmgine.contracts.protocols import Middleware, Observer
from llmgine.contracts.threads import WorkerThreads
from llmgine.settings import BusSettings

__all__ = ["Core"]

_log = logging.getLogger(__name__)


class Core:
    """The state that a bus and its lanes have in common.

    `loop`, `limiter` and `threads` belong to one span from `start` to `stop`; the rest stays.
    Before the first start (`opened` is false) there is no limiter and are no threads.
    """

    __slots__ = ("counts", "limiter", "loop", "middlewares", "observers", "opened", "queue_size",
                 "settings", "threads")  # fmt: skip

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.queue_size = settings.queue_size
        self.counts = Counts()
        self.observers: tuple[Observer, ...] = ()
        self.middlewares: tuple[Middleware, ...] = ()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.opened = False
        self.limiter: Limiter
        self.threads: WorkerThreads

    def open(self, loop: asyncio.AbstractEventLoop, settings: BusSettings) -> None:
        """Begin a span on this loop."""
        self.settings = settings
        self.queue_size = settings.queue_size
        self.opened = True
        self.loop = loop
        self.limiter = Limiter(loop, settings, self.counts)
        self.threads = WorkerThreads(
            limit=settings.threads, abandoned_limit=settings.abandoned_threads, name="llmgine-bus"
        )

    def close(self) -> None:
        """End the span."""
        self.loop = None
        self.limiter.close()
        self.threads.close()

    @property
    def abandoned(self) -> int:
        """Handlers that were cut off and go on all the same."""
        return self.limiter.left_behind + self.threads.abandoned if self.opened else 0

    def observe(self, event: Event) -> None:
        """Show an event to the observers, whose errors never reach the application."""
        if not event.observed:
            return
        for observer in self.observers:
            try:
                observer(event)
            except Exception:
                self.counts.observers_failed += 1
                _log.exception("the observer %r failed", observer)

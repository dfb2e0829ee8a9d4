"""One session id: its handlers, its queue, and the one task that empties it, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TypeAlias

from llmgine.bus.core import Core
from llmgine.bus.delivery import ENDED, Deliverer, Delivery
from llmgine.bus.frames import Frame
from llmgine.bus.handlers import Handler
from llmgine.contracts.messages import Event

__all__ = ["Lane"]

_log = logging.getLogger(__name__)

# How many events a lane handles before others get a turn on the loop.
_BURST = 64

# Seconds for the loop to come round after a handler was left behind.
_MOMENT = 0.1

Done: TypeAlias = asyncio.Future[None]
_Entry: TypeAlias = tuple[Event, tuple[Handler, ...], Context, Done | None, Frame | None]


class Lane(Deliverer):
    """A first-in-first-out queue of events, one for each session id that has any.

    Attributes:
        entries: events that wait, each with its handlers and its publisher's context.
        closing: the session's exit has begun.
        is_session: a `BusSession` holds this id open.
    """

    __slots__ = ("_drain", "_publishers", "_retire", "_waiters", "closing", "entries",
                 "is_session")  # fmt: skip

    def __init__(
        self, core: Core, session_id: str | None, root: Lane | None, retire: Callable[[Lane], None]
    ) -> None:
        super().__init__(core, session_id, root)
        self._core = core
        self._root = root
        self._retire = retire
        self.cuts = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the registrations, as after a loop that was closed unasked."""
        self.entries: deque[_Entry] = deque()
        self.guarded = False
        self.closing = False
        self.ended = False
        self.is_session = False
        self._concurrent = set()
        self._drain: asyncio.Task[None] | None = None
        self._publishers: list[Done] = []
        self._waiters: list[Done] = []

    # -- What is under way

    @property
    def busy(self) -> bool:
        """Whether events wait or are being handled."""
        return bool(self.entries or self._drain or self._concurrent)

    @property
    def full(self) -> bool:
        """Whether publishers have to wait."""
        return len(self.entries) >= self._core.queue_size

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for this lane to be idle."""
        return bool(self._waiters)

    @property
    def active(self) -> bool:
        """Whether events wait or are being handled, or a command of this session is."""
        # `busy`, without a call: each session that ends asks twice.
        if self.entries or self._drain or self._concurrent:
            return True
        return self._core.opened and self._core.limiter.executing(self)

    async def idle(self, *, commands: bool) -> None:
        """Wait until no event waits or is handled, and, if asked, no command either."""
        while self.active if commands else self.busy:
            if self.entries and self._drain is None:
                self._start_drain()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def settle(self) -> None:
        """Tell those who wait for this lane that something has ended; go, if nothing is left."""
        for waiter in self._waiters:
            _let_go(waiter)
        self._waiters.clear()
        if not (self.is_session or self.active or self.has_handlers):
            self._retire(self)

    def remove(self, handler: Handler) -> None:
        """Take a registration out; go, if nothing is left."""
        super().remove(handler)
        self.settle()

    # -- Publishers that wait for room

    @property
    def crowded(self) -> bool:
        """Whether publishers wait for room."""
        return bool(self._publishers)

    async def room(self) -> None:
        """Wait for a turn, first come first served, to look whether the queue has room.

        Raises:
            Exception: what `turn_away` gave as the reason.
        """
        publisher = asyncio.get_running_loop().create_future()
        self._publishers.append(publisher)
        try:
            await publisher
        except asyncio.CancelledError:
            if not publisher.cancelled():
                self._next_publisher()  # the turn must not be lost with the one who had it
            raise

    def turn_away(self, error: Exception) -> None:
        """Refuse, and count, all publishers that wait for room."""
        for publisher in self._publishers:
            if not publisher.done():
                self._core.counts.events_refused += 1
                publisher.set_exception(error)
        self._publishers.clear()

    def _next_publisher(self) -> None:
        while self._publishers and not _let_go(self._publishers.pop(0)):
            pass  # who has given up needs no turn

    # -- Cutting off

    def cut(self, error: Exception) -> None:
        """Interrupt everything under way, drop what waits, and count it.

        What comes of that (failures, results) is still told to whoever listens.
        """
        self.cuts += 1
        self.turn_away(error)
        self.drop(error)
        for run in list(self._core.limiter.running(self)):
            self._core.limiter.interrupt(run, error)

    def drop(self, error: Exception) -> None:
        """Drop, and count, the events that wait."""
        self._core.counts.events_dropped += len(self.entries)
        for _, _, _, done, _ in self.entries:
            if done is not None and not done.done():
                done.set_exception(error)
        self.entries.clear()

    async def gone(self, seconds: float) -> None:
        """Wait, this long at most and a moment, until what was cut off is gone."""
        try:
            async with asyncio.timeout(seconds + _MOMENT):
                await self.idle(commands=True)
        except TimeoutError:
            _log.error("work of %s goes on after it was cut off", self.session_id or "the bus")

    # -- The queue

    def put(
        self,
        event: Event,
        handlers: tuple[Handler, ...],
        done: Done | None = None,
        outer: Frame | None = None,
    ) -> None:
        """Queue an event, with a copy of the caller's context. The bound is the caller's affair.

        Args:
            event: the event.
            handlers: who hears it.
            done: resolved once all of them have.
            outer: the frame of a publisher who waits for that.
        """
        self._core.counts.events += 1
        self.entries.append((event, handlers, copy_context(), done, outer))
        if self._drain is None:
            self._start_drain()

    def _start_drain(self) -> None:
        loop = self._core.loop
        if loop is not None and not loop.is_closed():
            # An empty context, or the first publisher's would live as long as the task.
            self._drain = loop.create_task(self._empty(), context=Context())

    async def _empty(self) -> None:
        task = asyncio.current_task()
        entries, counts, handled = self.entries, self._core.counts, 0
        try:
            while entries or self._publishers:
                if not entries:
                    # Who has a turn need not use it: then the next one gets it.
                    await _give_way(task)
                    if not entries:
                        self._next_publisher()
                    continue
                event, handlers, context, done, outer = entries.popleft()
                if self._publishers:
                    self._next_publisher()
                delivery = Delivery(self, event, iter(handlers), outer)
                coro = self._deliver(delivery)
                # Stepping by next() saves a StopIteration for each event that never suspends.
                pending = context.run(next, coro.__await__(), ENDED)
                if pending is not ENDED:
                    delivery = await self._finish(delivery, coro, context, pending, done)
                counts.events_handled += 1
                if done is not None:
                    _resolve(done, delivery.concurrent)
                handled += 1
                if handled % _BURST == 0 or (task is not None and task.cancelling()):
                    await _give_way(task)
        finally:
            if self._drain is task:
                self._drain = None
                self.settle()


def _let_go(waiter: Done) -> bool:
    """Let somebody who waits go on; tell whether they still waited."""
    if waiter.done() or waiter.get_loop().is_closed():
        return False
    waiter.set_result(None)
    return True


def _resolve(done: Done, concurrent: tuple[asyncio.Task[None], ...]) -> None:
    """Resolve a publisher's future, after the concurrent handlers if there are any."""
    if not concurrent:
        _let_go(done)
        return
    handled = asyncio.gather(*concurrent, return_exceptions=True)
    handled.add_done_callback(lambda _: _let_go(done))


async def _give_way(task: asyncio.Task[None] | None) -> None:
    """Let others run; take back a cancellation that a handler did to the queue's own task."""
    if task is None or not task.cancelling():
        await asyncio.sleep(0)
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    for _ in range(task.cancelling()):
        task.uncancel()

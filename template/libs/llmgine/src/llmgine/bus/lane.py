"""One session id: its handlers, its queue, and the one task that empties it, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from llmgine.bus.core import Core
from llmgine.bus.frames import Frame, Kind
from llmgine.bus.handlers import Handler, qualified_name
from llmgine.bus.limits import HandlerCoroutine, Run, resumed_in
from llmgine.bus.registry import Registry
from llmgine.contracts.ambient import AMBIENT, Clock
from llmgine.contracts.events import EventHandlerFailedEvent
from llmgine.contracts.messages import Event

__all__ = ["Lane"]

_log = logging.getLogger(__name__)

# How many events a lane handles before others get a turn on the loop.
_BURST = 64

# Seconds for the loop to come round after a handler was left behind.
_MOMENT = 0.1

Done: TypeAlias = asyncio.Future[None]
_Entry: TypeAlias = tuple[Event, tuple[Handler, ...], Context, Done | None, Clock | None]


class Lane(Registry):
    """A first-in-first-out queue of events, one for each session id that has any.

    Attributes:
        entries: events that wait, each with its handlers and its publisher's context.
        guarded: something is closing, so that publishers and callers have to be looked at.
        closing: the session's exit has begun.
        ended: the session's last event has been queued.
        is_session: a `BusSession` holds this id open.
        commands_running: the runs of commands of this session that have suspended.
    """

    __slots__ = ("_concurrent", "_core", "_cut", "_drain", "_handlers_running", "_publishers",
                 "_retire", "_root", "_waiters", "closing", "commands_running", "ended", "entries", "guarded",
                 "is_session")  # fmt: skip

    def __init__(
        self,
        core: Core,
        session_id: str | None,
        root: Lane | None,
        retire: Callable[[Lane], None],
    ) -> None:
        super().__init__(core, session_id, root)
        self._core = core
        self._root = root
        self._retire = retire
        self.reset()

    def reset(self) -> None:
        """Forget everything but the registrations, as after a loop that was closed unasked."""
        self.entries: deque[_Entry] = deque()
        self.guarded = False
        self.closing = False
        self.ended = False
        self.is_session = False
        self.commands_running: set[Run] = set()
        self._handlers_running: set[Run] = set()
        self._concurrent: set[asyncio.Task[None]] = set()
        self._drain: asyncio.Task[None] | None = None
        self._publishers: deque[Done] = deque()
        self._waiters: list[Done] = []
        self._cut: Exception | None = None

    # -- What is under way

    @property
    def busy(self) -> bool:
        """Whether events wait or are being handled."""
        return bool(self.entries or self._drain or self._concurrent)

    @property
    def full(self) -> bool:
        """Whether publishers have to wait."""
        return len(self.entries) >= self._core.settings.queue_size

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for this lane to be idle."""
        return bool(self._waiters)

    async def idle(self, *, commands: bool) -> None:
        """Wait until no event waits or is handled, and, if asked, no command either."""
        while self.busy or (commands and self.commands_running):
            if self.entries and self._drain is None:
                self._start_drain()
            await self._turn(self._waiters.append)

    async def room(self) -> None:
        """Wait, first come first served, until the queue has room.

        Raises:
            Exception: what `turn_away` gave as the reason.
        """
        await self._turn(self._publishers.append)

    def turn_away(self, error: Exception) -> None:
        """Refuse all publishers that wait for room."""
        for publisher in self._publishers:
            if not publisher.done():
                publisher.set_exception(error)
        self._publishers.clear()

    async def _turn(self, join: Callable[[Done], None]) -> None:
        waiter = asyncio.get_running_loop().create_future()
        join(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # A turn that was given to a waiter who has gone must not be lost.
            if waiter.done() and not waiter.cancelled():
                self._wake_publisher()
            raise

    def _wake_publisher(self) -> None:
        while self._publishers:
            publisher = self._publishers.popleft()
            if not publisher.done():
                publisher.set_result(None)
                return

    def settle(self) -> None:
        """Tell those who wait for this lane that something has ended; go, if nothing is left."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if not (self.busy or self.is_session or self.commands_running or self.has_handlers):
            self._retire(self)

    def remove(self, handler: Handler) -> None:
        """Take a registration out; go, if nothing is left."""
        super().remove(handler)
        self.settle()

    # -- Cutting off

    def cut(self, error: Exception) -> None:
        """Interrupt everything under way, drop what waits, and count it."""
        self._cut = error
        self.turn_away(error)
        dropped, self.entries = self.entries, deque()
        self._core.counts.dropped += len(dropped)
        for _, _, _, done, _ in dropped:
            if done is not None and not done.done():
                done.set_exception(error)
        for run in [*self.commands_running, *self._handlers_running]:
            self._core.limiter.interrupt(run, error)

    async def gone(self, seconds: float) -> None:
        """Wait, this long at most and a moment, until what was cut off is gone."""
        try:
            async with asyncio.timeout(seconds + _MOMENT):
                await self.idle(commands=True)
        except TimeoutError:
            _log.error("work of %s goes on after it was cut off", self.session_id or "the bus")

    def mend(self) -> None:
        """Handle events again after a cut."""
        self._cut = None

    # -- The queue

    def put(
        self,
        event: Event,
        handlers: tuple[Handler, ...],
        done: Done | None = None,
        outer: Clock | None = None,
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
        if loop is None or loop.is_closed():
            return  # the event waits for the next start
        # An empty context, or the first publisher's would live as long as the task.
        self._drain = loop.create_task(self._empty(), context=Context())

    async def _empty(self) -> None:
        task = asyncio.current_task()
        entries, counts, handled = self.entries, self._core.counts, 0
        try:
            while entries:
                event, handlers, context, done, outer = entries.popleft()
                if self._publishers:
                    self._wake_publisher()
                delivery = self._deliver(event, handlers, outer)
                try:
                    pending = context.run(delivery.send, None)
                except StopIteration as stop:
                    concurrent = stop.value
                else:
                    concurrent = await self._finish(context, delivery, pending, done)
                counts.handled += 1
                if done is not None:
                    _resolve(done, concurrent)
                handled += 1
                if handled % _BURST == 0 or (task is not None and task.cancelling()):
                    await _give_way(task)
        finally:
            if self._drain is task:
                self._drain = None
                self.settle()

    async def _finish(
        self,
        context: Context,
        delivery: HandlerCoroutine[list[asyncio.Task[None]]],
        pending: object,
        done: Done | None,
    ) -> list[asyncio.Task[None]]:
        try:
            return await resumed_in(context.run, delivery, pending)
        except BaseException:
            # Only the end of the loop comes here: handlers' own errors are dealt with.
            self._core.counts.dropped += 1
            if done is not None:
                done.cancel()
            raise

    async def _deliver(
        self, event: Event, handlers: tuple[Handler, ...], outer: Clock | None
    ) -> list[asyncio.Task[None]]:
        """Run the handlers one after the other; return the tasks of the concurrent ones."""
        frame = Frame(self, outer, Kind.ORDERED)
        AMBIENT.set((event.session_id, event.id, frame))
        concurrent: list[asyncio.Task[None]] = []
        for handler in handlers:
            if not handler.active:
                continue
            if self._cut is not None:
                self._core.counts.interrupted += 1
            elif handler.concurrent:
                concurrent.append(await self._start_concurrent(handler, event))
            else:
                await self._handle(handler, event, frame)
        frame.place = None
        return concurrent

    async def _handle(self, handler: Handler, event: Event, frame: Frame) -> None:
        run: Run | None = None
        try:
            call = handler.call(event)
            try:
                pending = call.send(None)
            except StopIteration:
                return
            run = self._run(handler, event, frame)
            self._handlers_running.add(run)
            await self._core.limiter.finish(run, call, pending)
        except asyncio.CancelledError as error:
            if run is not None and not run.own_cancellation():
                raise
            self._fail(handler, event, error)
        except (Exception, SystemExit) as error:
            self._fail(handler, event, error)
        finally:
            if run is not None:
                self._handlers_running.discard(run)

    def _run(self, handler: Handler, event: Event, frame: Frame) -> Run:
        seconds = handler.timeout
        if seconds is None:
            seconds = self._core.settings.event_timeout
        limiter = self._core.limiter
        return Run(limiter, frame, seconds, lambda: handler.late(event, seconds))

    # -- Handlers outside the order

    async def _start_concurrent(self, handler: Handler, event: Event) -> asyncio.Task[None]:
        limit = self._core.settings.concurrent_per_session
        while len(self._concurrent) >= limit:
            await asyncio.wait(self._concurrent, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.get_running_loop().create_task(self._handle_alone(handler, event))
        self._concurrent.add(task)
        task.add_done_callback(self._ended_alone)
        return task

    async def _handle_alone(self, handler: Handler, event: Event) -> None:
        frame = Frame(self, None, Kind.CONCURRENT)
        AMBIENT.set((event.session_id, event.id, frame))
        await self._handle(handler, event, frame)
        frame.place = None

    def _ended_alone(self, task: asyncio.Task[None]) -> None:
        self._concurrent.discard(task)
        if not self.busy:
            self.settle()

    # -- Failures

    def _fail(self, handler: Handler, event: Event, error: BaseException) -> None:
        """Report a handler's failure once: as an event, or in the log where nobody hears that."""
        self._core.counts.handlers_failed += 1
        name = qualified_name(handler.callback)
        if isinstance(event, EventHandlerFailedEvent):
            _log.error("%s failed to handle the failure of %s", name, event.handler, exc_info=error)
            return
        failed = EventHandlerFailedEvent(
            session_id=event.session_id, parent_id=event.id, event=event, handler=name, error=error
        )
        # After a session's last event its queue takes no more: the bus's own does.
        lane = self._root if self.ended and self._root is not None else self
        heard = lane.route(EventHandlerFailedEvent)
        if not (heard or self._core.observers):
            _log.error("%s failed to handle %r", name, event, exc_info=error)
        self._core.observe(failed)
        if heard:
            # Exempt from the bound: there are at most as many as failed handlers.
            lane.put(failed, heard)


def _resolve(done: Done, concurrent: list[asyncio.Task[None]]) -> None:
    """Resolve a publisher's future, after the concurrent handlers if there are any."""
    waiting = len(concurrent)

    def resolve(_: Any = None) -> None:
        nonlocal waiting
        waiting -= 1
        if waiting <= 0 and not done.done():
            done.set_result(None)

    if not concurrent:
        resolve()
    for task in concurrent:
        task.add_done_callback(resolve)


async def _give_way(task: asyncio.Task[None] | None) -> None:
    """Let others run; take back a cancellation that a handler did to the queue's own task."""
    cancelled = task is not None and task.cancelling() > 0
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if task is None or not cancelled:
            raise
    if task is not None and cancelled:
        for _ in range(task.cancelling()):
            task.uncancel()

"""One session id: its handlers, its queue, and the one task that empties it, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, TypeAlias

from llmgine.bus.core import Core
from llmgine.bus.frames import Frame
from llmgine.bus.handlers import Handler, qualified_name
from llmgine.bus.limits import HandlerCoroutine, Run
from llmgine.bus.registry import Registry
from llmgine.contracts.ambient import AMBIENT, Ambient
from llmgine.contracts.events import EventHandlerFailedEvent
from llmgine.contracts.messages import Event

__all__ = ["Lane"]

_log = logging.getLogger(__name__)

# How many events a lane handles before others get a turn on the loop.
_BURST = 64

# Seconds for the loop to come round after a handler was left behind.
_MOMENT = 0.1

_ENDED: Any = object()

Done: TypeAlias = asyncio.Future[None]
_Entry: TypeAlias = tuple[Event, tuple[Handler, ...], Context, Done | None, Ambient | None]


class _Delivery(Frame):
    """One event on its way through its handlers.

    Attributes:
        event: the event.
        handlers: those that haven't been called.
        handler: the one that runs.
        concurrent: tasks of the handlers outside the order.
    """

    __slots__ = ("concurrent", "event", "handler", "handlers", "lane", "suspended")

    kind = "ordered"

    def __init__(
        self, lane: Lane, event: Event, handlers: Iterator[Handler], outer: Ambient | None
    ) -> None:
        self.session_id = event.session_id
        self.parent_id = event.id
        self.lane = self.place = lane
        self.outer = outer
        self.pauses = 0
        self.clock = None
        self.event = event
        self.handlers = handlers
        self.handler: Handler | None = None
        self.suspended: Run | None = None
        self.concurrent: list[asyncio.Task[None]] = []

    def rest(self) -> _Delivery:
        """Return a delivery for the handlers that haven't been called."""
        return type(self)(self.lane, self.event, self.handlers, self.outer)


class _LoneDelivery(_Delivery):
    """One event on its way through one handler outside the order."""

    __slots__ = ()

    kind = "concurrent"


class Lane(Registry):
    """A first-in-first-out queue of events, one for each session id that has any.

    Attributes:
        entries: events that wait, each with its handlers and its publisher's context.
        closing: the session's exit has begun.
        ended: the session's last event has been queued.
        is_session: a `BusSession` holds this id open.
    """

    __slots__ = ("_concurrent", "_core", "_cut", "_drain", "_publishers",
                 "_retire", "_root", "_waiters", "closing", "ended",
                 "entries", "is_session")  # fmt: skip

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

    @property
    def commands_running(self) -> bool:
        """Whether a command of this session is being handled."""
        running = self._core.limiter.running(self) if self._core.opened else ()
        return bool(running) and any(run.frame.kind == "command" for run in running)

    async def idle(self, *, commands: bool) -> None:
        """Wait until no event waits or is handled, and, if asked, no command either."""
        while self.busy or (commands and self.commands_running):
            if self.entries and self._drain is None:
                self._start_drain()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def settle(self) -> None:
        """Tell those who wait for this lane that something has ended; go, if nothing is left."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if not (self.is_session or self.busy or self.commands_running or self.has_handlers):
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
        """Refuse all publishers that wait for room."""
        for publisher in self._publishers:
            if not publisher.done():
                publisher.set_exception(error)
        self._publishers.clear()

    def _next_publisher(self) -> None:
        while self._publishers:
            publisher = self._publishers.popleft()
            if not publisher.done():
                publisher.set_result(None)
                return

    # -- Cutting off

    def cut(self, error: Exception) -> None:
        """Interrupt everything under way, drop what waits, and count it."""
        self._cut = error
        self.turn_away(error)
        self._core.counts.dropped += len(self.entries)
        for _, _, _, done, _ in self.entries:
            if done is not None and not done.done():
                done.set_exception(error)
        self.entries.clear()
        for run in list(self._core.limiter.running(self)):
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
        outer: Ambient | None = None,
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
            while entries:
                event, handlers, context, done, outer = entries.popleft()
                if self._publishers:
                    self._next_publisher()
                delivery = _Delivery(self, event, iter(handlers), outer)
                coro = self._deliver(delivery)
                # Stepping by next() saves a StopIteration for each event that never suspends.
                pending = context.run(next, coro.__await__(), _ENDED)
                if pending is not _ENDED:
                    delivery = await self._finish(delivery, coro, context, pending, done)
                counts.handled += 1
                if done is not None:
                    _resolve(done, delivery.concurrent)
                handled += 1
                if handled % _BURST == 0 or (task is not None and task.cancelling()):
                    await _give_way(task)
        finally:
            if self._drain is task:
                self._drain = None
                self.settle()

    async def _deliver(self, delivery: _Delivery) -> None:
        """Call the handlers one after the other, unless the queue has gone on without this."""
        event = delivery.event
        AMBIENT.set(delivery)
        for handler in delivery.handlers:
            if not handler.active:
                continue
            if self._cut is not None:
                self._core.counts.interrupted += 1
                continue
            delivery.handler = handler
            failure: BaseException | None = None
            try:
                if handler.concurrent and delivery.kind == "ordered":
                    delivery.concurrent.append(await self._start_concurrent(handler, event))
                else:
                    await handler.call(event)
            except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001
                failure = error  # reported below, with the handler's name
            if delivery.place is None:
                return
            if delivery.suspended is not None:
                failure = self._settled(delivery, delivery.suspended, failure)
            if failure is not None:
                self._fail(handler, event, failure)
        delivery.place = None

    async def _finish(
        self,
        delivery: _Delivery,
        coro: HandlerCoroutine[None],
        context: Context,
        pending: object,
        done: Done | None = None,
    ) -> _Delivery:
        """Finish a delivery that has suspended; return the one that came to the end."""
        try:
            while not await self._stepped(delivery, coro, context, pending):
                delivery = delivery.rest()
                context = context.copy()
                coro = self._deliver(delivery)
                pending = context.run(next, coro.__await__(), _ENDED)
                if pending is _ENDED:
                    break
        except BaseException:
            # Only the end of the loop comes here: handlers' own errors are dealt with.
            self._core.counts.dropped += 1
            if done is not None:
                done.cancel()
            raise
        return delivery

    @coroutine
    def _stepped(
        self,
        delivery: _Delivery,
        coro: HandlerCoroutine[None],
        context: Context,
        pending: object,
    ) -> Generator[object, None, bool]:
        """Step a delivery on, each handler that suspends under its own limit.

        Returns False where a handler wouldn't stop: it goes on by itself, and others are left.
        The task stays the queue's, so `asyncio.timeout` and task groups work in handlers.
        """
        while True:
            run = delivery.suspended or self._suspend(delivery)
            error: BaseException | None = None
            try:
                yield pending
            except BaseException as thrown:  # noqa: BLE001 - the handler gets it
                error = thrown
            if error is not None and run.left:
                self._leave(delivery, run, coro, context, error)
                return False
            try:
                pending = run.step(context.run, coro, error)
            except StopIteration:
                return True

    def _suspend(self, delivery: _Delivery) -> Run:
        event, handler = delivery.event, delivery.handler
        if handler is None:
            message = f"nothing handles {event!r}, and yet it waits"
            raise RuntimeError(message)
        task = asyncio.current_task()
        run = delivery.suspended = self._core.limiter.suspend(delivery, self, task, handler, event)
        return run

    def _settled(
        self, delivery: _Delivery, run: Run, failure: BaseException | None
    ) -> BaseException | None:
        """End a handler's limit; return what it failed with, if it did.

        Raises:
            BaseException: the queue's own task was cancelled, from outside.
        """
        self._release(delivery)
        cut = run.settle()
        if cut is not None:
            cut.__cause__ = failure
            return cut
        if isinstance(failure, asyncio.CancelledError) and not run.cancelled_itself():
            raise failure
        return failure

    def _release(self, delivery: _Delivery) -> None:
        self._core.limiter.release(delivery, self)
        delivery.suspended = None

    def _leave(
        self,
        delivery: _Delivery,
        run: Run,
        coro: HandlerCoroutine[None],
        context: Context,
        error: BaseException,
    ) -> None:
        """Go on without a handler that ignores its cancellation."""
        delivery.place = None
        self._release(delivery)
        self._core.limiter.adopt(context.run, coro, error)
        cut = run.settle()
        if delivery.handler is not None and cut is not None:
            context.copy().run(self._fail, delivery.handler, delivery.event, cut)

    # -- Handlers outside the order

    async def _start_concurrent(self, handler: Handler, event: Event) -> asyncio.Task[None]:
        limit = self._core.settings.concurrent_per_session
        while len(self._concurrent) >= limit:
            await asyncio.wait(self._concurrent, return_when=asyncio.FIRST_COMPLETED)
        alone = self._handle_alone(handler, event, copy_context())
        task = asyncio.get_running_loop().create_task(alone, context=Context())
        self._concurrent.add(task)
        task.add_done_callback(self._ended_alone)
        return task

    async def _handle_alone(self, handler: Handler, event: Event, context: Context) -> None:
        delivery = _LoneDelivery(self, event, iter((handler,)), None)
        coro = self._deliver(delivery)
        pending = context.run(next, coro.__await__(), _ENDED)
        if pending is not _ENDED:
            await self._finish(delivery, coro, context, pending)

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
    waiting = max(1, len(concurrent))

    def resolve(_: Any = None) -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0 and not done.done():
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
        if not cancelled:
            raise
    if task is not None and cancelled:
        for _ in range(task.cancelling()):
            task.uncancel()

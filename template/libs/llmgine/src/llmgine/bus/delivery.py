"""Events in the hands of their handlers: one after the other, or each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Generator, Iterator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any

from llmgine.bus.core import Core
from llmgine.bus.frames import Frame, HandlerCoroutine
from llmgine.bus.handlers import Handler, qualified_name
from llmgine.bus.limits import Run
from llmgine.bus.registry import Registry
from llmgine.contracts.ambient import AMBIENT
from llmgine.contracts.events import EventHandlerFailedEvent
from llmgine.contracts.messages import Event

__all__ = ["ENDED", "Deliverer", "Delivery"]

_log = logging.getLogger(__name__)

ENDED: Any = object()
"""What a first step returns for a delivery that never suspends."""


class Delivery(Frame):
    """One event on its way through its handlers.

    Attributes:
        event: the event.
        handlers: those that haven't been called.
        handler: the one that runs.
        concurrent: tasks of the handlers outside the order.
        suspended: the limit of the one that runs, once it has suspended.
        cuts: how often its lane had been cut off when this began.
    """

    __slots__ = ("concurrent", "cuts", "event", "handler", "handlers", "lane", "suspended")

    kind = "ordered"

    def __init__(
        self, lane: Deliverer, event: Event, handlers: Iterator[Handler], outer: Frame | None
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
        self.concurrent: tuple[asyncio.Task[None], ...] = ()
        self.cuts = lane.cuts

    def rest(self) -> Delivery:
        """Return a delivery for the handlers that haven't been called."""
        rest = type(self)(self.lane, self.event, self.handlers, self.outer)
        rest.concurrent, rest.cuts = self.concurrent, self.cuts
        return rest


class _LoneDelivery(Delivery):
    """One event on its way through one handler outside the order."""

    __slots__ = ()

    kind = "concurrent"


class Deliverer(Registry):
    """How one scope's events get through their handlers; `Lane` adds the queue in front of it.

    Attributes:
        ended: the session's last event has been queued.
        cuts: how often what was under way here has been cut off.
    """

    __slots__ = ("_concurrent", "_core", "_root", "cuts", "ended")

    # `Lane` sets them: a constructor on each level would cost every session.
    ended: bool
    cuts: int
    _core: Core
    _root: Deliverer | None
    _concurrent: set[asyncio.Task[None]]

    def put(self, event: Event, handlers: tuple[Handler, ...]) -> None:
        """Queue an event."""
        raise NotImplementedError

    def settle(self) -> None:
        """Look what is left to do, now that something has ended."""
        raise NotImplementedError

    async def _deliver(self, delivery: Delivery) -> None:
        """Call the handlers one after the other, unless the queue has gone on without this."""
        event = delivery.event
        AMBIENT.set(delivery)
        for handler in delivery.handlers:
            if not handler.active:
                continue
            if delivery.cuts != self.cuts:
                self._core.counts.handlers_interrupted += 1
                continue
            delivery.handler = handler
            failure: BaseException | None = None
            try:
                if handler.concurrent and delivery.kind == "ordered":
                    await self._start_concurrent(handler, delivery)
                else:
                    await handler.call(event)
            except (Exception, SystemExit, asyncio.CancelledError) as error:
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
        delivery: Delivery,
        coro: HandlerCoroutine[None],
        context: Context,
        pending: object,
        done: asyncio.Future[None] | None = None,
    ) -> Delivery:
        """Finish a delivery that has suspended; return the one that came to the end."""
        try:
            while not await self._stepped(delivery, coro, context, pending):
                delivery = delivery.rest()
                context = context.copy()
                coro = self._deliver(delivery)
                pending = context.run(next, coro.__await__(), ENDED)
                if pending is ENDED:
                    break
        except BaseException:
            # Only the end of the loop comes here: handlers' own errors are dealt with.
            self._core.counts.events_dropped += delivery.kind == "ordered"
            if done is not None:
                done.cancel()
            raise
        return delivery

    @coroutine
    def _stepped(
        self, delivery: Delivery, coro: HandlerCoroutine[None], context: Context, pending: object
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
            except BaseException as thrown:
                error = thrown
            if error is not None and run.left:
                self._leave(delivery, run, coro, context, error)
                return False
            try:
                pending = run.step(context.run, coro, error)
            except StopIteration:
                return True

    def _suspend(self, delivery: Delivery) -> Run:
        event, handler = delivery.event, delivery.handler
        if handler is None:
            raise RuntimeError(f"nothing handles {event!r}, and yet it waits")
        # A concurrent handler that waits for a place hasn't begun, so its limit doesn't run yet.
        limit = math.inf if handler.concurrent and delivery.kind == "ordered" else None
        task = asyncio.current_task()
        run = self._core.limiter.suspend(delivery, self, task, handler, event, limit)
        delivery.suspended = run
        return run

    def _settled(
        self, delivery: Delivery, run: Run, failure: BaseException | None
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

    def _release(self, delivery: Delivery) -> None:
        self._core.limiter.release(delivery, self)
        delivery.suspended = None

    def _leave(
        self,
        delivery: Delivery,
        run: Run,
        coro: HandlerCoroutine[None],
        context: Context,
        error: BaseException,
    ) -> None:
        """Go on without a handler that ignores its cancellation."""
        delivery.place = None
        self._release(delivery)
        self._core.limiter.adopt(run, context.run, coro, error)
        cut = run.settle()
        if delivery.handler is not None and cut is not None:
            context.copy().run(self._fail, delivery.handler, delivery.event, cut)

    # -- Handlers outside the order

    async def _start_concurrent(self, handler: Handler, delivery: Delivery) -> None:
        limit = self._core.settings.concurrent_per_session
        while len(self._concurrent) >= limit:
            await asyncio.wait(self._concurrent, return_when=asyncio.FIRST_COMPLETED)
        lone = _LoneDelivery(self, delivery.event, iter((handler,)), delivery.outer)
        alone = self._handle_alone(lone, copy_context())
        task = asyncio.get_running_loop().create_task(alone, context=Context())
        delivery.concurrent += (task,)
        self._concurrent.add(task)
        task.add_done_callback(self._ended_alone)

    async def _handle_alone(self, delivery: Delivery, context: Context) -> None:
        coro = self._deliver(delivery)
        pending = context.run(next, coro.__await__(), ENDED)
        if pending is not ENDED:
            await self._finish(delivery, coro, context, pending)

    def _ended_alone(self, task: asyncio.Task[None]) -> None:
        self._concurrent.discard(task)
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

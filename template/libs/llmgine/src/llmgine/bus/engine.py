"""How a bus works: who is called for a message, and what happens before and after."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task, get_running_loop
from contextvars import Context, copy_context
from typing import Any

from llmgine.bus.core import Core
from llmgine.bus.frames import CommandFrame, HandlerCoroutine, enclosing, inside_bus, inside_place
from llmgine.bus.handlers import Handler, check_message_type, check_timeout
from llmgine.bus.lane import Lane
from llmgine.bus.registry import NOBODY, Audience
from llmgine.bus.report import command_result, command_started
from llmgine.contracts.ambient import AMBIENT, NOWHERE
from llmgine.contracts.messages import Command, Event, ResultT, Status
from llmgine.errors import (
    BusNotRunningError,
    LlmgineError,
    NoHandlerError,
    QueueFullError,
    SessionClosedError,
    WouldDeadlockError,
    WrongLoopError,
)
from llmgine.settings import BusSettings

__all__ = ["Engine"]


class Engine:
    """Executes commands and queues events: the part of a bus that every message goes through.

    Attributes:
        _core: what the lanes share.
        _root: the bus's own lane, whose handlers serve every session.
        _lanes: the lanes that exist, by session id; the root's id is None.
        _kept: events published while the bus wasn't running, for the next start.
        _stopping: `stop` has begun and isn't done.
    """

    def _set_up(self, settings: BusSettings) -> None:
        self._core = Core(settings)
        self._root = Lane(self._core, None, None, self._retire)
        self._lanes: dict[str | None, Lane] = {None: self._root}
        self._root.scopes = self._lanes
        self._kept: list[tuple[Event, Context]] = []
        self._stopping = False

    # -- Commands

    async def execute(self, command: Command[ResultT], *, timeout: float | None = None) -> ResultT:
        """Run the command's handler in this task, and return its result.

        Args:
            command: what is asked.
            timeout: seconds; by default the handler's limit, else the setting. `math.inf` none.

        Raises:
            NoHandlerError: nobody handles it.
            CommandTimeoutError: it took too long.
            BusNotRunningError: the bus isn't started, or is stopping.
            BusStoppedError: `stop` cut it off.
            SessionClosedError: its session is closing, or closed while it ran.
            Exception: whatever the handler raised.
        """
        core, root = self._core, self._root
        if core.loop is not get_running_loop():
            raise self._not_here("execute")
        lane = self._lanes.get(command.session_id, root)
        kind = type(command)
        handler = lane.commands.get(kind) or root.commands.get(kind)
        if handler is None:
            raise self._no_handler(command)
        if timeout is not None:
            check_timeout(timeout)
        audience = lane.audience
        if audience is None:
            audience = self._audience(lane)
        before = AMBIENT.get()
        frame = CommandFrame()
        frame.session_id, frame.parent_id = command.session_id, command.id
        frame.place, frame.pauses, frame.clock = lane, 0, None
        frame.outer = None if before is NOWHERE else enclosing(before)
        AMBIENT.set(frame)
        core.counts.commands += 1
        try:
            if audience is not NOBODY or core.observers:
                value = await self._observed(command, handler, frame, lane, timeout, audience)
            else:
                call = handler.call(command)
                try:
                    pending = call.send(None)
                except StopIteration as stop:
                    value = stop.value
                else:
                    value = await self._finished(
                        command, handler, frame, lane, timeout, call, pending
                    )
        except BaseException:
            core.counts.commands_failed += 1
            frame.place = None
            # A coroutine that is closed from elsewhere must not touch what is ambient there.
            if AMBIENT.get() is frame:
                AMBIENT.set(before)
            raise
        frame.place = None
        AMBIENT.set(before)
        return value

    def _audience(self, lane: Lane) -> Audience:
        if lane.guarded:
            self._admit(lane)
        return lane.listeners()

    async def _finished(
        self,
        command: Command[Any],
        handler: Handler,
        frame: CommandFrame,
        lane: Lane,
        timeout: float | None,
        call: HandlerCoroutine[Any],
        pending: object,
    ) -> Any:
        """Finish a handler that has suspended, under its limit.

        Raises:
            Exception: what it was cut off for, else what it raised.
        """
        limiter = self._core.limiter
        run = limiter.suspend(frame, lane, current_task(), handler, command, timeout)
        try:
            value = await limiter.driven(run, call, pending)
        except BaseException as error:
            run.end(error)
            raise
        else:
            run.end()
            return value
        finally:
            limiter.release(frame, lane)
            if lane.waited_for:
                lane.settle()

    async def _observed(
        self,
        command: Command[ResultT],
        handler: Handler,
        frame: CommandFrame,
        lane: Lane,
        timeout: float | None,
        audience: Audience,
    ) -> ResultT:
        """Run the handler between its two events.

        Both go to those who listened at the start, whatever changes meanwhile.
        """
        if audience is not NOBODY:
            # An id without a lane is given the root's handlers, but not the root's queue.
            own = lane.session_id == command.session_id
            while own and lane.full and not self._nested(frame):
                await self._room(lane)
        on_start, on_end = audience
        self._tell(command_started(command), on_start)
        began = time.perf_counter()
        try:
            call = handler.call(command)
            try:
                pending = call.send(None)
            except StopIteration as stop:
                value = stop.value
            else:
                value = await self._finished(command, handler, frame, lane, timeout, call, pending)
        except BaseException as error:
            took = time.perf_counter() - began
            ended = command_result(command, took, error=error, status=_status(error))
            self._tell(ended, on_end)
            raise
        self._tell(command_result(command, time.perf_counter() - began, value), on_end)
        return value

    def _nested(self, frame: CommandFrame) -> bool:
        outer = frame.outer
        return outer is not None and inside_bus(self._core, ambient=outer)

    def _no_handler(self, command: Command[Any]) -> NoHandlerError:
        self._core.counts.commands_unhandled += 1
        name = type(command).__qualname__
        where = "" if command.session_id is None else f" in session {command.session_id!r} or"
        return NoHandlerError(
            f"no handler for {name}{where} on the bus; "
            f"register one with register_command_handler({name}, handler)"
        )

    # -- Events

    async def publish(self, event: Event) -> None:
        """Queue an event; return when it is queued.

        Outside every handler this waits for room in a full queue (or refuses, by setting).

        Raises:
            QueueFullError: there is no room, and waiting isn't possible here.
            SessionClosedError: the event's session is closing.
            BusNotRunningError: the bus is stopping.
            WrongLoopError: the bus runs on another loop or thread.
        """
        core = self._core
        if core.loop is not get_running_loop():
            self._keep(event)
            return
        lane = self._lanes.get(event.session_id, self._root)
        if lane.guarded:
            self._admit(lane)
        kind = type(event)
        handlers = lane.routes.get(kind)
        if handlers is None:
            handlers = lane.route(kind)
        if handlers and (
            len(lane.entries) >= core.queue_size or lane.session_id != event.session_id
        ):
            lane = await self._lane_with_room(event.session_id)
        if core.observers:
            core.observe(event)
        if handlers:
            lane.put(event, handlers)

    async def publish_and_wait(self, event: Event) -> None:
        """Queue an event, and return when all its handlers are done.

        Raises:
            WouldDeadlockError: called from a handler that the queue waits for.
            BusNotRunningError: the bus isn't running.
            Exception: as `publish`; also what cut the event off.
        """
        loop = get_running_loop()
        if self._core.loop is not loop:
            raise self._not_here("publish_and_wait")
        lane = self._lanes.get(event.session_id, self._root)
        if lane.guarded:
            self._admit(lane)
        if inside_place(lane, "ordered"):
            raise WouldDeadlockError(
                f"a handler waits for {type(event).__qualname__}, which waits for that handler; "
                "use publish, or register the handler with concurrent=True"
            )
        handlers = lane.route(type(event))
        if not handlers:
            self._core.observe(event)
            return
        lane = await self._lane_with_room(event.session_id)
        self._core.observe(event)
        done: asyncio.Future[None] = loop.create_future()
        lane.put(event, handlers, done, enclosing(AMBIENT.get()))
        await done

    def _tell(self, event: Event, handlers: tuple[Handler, ...] | None = None) -> None:
        """Hand out an event, exempt from the bound of the queue.

        Args:
            event: the event.
            handlers: who hears it; by default whoever is registered now.
        """
        if self._core.observers:
            self._core.observe(event)
        if handlers is None:
            handlers = self._lanes.get(event.session_id, self._root).route(type(event))
        if handlers:
            self._lane(event.session_id).put(event, handlers)

    def _keep(self, event: Event) -> None:
        """Keep an event for the next start.

        Raises:
            WrongLoopError: the bus runs, but elsewhere.
            QueueFullError: as many are kept as a queue may hold.
        """
        loop = self._core.loop
        if loop is not None and not loop.is_closed():
            raise self._not_here("publish")
        limit = self._core.settings.queue_size
        if len(self._kept) >= limit:
            self._core.counts.events_refused += 1
            message = f"{limit} events wait for the bus to start; await bus.start() first"
            raise QueueFullError(message)
        check_message_type(type(event), Event)
        self._kept.append((event, copy_context()))

    def _deliver_kept(self) -> None:
        """Publish, each in its publisher's context, what was kept."""
        kept, self._kept = self._kept, []
        for event, context in kept:
            context.run(self._tell, event)

    async def _lane_with_room(self, session_id: str | None) -> Lane:
        while (lane := self._lane(session_id)).full and not self._may_exceed(lane):
            await self._room(lane)
        return lane

    async def _room(self, lane: Lane) -> None:
        await lane.room()
        if lane.guarded:
            self._admit(lane)

    def _may_exceed(self, lane: Lane) -> bool:
        """Decide about an event for a full queue.

        Inside a handler nobody waits, or two handlers could wait for each other for ever.

        Raises:
            QueueFullError: the event is refused, and counted.
        """
        settings = self._core.settings
        inside = inside_bus(self._core)
        if inside and len(lane.entries) < 2 * settings.queue_size:
            return True
        if inside or settings.overflow == "refuse":
            self._core.counts.events_refused += 1
            queue = "the bus" if lane.session_id is None else f"session {lane.session_id!r}"
            raise QueueFullError(f"the queue of {queue} is full: {len(lane.entries)} events wait")
        return False

    # -- Lanes

    def _lane(self, session_id: str | None) -> Lane:
        """Return the lane of an id, making it if need be. It goes when it has nothing left."""
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = Lane(self._core, session_id, self._root, self._retire)
            lane.guarded = self._stopping
        return lane

    def _retire(self, lane: Lane) -> None:
        if lane is not self._root and self._lanes.get(lane.session_id) is lane:
            del self._lanes[lane.session_id]

    # -- Refusals

    def _admit(self, lane: Lane) -> None:
        """Let work pass that finishes what is under way, while something closes.

        Raises:
            BusNotRunningError: the bus is stopping, and this comes from outside its handlers.
            SessionClosedError: the session is closing, and this comes from outside its handlers.
        """
        if self._stopping and not inside_bus(self._core):
            self._core.counts.events_refused += 1
            raise BusNotRunningError("the bus is stopping and takes no new work")
        if lane.closing and (lane.ended or not inside_place(lane)):
            self._core.counts.events_refused += 1
            message = f"session {lane.session_id!r} is closing and takes no new work"
            raise SessionClosedError(message)

    def _not_here(self, what: str) -> LlmgineError:
        """Return the error for a call from where the bus doesn't run."""
        loop = self._core.loop
        if loop is None or loop.is_closed():
            return BusNotRunningError(f"{what} needs a running bus: await bus.start() in this loop")
        return WrongLoopError(
            f"{what} was called outside the event loop that the bus was started in; "
            "from other threads and loops use bus.publish_threadsafe(event)"
        )


def _status(error: BaseException) -> Status:
    """Tell a cancellation by the caller from an error of the handler, its own cancel included."""
    if isinstance(error, GeneratorExit):
        return "cancelled"
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return "cancelled" if task is None or task.cancelling() else "error"
    return "error"

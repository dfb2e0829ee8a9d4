"""How a bus works: who is called for a message, and what happens before and after."""

from __future__ import annotations

import asyncio
import time
from asyncio import get_running_loop
from contextvars import Context, copy_context
from typing import Any

from llmgine.bus.core import Core
from llmgine.bus.frames import Frame, Kind, inside_bus, inside_place, open_frames
from llmgine.bus.handlers import Handler
from llmgine.bus.lane import Lane
from llmgine.bus.lifecycle import command_result, command_started
from llmgine.bus.limits import Run
from llmgine.bus.registry import NOBODY, Audience
from llmgine.contracts.ambient import AMBIENT
from llmgine.contracts.messages import Command, CommandResult, Event, ResultT, Status
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

_COMMAND = Kind.COMMAND


class Engine:
    """Executes commands and queues events. `MessageBus` adds what is around that.

    Attributes:
        core: what the lanes share.
        root: the bus's own lane, whose handlers serve every session.
        lanes: the lanes that exist, by session id; the root's id is None.
        kept: events published while the bus wasn't running, for the next start.
        stopping: `stop` has begun and isn't done.
    """

    def __init__(self, settings: BusSettings) -> None:
        self.core = Core(settings)
        self.root = Lane(self.core, None, None, self._retire)
        self.lanes: dict[str | None, Lane] = {None: self.root}
        self.kept: list[tuple[Event, Context]] = []
        self.stopping = False

    # -- Commands

    async def execute(self, command: Command[ResultT], timeout: float | None) -> ResultT:
        """Run the command's handler, here and now, in the caller's own task."""
        core = self.core
        if core.loop is not get_running_loop():
            raise self.not_here("execute")
        lane = self.lanes.get(command.session_id, self.root)
        kind = type(command)
        handler = lane.commands.get(kind) or self.root.commands.get(kind)
        if handler is None:
            raise self._no_handler(command)
        if lane.guarded:
            self.admit(lane)
        audience = lane.audience or lane.listeners()
        if audience is not NOBODY and lane.full and not inside_bus(core):
            await self._room(lane)
            return await self.execute(command, timeout)
        before = AMBIENT.get()
        frame = Frame(lane, before[2], _COMMAND)
        ambient = (command.session_id, command.id, frame)
        AMBIENT.set(ambient)
        core.counts.commands += 1
        try:
            if audience is NOBODY and not core.observers:
                return await self._handled(command, handler, frame, lane, timeout)
            return await self._observed(command, handler, frame, lane, timeout, audience)
        except BaseException:
            core.counts.commands_failed += 1
            raise
        finally:
            frame.place = None
            # A coroutine that is closed from elsewhere must not touch what is ambient there.
            if AMBIENT.get() is ambient:
                AMBIENT.set(before)

    async def _handled(
        self,
        command: Command[ResultT],
        handler: Handler,
        frame: Frame,
        lane: Lane,
        timeout: float | None,
    ) -> ResultT:
        call = handler.call(command)
        try:
            pending = call.send(None)
        except StopIteration as stop:
            return stop.value
        seconds = handler.timeout if timeout is None else timeout
        if seconds is None:
            seconds = self.core.settings.command_timeout
        limiter, limit = self.core.limiter, seconds
        run = Run(limiter, frame, limit, lambda: handler.late(command, limit))
        lane.commands_running.add(run)
        try:
            return await limiter.finish(run, call, pending)
        finally:
            lane.commands_running.discard(run)
            if lane.waited_for:
                lane.settle()

    async def _observed(
        self,
        command: Command[ResultT],
        handler: Handler,
        frame: Frame,
        lane: Lane,
        timeout: float | None,
        audience: Audience,
    ) -> ResultT:
        """Run the handler between its two events.

        Both go to those who listened at the start, whatever changes meanwhile.
        """
        on_start, on_end = audience
        self.tell(command_started(command), on_start)
        began = time.perf_counter()
        try:
            value = await self._handled(command, handler, frame, lane, timeout)
        except BaseException as error:
            took = time.perf_counter() - began
            result = CommandResult(error=error, status=_status(error), duration=took)
            self.tell(command_result(command, result), on_end)
            raise
        result = CommandResult(value=value, duration=time.perf_counter() - began)
        self.tell(command_result(command, result), on_end)
        return value

    def tell(self, event: Event, handlers: tuple[Handler, ...] | None = None) -> None:
        """Hand out an event, exempt from the bound of the queue.

        Args:
            event: the event.
            handlers: who hears it; by default whoever is registered now.
        """
        self.core.observe(event)
        if handlers is None:
            handlers = self.lanes.get(event.session_id, self.root).route(type(event))
        if handlers:
            self.lane(event.session_id).put(event, handlers)

    # -- Events

    async def publish(self, event: Event) -> None:
        """Queue an event for its handlers, waiting for room if need be."""
        if self.core.loop is not get_running_loop():
            self.keep(event)
            return
        lane = self.lanes.get(event.session_id, self.root)
        if lane.guarded:
            self.admit(lane)
        handlers = lane.route(type(event))
        if handlers:
            lane = self.lane(event.session_id)
            while lane.full and not self._may_exceed(lane):
                await self._room(lane)
                lane = self.lane(event.session_id)
            self.core.observe(event)
            lane.put(event, handlers)
        else:
            self.core.observe(event)

    async def publish_and_wait(self, event: Event) -> None:
        """Queue an event and wait until all its handlers are done."""
        loop = get_running_loop()
        if self.core.loop is not loop:
            raise self.not_here("publish_and_wait")
        lane = self.lanes.get(event.session_id, self.root)
        if lane.guarded:
            self.admit(lane)
        if inside_place(lane, Kind.ORDERED):
            message = (
                f"a handler waits for {type(event).__qualname__}, which waits for that handler; "
                "use publish, or register the handler with concurrent=True"
            )
            raise WouldDeadlockError(message)
        handlers = lane.route(type(event))
        if not handlers:
            self.core.observe(event)
            return
        lane = self.lane(event.session_id)
        while lane.full and not self._may_exceed(lane):
            await self._room(lane)
            lane = self.lane(event.session_id)
        self.core.observe(event)
        done: asyncio.Future[None] = loop.create_future()
        lane.put(event, handlers, done, next(open_frames(), None))
        await done

    def keep(self, event: Event) -> None:
        """Keep an event for the next start.

        Raises:
            WrongLoopError: the bus runs, but elsewhere.
            QueueFullError: as many are kept as a queue may hold.
        """
        loop = self.core.loop
        if loop is not None and not loop.is_closed():
            raise self.not_here("publish")
        limit = self.core.settings.queue_size
        if len(self.kept) >= limit:
            self.core.counts.refused += 1
            message = f"{limit} events wait for the bus to start; await bus.start() first"
            raise QueueFullError(message)
        self.kept.append((event, copy_context()))

    def deliver_kept(self) -> None:
        """Publish, each in its publisher's context, what was kept."""
        kept, self.kept = self.kept, []
        for event, context in kept:
            context.run(self.tell, event, self.root.route(type(event)))

    def _may_exceed(self, lane: Lane) -> bool:
        """Decide about an event for a full queue.

        Inside a handler nobody waits, or two handlers could wait for each other for ever.

        Raises:
            QueueFullError: the event is refused, and counted.
        """
        limit = self.core.settings.queue_size
        inside = inside_bus(self.core)
        if inside and len(lane.entries) < 2 * limit:
            return True
        if inside or self.core.settings.overflow == "refuse":
            self.core.counts.refused += 1
            queue = f"session {lane.session_id!r}" if lane.session_id is not None else "the bus"
            message = f"the queue of {queue} is full: {len(lane.entries)} events wait"
            raise QueueFullError(message)
        return False

    async def _room(self, lane: Lane) -> None:
        await lane.room()
        if lane.guarded:
            self.admit(lane)

    # -- Lanes

    def lane(self, session_id: str | None) -> Lane:
        """Return the lane of an id, making it if need be. It goes when it has nothing left."""
        lane = self.lanes.get(session_id)
        if lane is None:
            lane = self.lanes[session_id] = Lane(self.core, session_id, self.root, self._retire)
            lane.guarded = self.stopping
        return lane

    def _retire(self, lane: Lane) -> None:
        if lane is not self.root and self.lanes.get(lane.session_id) is lane:
            del self.lanes[lane.session_id]
            lane.detach()

    # -- Refusals

    def admit(self, lane: Lane) -> None:
        """Let work pass that finishes what is under way, while something closes.

        Raises:
            BusNotRunningError: the bus is stopping, and this comes from outside its handlers.
            SessionClosedError: the session is closing, and this comes from outside its handlers.
        """
        if self.stopping and not inside_bus(self.core):
            message = "the bus is stopping and takes no new work"
            raise BusNotRunningError(message)
        if lane.closing and (lane.ended or not inside_place(lane)):
            message = f"session {lane.session_id!r} is closing and takes no new work"
            raise SessionClosedError(message)

    def not_here(self, what: str) -> LlmgineError:
        """Return the error for a call from where the bus doesn't run."""
        loop = self.core.loop
        if loop is None or loop.is_closed():
            return BusNotRunningError(f"{what} needs a running bus: await bus.start() in this loop")
        return WrongLoopError(
            f"{what} was called outside the event loop that the bus was started in; "
            "from other threads and loops use bus.publish_threadsafe(event)"
        )

    def _no_handler(self, command: Command[Any]) -> NoHandlerError:
        self.core.counts.unhandled += 1
        name = type(command).__qualname__
        where = "" if command.session_id is None else f" in session {command.session_id!r} or"
        return NoHandlerError(
            f"no handler for {name}{where} on the bus; "
            f"register one with register_command_handler({name}, handler)"
        )


def _status(error: BaseException) -> Status:
    """Tell a cancellation by the caller from an error of the handler, its own cancel included."""
    if isinstance(error, GeneratorExit):
        return "cancelled"
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return "cancelled" if task is None or task.cancelling() else "error"
    return "error"

"""How a bus starts and stops: nothing new, then what is under way, then what is left is cut."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from dataclasses import asdict, replace

from llmgine.bus.frames import inside_bus
from llmgine.bus.report import BusStats, Counts, StopReport
from llmgine.bus.schedule import Schedule
from llmgine.bus.sessions import Sessions
from llmgine.contracts.messages import Event
from llmgine.contracts.protocols import Registration
from llmgine.errors import BusStoppedError, ConfigurationError, WouldDeadlockError, WrongLoopError
from llmgine.settings import BusSettings

__all__ = ["Lifetime"]


class Lifetime(Sessions):
    """A bus from start to stop, and from one start to the next."""

    def _set_up(self, settings: BusSettings) -> None:
        super()._set_up(settings)
        self._settings = settings
        self._schedule = Schedule(self.publish)
        self._stop: asyncio.Task[StopReport] | None = None
        self._since_start: list[Registration] = []
        self._unfinished: list[tuple[Event, Context]] = []

    # -- Start

    async def start(self, settings: BusSettings | None = None) -> None:
        """Start on the running event loop; events published before are delivered now.

        Starting a running bus does nothing; starting again after `stop`, or on a new loop when
        the old one has gone, is fine.

        Raises:
            ConfigurationError: it runs, with other settings.
            WrongLoopError: it runs on another loop.
        """
        loop, core = asyncio.get_running_loop(), self._core
        if self._stop is not None and core.loop is loop:
            await asyncio.shield(self._stop)
        if core.loop is loop:
            if settings not in {None, core.settings}:
                raise ConfigurationError(
                    "this bus runs already, with other settings; give the second user a bus of "
                    "its own: bus=MessageBus.isolated(settings)"
                )
            return
        self._open(loop, settings or self._settings)

    def _open(self, loop: asyncio.AbstractEventLoop, settings: BusSettings) -> None:
        core = self._core
        if core.loop is not None:
            self._forget_loop(core.loop)
        core.open(loop, settings)
        for lane in self._lanes.values():
            for handler in lane.handlers():
                handler.lasting = True
                handler.wire(core.threads, core.middlewares)
        self._deliver_unfinished()
        self._deliver_kept()
        self._schedule.start(loop)

    def _forget_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave a loop that went away without a `stop`; its queued events wait for the next start.

        Raises:
            WrongLoopError: the loop is running still.
        """
        if loop.is_running():
            raise WrongLoopError("this bus runs on another event loop; stop it there first")
        self._stop, self._stopping = None, False
        for lane in self._lanes.values():
            self._unfinished.extend((event, context) for event, _, context, _, _ in lane.entries)
            self._core.counts.events -= len(lane.entries)
        self._close_down()

    def _deliver_unfinished(self) -> None:
        """Queue again what a lost loop left in the queues; observers have seen it."""
        unfinished, self._unfinished = self._unfinished, []
        for event, context in unfinished:
            lane = self._lane(event.session_id)
            handlers = lane.route(type(event))
            if handlers:
                context.run(lane.put, event, handlers)
            else:
                lane.settle()

    # -- Stop

    async def stop(self) -> StopReport:
        """Take no new work, finish what is under way up to the drain limit, cut off the rest.

        Registrations made since `start` end. Stopping twice, or a bus that doesn't run, is fine.

        Raises:
            WouldDeadlockError: called from a handler of this bus, for which it would wait.
            WrongLoopError: the bus runs on another loop.
        """
        if inside_bus(self._core):
            message = "a handler can't wait for the bus to stop; ask the application to stop it"
            raise WouldDeadlockError(message)
        loop = self._core.loop
        if loop is None:
            return StopReport(events_scheduled=len(self._schedule))
        if loop is not asyncio.get_running_loop():
            self._forget_loop(loop)
            return StopReport(events_scheduled=len(self._schedule))
        if self._stop is None:
            self._stop = self._begin_to_stop(loop)
        return await asyncio.shield(self._stop)

    def _begin_to_stop(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[StopReport]:
        """Take no new work from this moment on."""
        self._stopping = True
        self._schedule.stop()
        for lane in self._lanes.values():
            lane.guard()
            lane.turn_away(_stopped())
        before = replace(self._core.counts)
        return loop.create_task(self._shut_down(before, time.perf_counter()))

    async def _shut_down(self, before: Counts, began: float) -> StopReport:
        counts = self._core.counts
        await self._drain()
        for lane in self._lanes.values():
            lane.drop(_stopped())
        report = StopReport(
            events_handled=counts.events_handled - before.events_handled,
            events_dropped=counts.events_dropped - before.events_dropped,
            handlers_interrupted=counts.handlers_interrupted - before.handlers_interrupted,
            handlers_abandoned=self._core.abandoned,
            events_scheduled=len(self._schedule),
            duration=time.perf_counter() - began,
        )
        self._stop, self._stopping = None, False
        self._close_down()
        return report

    async def _drain(self) -> None:
        """Finish everything, the sessions' last events included, within the limit and the grace."""
        settings = self._core.settings
        try:
            async with asyncio.timeout(settings.drain_timeout):
                await self._all_idle()
                self._end_sessions()
                await self._all_idle()
        except TimeoutError:
            await self._cut(settings.cancel_grace)
            self._end_sessions()
            try:
                async with asyncio.timeout(settings.cancel_grace / 2):
                    await self._all_idle()
            except TimeoutError:
                await self._cut(0.0)

    async def _all_idle(self) -> None:
        while busy := [lane for lane in self._lanes.values() if lane.active]:
            await busy[0].idle(commands=True)

    async def _cut(self, seconds: float) -> None:
        lanes = [lane for lane in self._lanes.values() if lane.active]
        for lane in lanes:
            lane.cut(_stopped())
        await asyncio.gather(*(lane.gone(seconds) for lane in lanes))

    def _end_sessions(self) -> None:
        for lane in list(self._lanes.values()):
            if lane.is_session:
                self._end_session(lane, None)

    def _close_down(self) -> None:
        """End what was registered since the start, and every lane that holds nothing else."""
        for lane in list(self._lanes.values()):
            lane.cancel_handlers(lasting=lane.is_session)
            lane.reset()
            lane.settle()
        for registration in self._since_start:
            registration.cancel()
        self._since_start.clear()
        self._core.close()

    # -- Now

    async def join(self) -> None:
        """Wait until every event published so far, and whatever it led to, is handled.

        Raises:
            WouldDeadlockError: called from an event's handler, for which it would wait.
            WrongLoopError: the bus runs on another loop.
        """
        if self._core.loop is not asyncio.get_running_loop():
            raise self._not_here("join")
        if inside_bus(self._core, "ordered", "concurrent"):
            message = "an event's handler can't wait for all events, itself among them"
            raise WouldDeadlockError(message)
        while busy := [lane for lane in self._lanes.values() if lane.busy]:
            await busy[0].idle(commands=False)

    def stats(self) -> BusStats:
        """Return the bus's numbers, as they are now; for any thread."""
        core, lanes = self._core, tuple(self._lanes.values())
        return BusStats(
            **asdict(core.counts),
            running=core.loop is not None and core.loop.is_running(),
            commands_in_flight=core.limiter.commands if core.opened else 0,
            events_queued=sum(len(lane.entries) for lane in lanes),
            events_kept=len(self._kept) + len(self._unfinished),
            events_scheduled=len(self._schedule),
            handlers_abandoned=core.abandoned,
            sessions=sum(lane.is_session for lane in lanes),
        )


def _stopped() -> BusStoppedError:
    return BusStoppedError("the bus stopped while this was under way")

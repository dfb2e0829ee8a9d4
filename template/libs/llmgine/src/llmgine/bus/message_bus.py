"""The bus as its users see it: `MessageBus`, and `BusSession` for one conversation on it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from llmgine.bus.engine import Engine
from llmgine.bus.frames import Kind, inside_bus
from llmgine.bus.handlers import check_message_type, check_timeout
from llmgine.bus.lane import Lane
from llmgine.bus.registrar import EventT, HandlerT, Registrar
from llmgine.bus.report import BusStats, StopReport
from llmgine.bus.schedule import Schedule
from llmgine.bus.sessions import check_session_id, close_session, open_session
from llmgine.bus.shutdown import forget_loop, shut_down
from llmgine.contracts.ambient import AMBIENT, Ambient
from llmgine.contracts.ids import new_id
from llmgine.contracts.messages import Command, Event, Message, ResultT
from llmgine.contracts.protocols import Handles, Registration
from llmgine.errors import (
    ConfigurationError,
    SessionClosedError,
    SessionMismatchError,
    WouldDeadlockError,
    WrongLoopError,
)
from llmgine.settings import BusSettings

__all__ = ["BusSession", "MessageBus"]

MessageT = TypeVar("MessageT", bound=Message)


class MessageBus(Registrar):
    """The process's message bus: `MessageBus() is MessageBus()`.

    Commands have one handler, which `execute` awaits directly; events have any number, which
    `publish` reaches through one queue per session. `MessageBus.isolated()` makes a bus of one's
    own, for tests and for embedding.
    """

    _singletons: ClassVar[dict[type[MessageBus], MessageBus]] = {}

    _schedule: Schedule
    _settings: BusSettings
    _stop: asyncio.Task[StopReport] | None

    def __new__(cls) -> Self:
        """Return the process's bus, making it at first."""
        bus = cls._singletons.get(cls)
        if not isinstance(bus, cls):
            bus = cls._singletons[cls] = cls.isolated()
        return bus

    @classmethod
    def isolated(cls, settings: BusSettings | None = None) -> Self:
        """Return a new bus that shares nothing with any other."""
        bus = super().__new__(cls)
        bus._settings = settings or BusSettings()
        bus.engine = Engine(bus._settings)
        bus._schedule = Schedule(bus.publish)
        bus.since_start = []
        bus.collections = []
        bus._stop = None
        return bus

    # -- Start and stop

    async def start(self, settings: BusSettings | None = None) -> None:
        """Start on the running event loop; events published before are delivered now.

        Starting a running bus does nothing; starting again after `stop`, or on a new loop when
        the old one has gone, is fine.

        Raises:
            ConfigurationError: it runs, with other settings.
            WrongLoopError: it runs on another loop.
        """
        if self._stop is not None:
            await asyncio.shield(self._stop)
        loop, core = asyncio.get_running_loop(), self.engine.core
        if core.loop is loop:
            if settings not in {None, core.settings}:
                message = (
                    "this bus runs already, with other settings; give the second user a bus of "
                    "its own: bus=MessageBus.isolated(settings)"
                )
                raise ConfigurationError(message)
            return
        if core.loop is not None:
            if core.loop.is_running():
                message = "this bus runs on another event loop; stop it there first"
                raise WrongLoopError(message)
            forget_loop(self.engine, self._schedule)
            self.end_registrations()
        core.open(loop, settings or self._settings)
        for lane in self.engine.lanes.values():
            for handler in lane.handlers():
                handler.lasting = True
                handler.wire(core.threads, core.middlewares)
        self.engine.deliver_kept()
        self._schedule.start(loop)

    async def stop(self) -> StopReport:
        """Take no new work, finish what is under way up to the drain limit, cut off the rest.

        Registrations made since `start` end. Stopping twice, or a bus that doesn't run, is fine.

        Raises:
            WouldDeadlockError: called from a handler of this bus, for which it would wait.
            WrongLoopError: the bus runs on another loop.
        """
        if inside_bus(self.engine.core):
            message = "a handler can't wait for the bus to stop; ask the application to stop it"
            raise WouldDeadlockError(message)
        loop = self.engine.core.loop
        if loop is None:
            return StopReport()
        if loop is not asyncio.get_running_loop():
            if loop.is_running():
                raise self.engine.not_here("stop")
            forget_loop(self.engine, self._schedule)
            self.end_registrations()
            return StopReport()
        if self._stop is None:
            self._stop = loop.create_task(self._shut_down())
        return await asyncio.shield(self._stop)

    async def _shut_down(self) -> StopReport:
        self.engine.stopping = True
        try:
            report = await shut_down(self.engine, self._schedule)
        finally:
            self.engine.stopping = False
            self._stop = None
        self.end_registrations()
        return report

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    # -- Messages

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
        return await self.engine.execute(command, check_timeout(timeout))

    async def publish(self, event: Event) -> None:
        """Queue an event; return when it is queued.

        Outside every handler this waits for room in a full queue (or refuses, by setting).

        Raises:
            QueueFullError: there is no room, and waiting isn't possible here.
            SessionClosedError: the event's session is closing.
            BusNotRunningError: the bus is stopping.
            WrongLoopError: the bus runs on another loop or thread.
        """
        await self.engine.publish(event)

    async def publish_and_wait(self, event: Event) -> None:
        """Queue an event, and return when all its handlers are done.

        Raises:
            WouldDeadlockError: called from a handler that the queue waits for.
            Exception: as `publish`; also what cut the event off.
        """
        await self.engine.publish_and_wait(event)

    def publish_threadsafe(self, event: Event) -> Future[None]:
        """Publish from another thread; the future ends when the event is queued.

        Raises:
            BusNotRunningError: the bus isn't running.
        """
        loop = self.engine.core.loop
        if loop is None or loop.is_closed():
            raise self.engine.not_here("publish_threadsafe")
        return asyncio.run_coroutine_threadsafe(self.publish(event), loop)

    def schedule(
        self, event: Event, *, at: datetime | None = None, after: float | None = None
    ) -> Registration:
        """Publish an event later: `at` a date with a time zone, or `after` so many seconds.

        It waits outside every queue, in memory, also while the bus is stopped.

        Raises:
            ConfigurationError: not exactly one time is given, or it can't be used.
        """
        check_message_type(type(event), Event)
        return self.collect(self._schedule.add(event, at, after))

    async def join(self) -> None:
        """Wait until every event published so far, and whatever it led to, is handled.

        Raises:
            WouldDeadlockError: called from an event's handler, for which it would wait.
            WrongLoopError: the bus runs on another loop.
        """
        engine = self.engine
        if engine.core.loop is not asyncio.get_running_loop():
            raise engine.not_here("join")
        if inside_bus(engine.core, Kind.ORDERED, Kind.CONCURRENT):
            message = "an event's handler can't wait for all events, itself among them"
            raise WouldDeadlockError(message)
        while busy := [lane for lane in engine.lanes.values() if lane.busy]:
            await busy[0].idle(commands=False)

    def session(self, session_id: str | None = None) -> BusSession:
        """Return a session on this bus, to be entered with `async with`."""
        return BusSession(session_id, bus=self)

    def stats(self) -> BusStats:
        """Return the bus's numbers, as they are now."""
        engine = self.engine
        core, counts, lanes = engine.core, engine.core.counts, engine.lanes.values()
        return BusStats(
            running=core.loop is not None and not core.loop.is_closed(),
            commands=counts.commands,
            commands_failed=counts.commands_failed,
            commands_unhandled=counts.unhandled,
            commands_in_flight=sum(len(lane.commands_running) for lane in lanes),
            events=counts.events,
            events_handled=counts.handled,
            events_queued=sum(len(lane.entries) for lane in lanes),
            events_dropped=counts.dropped,
            events_refused=counts.refused,
            events_kept=len(engine.kept),
            events_scheduled=len(self._schedule),
            handlers_failed=counts.handlers_failed,
            handlers_interrupted=counts.interrupted,
            handlers_abandoned=core.abandoned,
            observers_failed=counts.observers_failed,
            sessions=sum(lane.is_session for lane in lanes),
        )



class BusSession:
    """One conversation on a bus: its own handlers, its own order, gone without a trace at the end.

        async with BusSession() as session:
            session.register_event_handler(ReplyEvent, show)
            await session.execute(Ask(text="hello"))

    Inside the block the session is ambient: messages made there belong to it by themselves.

    Args:
        session_id: by default a new id.
        bus: by default the process's bus.

    Raises:
        InvalidSessionIdError: the id is empty, too long, or holds control characters.
    """

    def __init__(self, session_id: str | None = None, *, bus: MessageBus | None = None) -> None:
        self._bus = MessageBus() if bus is None else bus
        self._session_id = new_id() if session_id is None else check_session_id(session_id)
        self._lane: Lane | None = None
        self._before: Ambient = (None, None, None)
        self._ambient: Ambient = self._before

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._session_id

    @property
    def bus(self) -> MessageBus:
        """The bus that the session is on."""
        return self._bus

    async def __aenter__(self) -> Self:
        """Open the session: its start event comes before anything else.

        Raises:
            SessionOpenError: the id is open already.
            BusNotRunningError: the bus isn't started.
        """
        self._lane = open_session(self._bus.engine, self._session_id)
        self._before = AMBIENT.get()
        self._ambient = (self._session_id, self._before[1], self._before[2])
        AMBIENT.set(self._ambient)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the session's work, deliver its end event last, and forget it."""
        if AMBIENT.get() is self._ambient:
            AMBIENT.set(self._before)
        lane = self._lane
        # The bus may have stopped meanwhile, and have ended its sessions itself.
        if lane is not None and lane.is_session:
            await close_session(self._bus.engine, lane, error)

    def register_command_handler(
        self,
        command_type: Handles[HandlerT],
        handler: HandlerT,
        *,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` answer this session's commands of this type, before the bus's own.

        Raises:
            SessionClosedError: the session isn't open.
            LlmgineError: as `MessageBus.register_command_handler`.
        """
        self._check_open()
        return self._bus.register_command_handler(
            command_type, handler, session_id=self._session_id, timeout=timeout, inline=inline
        )

    def register_event_handler(
        self,
        event_type: type[EventT],
        handler: Callable[[EventT], object],
        *,
        priority: int = 0,
        concurrent: bool = False,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` hear this session's events of this type and its subclasses.

        Raises:
            SessionClosedError: the session isn't open.
            LlmgineError: as `MessageBus.register_event_handler`.
        """
        self._check_open()
        return self._bus.register_event_handler(
            event_type,
            handler,
            session_id=self._session_id,
            priority=priority,
            concurrent=concurrent,
            timeout=timeout,
            inline=inline,
        )

    async def execute(self, command: Command[ResultT], *, timeout: float | None = None) -> ResultT:
        """Run a command in this session; see `MessageBus.execute`.

        Raises:
            SessionClosedError: the session isn't open.
            SessionMismatchError: the command belongs to another session.
        """
        return await self._bus.execute(self._own(command), timeout=timeout)

    async def publish(self, event: Event) -> None:
        """Queue an event in this session; see `MessageBus.publish`.

        Raises:
            SessionClosedError: the session isn't open.
            SessionMismatchError: the event belongs to another session.
        """
        await self._bus.publish(self._own(event))

    async def publish_and_wait(self, event: Event) -> None:
        """Queue an event in this session and wait for its handlers.

        Raises:
            SessionClosedError: the session isn't open.
            SessionMismatchError: the event belongs to another session.
        """
        await self._bus.publish_and_wait(self._own(event))

    def _check_open(self) -> None:
        if self._lane is None or not self._lane.is_session:
            state = "isn't open yet" if self._lane is None else "has closed"
            message = f"session {self._session_id!r} {state}; use it inside its async with block"
            raise SessionClosedError(message)

    def _own(self, message: MessageT) -> MessageT:
        """Return the message if it is this session's; a copy that is, if it has none."""
        self._check_open()
        if message.session_id == self._session_id:
            return message
        if message.session_id is not None:
            error = (
                f"{type(message).__qualname__} belongs to session {message.session_id!r} and "
                f"can't be sent through {self._session_id!r}; make it inside this session"
            )
            raise SessionMismatchError(error)
        owned = copy.copy(message)
        object.__setattr__(owned, "session_id", self._session_id)
        return owned

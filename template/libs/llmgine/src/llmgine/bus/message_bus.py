"""The bus as its users see it: `MessageBus`, and `BusSession` for one conversation on it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from concurrent.futures import Future
from typing import ClassVar, Self, TypeVar

from llmgine.bus.frames import SessionAmbient
from llmgine.bus.lane import Lane
from llmgine.bus.registrar import EventT, HandlerT, Registrar
from llmgine.bus.sessions import check_session_id
from llmgine.contracts.ambient import AMBIENT, NOWHERE, Ambient
from llmgine.contracts.messages import Command, Event, Message, ResultT, new_id
from llmgine.contracts.protocols import Handles, Registration
from llmgine.errors import SessionClosedError, SessionMismatchError
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
        bus._set_up(settings or BusSettings())
        return bus

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def session(self, session_id: str | None = None) -> BusSession:
        """Return a session on this bus, to be entered with `async with`."""
        return BusSession(session_id, bus=self)

    def publish_threadsafe(self, event: Event) -> Future[None]:
        """Publish from another thread; the future ends when the event is queued.

        Raises:
            BusNotRunningError: the bus isn't running.
        """
        loop = self._core.loop
        if loop is None or loop.is_closed():
            raise self._not_here("publish_threadsafe")
        return asyncio.run_coroutine_threadsafe(self.publish(event), loop)


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
        self._before = NOWHERE
        self._ambient: Ambient | None = None

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
        self._lane = self._bus.open_session(self._session_id)
        self._before = AMBIENT.get()
        self._ambient = SessionAmbient(self._session_id, self._before)
        AMBIENT.set(self._ambient)
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        """Finish the session's work, deliver its end event last, and forget it."""
        if AMBIENT.get() is self._ambient:
            AMBIENT.set(self._before)
        lane = self._lane
        # The bus may have stopped meanwhile, and have ended its sessions itself.
        if lane is not None and lane.is_session:
            await self._bus.close_session(lane, error)

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
            raise self._not_open()

    def _not_open(self) -> SessionClosedError:
        state = "isn't open yet" if self._lane is None else "has closed"
        message = f"session {self._session_id!r} {state}; use it inside its async with block"
        return SessionClosedError(message)

    def _own(self, message: MessageT) -> MessageT:
        """Return the message if it is this session's; a copy that is, if it has none."""
        # `_check_open`, without a call for each message.
        if self._lane is None or not self._lane.is_session:
            raise self._not_open()
        if message.session_id == self._session_id:
            return message
        if message.session_id is not None:
            raise SessionMismatchError(
                f"{type(message).__qualname__} belongs to session {message.session_id!r} and "
                f"can't be sent through {self._session_id!r}; make it inside this session"
            )
        owned = copy.copy(message)
        object.__setattr__(owned, "session_id", self._session_id)
        return owned

"""What can be registered on a bus: handlers, middleware and observers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from llmgine.bus.handlers import Handler, check_callable, check_message_type, qualified_name
from llmgine.bus.lane import Lane
from llmgine.bus.lifetime import Lifetime
from llmgine.bus.sessions import check_session_id
from llmgine.contracts.messages import Command, Event
from llmgine.contracts.protocols import (
    Handles,
    Middleware,
    ObservabilitySink,
    Observer,
    Registration,
)
from llmgine.errors import ConfigurationError
from llmgine.settings import BusSettings

__all__ = ["EventT", "HandlerT", "Registrar"]

EventT = TypeVar("EventT", bound=Event)
HandlerT = TypeVar("HandlerT")


class _Undo:
    """A registration that is undone by a function."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def cancel(self) -> None:
        """Undo it; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Registrar(Lifetime):
    """The registrations of one bus."""

    def _set_up(self, settings: BusSettings) -> None:
        super()._set_up(settings)
        self._collections: list[list[Registration]] = []

    @contextmanager
    def collecting(self) -> Generator[list[Registration]]:
        """Collect whatever is registered in the block, for whoever wants to end it all together.

        with bus.collecting() as registrations:
            set_up(bus)
        ...
        for registration in registrations:
            registration.cancel()
        """
        collected: list[Registration] = []
        self._collections.append(collected)
        try:
            yield collected
        finally:
            # By identity: two empty lists are equal.
            self._collections = [each for each in self._collections if each is not collected]

    def _collect(self, registration: Registration) -> Registration:
        """Note a registration in every collection under way, and return it."""
        for collected in self._collections:
            collected.append(registration)
        return registration

    def register_command_handler(
        self,
        command_type: Handles[HandlerT],
        handler: HandlerT,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` answer commands of exactly this type.

        Args:
            command_type: a decorated subclass of `Command`.
            handler: takes the command and returns its result. `async def` runs on the loop,
                `def` in a thread of the bus.
            session_id: only for this session, where it comes before the bus's own handler.
            timeout: seconds a command may take; `math.inf` for no limit.
            inline: run a `def` handler on the loop; for quick ones that never block.

        Raises:
            DuplicateHandlerError: the type has its handler in this scope.
            InvalidMessageError: the type isn't a command, lacks its decorator, or the handler
                can't be called.
        """
        kind = check_message_type(command_type, Command)
        record = Handler(kind, check_callable(handler), timeout=timeout, inline=inline)
        self._scope(session_id).add_command(record)
        return self._registered(record)

    def register_event_handler(
        self,
        event_type: type[EventT],
        handler: Callable[[EventT], object],
        *,
        session_id: str | None = None,
        priority: int = 0,
        concurrent: bool = False,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` hear events of this type and its subclasses.

        Args:
            event_type: a decorated subclass of `Event`, or `Event` itself.
            handler: takes the event; what it returns goes nowhere. `async def` runs on the loop,
                `def` in a thread of the bus.
            session_id: only events of this session.
            priority: higher ones run first; equal ones in the order of registration.
            concurrent: run in a task of its own, outside the order of the queue.
            timeout: seconds that one event may take; `math.inf` for no limit.
            inline: run a `def` handler on the loop; for quick ones that never block.

        Raises:
            DuplicateHandlerError: this callable hears this type in this scope already.
            InvalidMessageError: the type isn't an event, lacks its decorator, or the handler
                can't be called.
        """
        record = Handler(
            check_message_type(event_type, Event),
            check_callable(handler),
            timeout=timeout,
            inline=inline,
            priority=priority,
            concurrent=concurrent,
        )
        self._scope(session_id).add_subscription(record)
        return self._registered(record)

    def add_middleware(self, middleware: Middleware) -> Registration:
        """Put code around every handler; the first one added is the outermost.

        Middleware with a method `observe` becomes an observer of the bus as well.

        Raises:
            ConfigurationError: the bus runs already.
        """
        core = self._core
        if core.loop is not None:
            message = f"add middleware before the bus starts: {qualified_name(middleware)}"
            raise ConfigurationError(message)
        core.middlewares = (*core.middlewares, middleware)
        watches = isinstance(middleware, ObservabilitySink)
        watching = self.add_observer(middleware.observe) if watches else None

        def undo() -> None:
            core.middlewares = tuple(m for m in core.middlewares if m is not middleware)
            if watching is not None:
                watching.cancel()

        return self._collect(_Undo(undo))

    def add_observer(self, observer: Observer) -> Registration:
        """Show every event to `observer`, in the publisher's own task, before it is queued.

        It must be quick and touch memory only. What it raises is logged and counted. It is spared
        events of a class with `observed = False`.
        """
        core = self._core
        core.observers = (*core.observers, observer)

        def undo() -> None:
            core.observers = tuple(o for o in core.observers if o is not observer)

        registration = _Undo(undo)
        if core.loop is not None:
            self._since_start.append(registration)
        return self._collect(registration)

    def schedule(
        self, event: Event, *, at: datetime | None = None, after: float | None = None
    ) -> Registration:
        """Publish an event later: `at` a date with a time zone, or `after` so many seconds.

        It waits outside every queue, in memory, also while the bus is stopped.

        Raises:
            ConfigurationError: not exactly one time is given, or it can't be used.
            WrongLoopError: the bus runs on another loop or thread.
        """
        loop = self._core.loop
        if loop is not None and loop.is_running() and not _runs_here(loop):
            raise self._not_here("schedule")
        check_message_type(type(event), Event)
        return self._collect(self._schedule.add(event, at, after))

    def _scope(self, session_id: str | None) -> Lane:
        return self._lane(None if session_id is None else check_session_id(session_id))

    def _registered(self, handler: Handler) -> Registration:
        core = self._core
        if core.loop is not None:
            handler.wire(core.threads, core.middlewares)
        return self._collect(handler)

"""Registered handlers: how each one is called, and for how long it may run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, TypeAlias

from llmgine.bus.frames import HandlerCoroutine
from llmgine.contracts.construction import quicken
from llmgine.contracts.messages import Command, Message
from llmgine.contracts.protocols import CallNext, Middleware
from llmgine.contracts.threads import WorkerThreads
from llmgine.errors import (
    CommandTimeoutError,
    ConfigurationError,
    EventTimeoutError,
    InvalidMessageError,
    UndecoratedMessageError,
)

__all__ = ["Handler", "check_callable", "check_message_type", "check_timeout", "qualified_name"]

_Call: TypeAlias = Callable[[Any], HandlerCoroutine[Any]]
"""A handler as the bus calls it: always a coroutine function."""


def qualified_name(handler: object) -> str:
    """Return a handler's name as errors and events show it: `package.module.Class.method`."""
    inner = handler
    while isinstance(inner, partial):
        inner = inner.func
    if callable(inner):
        inner = inspect.unwrap(inner)
    named = inner if isinstance(inner, type) or inspect.isroutine(inner) else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def check_message_type(message_type: object, base: type[Message]) -> type[Message]:
    """Return the type if it's a usable message class; from now on it is made faster.

    Raises:
        InvalidMessageError: it isn't a subclass of `base`.
        UndecoratedMessageError: it lacks its dataclass decorator.
    """
    if not isinstance(message_type, type) or not issubclass(message_type, base):
        raise InvalidMessageError(f"expected a subclass of {base.__name__}, got {message_type!r}")
    if "__dataclass_params__" not in vars(message_type):
        raise UndecoratedMessageError(message_type)
    quicken(message_type)
    return message_type


def check_timeout(timeout: float | None) -> None:
    """Look at a limit in seconds.

    Raises:
        ConfigurationError: it's zero, negative or no number.
    """
    if timeout is not None and not timeout > 0:
        message = f"timeout is in seconds and above 0 (math.inf for no limit), got {timeout!r}"
        raise ConfigurationError(message)


def _is_async(handler: Callable[..., object]) -> bool:
    if inspect.iscoroutinefunction(handler):
        return True
    return not inspect.isroutine(handler) and inspect.iscoroutinefunction(type(handler).__call__)


def check_callable(handler: object) -> Callable[[Any], Any]:
    """Return a handler as what can be called.

    Raises:
        InvalidMessageError: it can't, or nothing in it would run.
    """
    if not callable(handler):
        raise InvalidMessageError(f"a handler is a function of one message, got {handler!r}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise InvalidMessageError(
            f"{qualified_name(handler)} is a generator function, so nothing in it would run; "
            "return a value, or publish events"
        )
    return handler


@dataclass(eq=False, repr=False, slots=True)
class Handler:
    """One registration of a handler: the record that the bus calls, and what the user cancels.

    Attributes:
        message_type: the command or event type it was registered for.
        callback: the user's callable.
        call: the callable and the bus's middleware as one coroutine function.
        timeout: seconds, or None for the bus's setting.
        order: when it was registered, for ties in priority.
        lasting: it outlives `stop`, since it was registered before `start`.
        remove: takes it out of where it is registered.
    """

    message_type: type[Message]
    callback: Callable[[Any], Any]
    _: KW_ONLY
    timeout: float | None = None
    inline: bool = False
    priority: int = 0
    concurrent: bool = False
    order: int = 0
    lasting: bool = False
    active: bool = True
    call: _Call = field(init=False)
    remove: Callable[[Handler], None] | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that is none."""
        check_timeout(self.timeout)
        self.call = self._not_wired

    def __repr__(self) -> str:
        """Name the handler and what it is registered for."""
        return f"<{qualified_name(self.callback)} for {self.message_type.__qualname__}>"

    def cancel(self) -> None:
        """Undo the registration; events already queued pass the handler by."""
        self.active = False
        remove, self.remove = self.remove, None
        if remove is not None:
            remove(self)

    def wire(self, threads: WorkerThreads, middlewares: Sequence[Middleware]) -> None:
        """Build `call`, once, so that no message pays for it."""
        call = self._base(threads)
        for middleware in reversed(middlewares):
            call = _wrapped(middleware, call)
        self.call = call

    def late(self, message: Message, seconds: float) -> Exception:
        """Return the error for a run past its limit."""
        subject = type(message).__qualname__
        if isinstance(message, Command):
            text = f"{subject} was not answered by {qualified_name(self.callback)} in {seconds:g} s"
            return CommandTimeoutError(text)
        text = f"{qualified_name(self.callback)} did not finish {subject} in {seconds:g} s"
        return EventTimeoutError(text)

    def _base(self, threads: WorkerThreads) -> _Call:
        callback = self.callback
        if _is_async(callback):
            return callback
        if self.inline:
            return _inline(callback)
        return _threaded(callback, threads)

    async def _not_wired(self, message: Message) -> object:
        raise RuntimeError(f"{self!r} was called for {message!r} by a bus that has not started")


async def _awaited(value: object) -> object:
    """Return a plain function's result; where that is an awaitable, its result."""
    if inspect.isawaitable(value):
        return await value
    return value


def _inline(callback: Callable[[Any], object]) -> _Call:
    async def call(message: Message) -> object:
        return await _awaited(callback(message))

    return call


def _threaded(callback: Callable[[Any], object], threads: WorkerThreads) -> _Call:
    async def call(message: Message) -> object:
        return await _awaited(await threads.run(callback, message))

    return call


def _wrapped(middleware: Middleware, call_next: CallNext) -> _Call:
    if _is_async(middleware):
        # Its own coroutine: one in between would cost each message as much as the middleware.
        return lambda message: middleware(message, call_next)

    async def call(message: Message) -> object:
        return await middleware(message, call_next)

    return call

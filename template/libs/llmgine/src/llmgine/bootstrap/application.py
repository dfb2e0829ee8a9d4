"""The application: the one place where the rooms meet, from its start to its end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self, TypeAlias, TypeVar

from llmgine.bootstrap.answering import Answering
from llmgine.bootstrap.config import ApplicationConfig
from llmgine.bootstrap.wiring import Factory, Maker, called, fitting
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ContextStore,
    LLMProvider,
    Middleware,
    Registration,
    ResolvesApprovals,
    ResolveToolApproval,
    SessionEndEvent,
    ToolExecutor,
)
from llmgine.errors import BusNotRunningError, ConfigurationError, WouldDeadlockError
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.providers.usage import UsageLedger

__all__ = ["ApplicationBootstrap", "exit_on_wrong_settings"]

MiddlewareT = TypeVar("MiddlewareT")

_log = logging.getLogger(__name__)
_LAST = -1_000_000
_USAGE = 2
_EXIT_BASE = 128
_Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


class _SignalWatch:
    """Listens to signals from `open` to `close`, and gives them back as they were.

    The first signal calls `first`, on the event loop; the next ends the process at once with
    status 128 + its number, whatever is still under way.

    Args:
        first: what to do at the first signal.
        signals: what to listen to.

    Attributes:
        heard: the first signal, once it has come.
    """

    def __init__(self, first: Callable[[], None], signals: tuple[signal.Signals, ...]) -> None:
        self._first = first
        self._signals = signals
        self._before: dict[signal.Signals, _Handler] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.heard: signal.Signals | None = None

    def open(self) -> None:
        """Start listening; the main thread alone can."""
        self._loop = asyncio.get_running_loop()
        for each in self._signals:
            self._before[each] = signal.signal(each, self._heard)

    def close(self) -> None:
        """Stop listening."""
        for each, before in self._before.items():
            # Python knows no handler that it didn't install, and can't put it back.
            signal.signal(each, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.heard is not None or self._loop is None or self._loop.is_closed():
            # No clean-up: that is what hangs when somebody asks a second time.
            os._exit(_EXIT_BASE + number)
        self.heard = signal.Signals(number)
        self._loop.call_soon_threadsafe(self._first)


@dataclass(slots=True)
class _Wired:
    """What exists from `start` to `stop`."""

    observability: ObservabilityClient
    tools: ToolExecutor
    context: ContextStore
    provider: LLMProvider
    middleware: tuple[Middleware, ...]


class ApplicationBootstrap:
    """Wires an application's parts together, starts them, and stops them.

        app = ApplicationBootstrap(setup=assistant.register)
        async with app:
            await app.run_until_signal()

    Each part may be given: as an object, which is used and never closed, or as a factory that
    takes the `ApplicationConfig`. What isn't given comes from the settings, by a short name or as
    `package.module:factory`. A part that is made here and is an async context manager is entered
    at the start and left at the stop.

    Args:
        config: the settings; by default read from everywhere they may stand.
        bus: by default the process's own, `MessageBus()`. One that the application has to start
            is stopped with it.
        observability: who hands events to handlers. One that is given brings its own handlers:
            the settings `console` and `file` have no say in it.
        handlers: further observability handlers; always started and stopped, also when given.
        tools: who runs the tools that models call.
        context: who keeps the conversations.
        provider: who answers.
        setup: called with the application when everything is wired and nothing is started: the
            place to register handlers. What it registers ends with `stop`.

    Attributes:
        config: the settings.
        bus: the message bus.
        usage: what model calls take and cost, by session and altogether.
    """

    def __init__(
        self,
        config: ApplicationConfig | None = None,
        *,
        bus: MessageBus | Callable[[ApplicationConfig], MessageBus] | None = None,
        observability: ObservabilityClient | Factory[ObservabilityClient] | None = None,
        handlers: Iterable[ObservabilityEventHandler | Factory[ObservabilityEventHandler]] = (),
        tools: ToolExecutor | Factory[ToolExecutor] | None = None,
        context: ContextStore | Factory[ContextStore] | None = None,
        provider: LLMProvider | Factory[LLMProvider] | None = None,
        setup: Callable[[ApplicationBootstrap], None] | None = None,
    ) -> None:
        if inspect.iscoroutinefunction(setup):
            raise ConfigurationError("setup: expected a plain function, found a coroutine function")
        self.config = ApplicationConfig() if config is None else config
        self.bus = _chosen_bus(bus, self.config)
        self.usage = UsageLedger(self.config.budget)
        self._observability = observability
        self._handlers = tuple(handlers)
        self._tools = tools
        self._context = context
        self._provider = provider
        self._setup = setup
        self._wired: _Wired | None = None
        self._stack: AsyncExitStack | None = None
        self._starts_bus = False
        self._watch: _SignalWatch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_requested = asyncio.Event()

    @property
    def observability(self) -> ObservabilityClient:
        """The observability client, from `start` to `stop`."""
        return self._now().observability

    @property
    def tools(self) -> ToolExecutor:
        """Who runs tools, from `start` to `stop`."""
        return self._now().tools

    @property
    def context(self) -> ContextStore:
        """The context store, from `start` to `stop`."""
        return self._now().context

    @property
    def provider(self) -> LLMProvider:
        """The provider, from `start` to `stop`; it publishes every call's events on the bus."""
        return self._now().provider

    def middleware(self, kind: type[MiddlewareT]) -> MiddlewareT:
        """Return the middleware of a class that the settings have switched on.

            await app.middleware(DeadLetters).replay(app.bus)

        Raises:
            ConfigurationError: there is none.
        """
        for each in self._now().middleware:
            if isinstance(each, kind):
                return each
        name = kind.__name__
        raise ConfigurationError(f"middleware: no {name} is switched on by the settings")

    def _now(self) -> _Wired:
        if self._wired is None:
            text = "the application isn't started: use it inside `async with app`, or in `setup`"
            raise BusNotRunningError(text)
        return self._wired

    # -- Start and stop

    async def start(self) -> None:
        """Make and wire the parts, run `setup`, start the bus.

        Starting a running application does nothing. Where anything fails, what was started
        before it is stopped again.

        Raises:
            ConfigurationError: a part can't be made from the settings.
        """
        if self._stack is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._stop_requested = asyncio.Event()
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop what was started, in the reverse order: the bus first, observability last.

        The bus finishes what is under way, up to its limit. Stopping twice is fine.

        Raises:
            WouldDeadlockError: called from a handler of the bus; that calls `request_stop`.
        """
        stack, self._stack = self._stack, None
        if stack is None:
            return
        async with stack:
            try:
                if self._starts_bus:
                    await self._stop_bus()
            except WouldDeadlockError:
                self._stack = stack.pop_all()
                raise

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def run_until_signal(self, *signals: signal.Signals) -> signal.Signals | None:
        """Wait for a signal (by default SIGINT or SIGTERM) and return it.

        After `request_stop` the signal is `None`. Then leave the application's block, which stops
        it. Another signal during that ends the process at once, with status 128 + its number. For
        the main thread alone.
        """
        self._now()
        if self._watch is None:
            watched = signals or (signal.SIGINT, signal.SIGTERM)
            self._watch = _SignalWatch(self._stop_requested.set, watched)
            self._watch.open()
        await self._stop_requested.wait()
        return self._watch.heard

    def request_stop(self) -> None:
        """Let `run_until_signal` return; from any thread, and from any handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_requested.set)

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start part after part; the stack ends them in the reverse order."""
        stack.callback(self._forget)
        maker = Maker(self.config, self.bus, stack)
        answering = Answering(
            config=self.config, publisher=self.bus, ledger=self.usage, stack=stack
        )
        observability = maker.observability(self._observability, self._handlers)
        self._wired = _Wired(
            observability=observability,
            tools=await maker.tools(self._tools),
            context=await maker.part("context", ContextStore, self._context, maker.store),
            provider=await answering.provider(self._provider),
            middleware=maker.middleware(),
        )
        self._starts_bus = not self.bus.stats().running
        if self._starts_bus:
            # Where it was left on a loop that has gone, it forgets that now: what is registered
            # next must not count as registered since that start.
            await self.bus.stop()
        with self.bus.collecting() as registered:
            stack.callback(_cancel_all, registered)
            for middleware in self._now().middleware:
                self.bus.add_middleware(middleware)
            self.bus.add_observer(observability.observe)
            self._watch_bus(observability)
            self._answer_approvals()
            self._end_accounts()
            if self._setup is not None:
                self._setup(self)
        if self._starts_bus:
            stack.push_async_callback(self._stop_bus)
        # A bus that was made elsewhere keeps its settings, unless ours were set on purpose.
        await self.bus.start(self.config.bus if self.config.says("bus") else None)

    def _answer_approvals(self) -> None:
        tools = self.tools
        if isinstance(tools, ResolvesApprovals):
            self.bus.register_command_handler(
                ResolveToolApproval, tools.resolve_approval, inline=True
            )

    def _end_accounts(self) -> None:
        def forget(event: SessionEndEvent) -> None:
            self.usage.forget(event.session_id or "")

        # Last, so that whoever hears of a session's end can still see what it took.
        self.bus.register_event_handler(SessionEndEvent, forget, priority=_LAST, inline=True)

    def _watch_bus(self, observability: ObservabilityClient) -> None:
        watch, stats = observability.watch, self.bus.stats
        watch("llmgine.bus.events.queued", "{event}", lambda: stats().events_queued)
        watch("llmgine.bus.events.dropped", "{event}", lambda: stats().events_dropped, total=True)
        watch("llmgine.bus.events.refused", "{event}", lambda: stats().events_refused, total=True)

    async def _stop_bus(self) -> None:
        report = await self.bus.stop()
        if not report.clean:
            _log.warning("the bus stopped with work left: %s", report)

    def _forget(self) -> None:
        self._wired = None
        self._loop = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _chosen_bus(
    given: MessageBus | Callable[[ApplicationConfig], MessageBus] | None, config: ApplicationConfig
) -> MessageBus:
    if given is None:
        return MessageBus()
    if isinstance(given, MessageBus):
        return given
    return fitting("bus", MessageBus, called("bus", given, config))


def _cancel_all(registered: Iterable[Registration]) -> None:
    for registration in registered:
        registration.cancel()


@contextmanager
def exit_on_wrong_settings() -> Generator[None, None, None]:
    """Turn a `ConfigurationError` into its text on stderr and the exit status 2."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_USAGE) from None

"""Making an application's parts, each from what was given for it or from the settings."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from inspect import isclass
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from llmgine.bootstrap.config import ApplicationConfig
from llmgine.bootstrap.parts import (
    CONSOLE,
    EXECUTORS,
    FILE,
    MCP,
    MIDDLEWARE,
    OTEL,
    PROVIDERS,
    STORES,
    Room,
    named_factory,
)
from llmgine.contracts import Middleware, Publisher, ToolExecutor
from llmgine.errors import ConfigurationError
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.logs import bridged_logging

__all__ = ["Factory", "Maker", "called", "fitting"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class PublishingFactory(Protocol[T_co]):
    """Makes a part that tells others of events."""

    def __call__(self, config: ApplicationConfig, /, *, publisher: Publisher) -> T_co:
        """Make it; `publisher` is the application's bus."""
        ...


Factory: TypeAlias = Callable[[ApplicationConfig], T] | PublishingFactory[T]
"""Makes a part from the settings; with a parameter `publisher` it is given the bus as well."""

_log = logging.getLogger(__name__)


@runtime_checkable
class _Entered(Protocol):
    """A part with a beginning and an end."""

    async def __aenter__(self) -> object:
        """Begin."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """End."""
        ...


class Maker:
    """Makes parts, and has the stack end those that it made.

    Args:
        config: the settings.
        publisher: who is told of events.
        stack: ends the parts, last made first.
    """

    def __init__(
        self, config: ApplicationConfig, publisher: Publisher, stack: AsyncExitStack
    ) -> None:
        self._config = config
        self._publisher = publisher
        self._stack = stack

    async def part(
        self,
        what: str,
        kind: type[T],
        given: object,
        named: Callable[[], object] | None = None,
    ) -> T:
        """Return the part that was given, or make it; one made here is entered, and left later."""
        # A class has its instances' methods, so that it would pass for a part itself.
        if isinstance(given, kind) and not isclass(given):
            return given
        made = named() if given is None and named is not None else self._called(what, given)
        part = fitting(what, kind, made)
        if isinstance(part, _Entered):
            inner = AsyncExitStack()
            part = fitting(what, kind, await inner.enter_async_context(part))
            self._stack.push_async_callback(self._leave, what, inner)
        return part

    def observability(
        self,
        given: ObservabilityClient | Factory[ObservabilityClient] | None,
        handlers: Iterable[ObservabilityEventHandler | Factory[ObservabilityEventHandler]],
    ) -> ObservabilityClient:
        """Return the client that was given, or make one, and give it the handlers.

        One that is made here without a factory has those of the settings, too.
        """
        if isinstance(given, ObservabilityClient):
            client, added = given, list[ObservabilityEventHandler]()
            self._stack.push_async_callback(_take_out, client, added)
        else:
            client = self._client(given)
            added = list[ObservabilityEventHandler]()
        for each in handlers:
            handler = each
            if not isinstance(handler, ObservabilityEventHandler):
                made = self._called("handlers", handler)
                handler = fitting("handlers", ObservabilityEventHandler, made)
            client.add_handler(handler)
            added.append(handler)
        if (level := self._config.observability.logging) != "off":
            self._stack.enter_context(bridged_logging(client, level))
        return client

    def _client(self, factory: Factory[ObservabilityClient] | None) -> ObservabilityClient:
        if factory is not None:
            made = self._called("observability", factory)
            client = fitting("observability", ObservabilityClient, made)
            self._stack.push_async_callback(client.stop)
            return client
        client = ObservabilityClient(settings=self._config.observability)
        self._stack.push_async_callback(client.stop)
        for handler in self._configured_handlers():
            client.add_handler(handler)
        return client

    def provider(self) -> object:
        """Make the provider that the settings name."""
        settings = self._config.provider
        return self._named(PROVIDERS, settings.name, settings)

    def store(self) -> object:
        """Make the context store that the settings name."""
        settings = self._config.context
        return self._named(STORES, settings.store, settings, publisher=self._publisher)

    async def tools(self, given: object) -> ToolExecutor:
        """Return the tool executor, with the tools of the MCP servers that the settings name."""
        tools = await self.part("tools", ToolExecutor, given, self._executor)
        if self._config.mcp.servers:
            await self.part("mcp.servers", _Entered, None, lambda: self._mcp(tools))
        return tools

    def middleware(self) -> tuple[Middleware, ...]:
        """Make the bus's middleware that the settings switch on, the outermost first."""
        made: list[Middleware] = []
        config = self._config
        groups = (
            config.dead_letters,
            config.command_retry,
            config.circuit_breaker,
            config.rate_limit,
        )
        for (file, room), settings in zip(MIDDLEWARE.items(), groups, strict=True):
            if settings.enabled:
                made.append(fitting(room.setting, Middleware, room.build(file, settings)))
        return tuple(made)

    def _mcp(self, tools: ToolExecutor) -> object:
        return MCP.build(
            "mcp",
            self._config.mcp.servers,
            tools=tools,
            folder=self._config.folder,
            variables=self._config.provider.variables,
        )

    def _executor(self) -> object:
        """Make the tool executor that the settings name."""
        settings = self._config.tools
        return self._named(EXECUTORS, settings.executor, settings, publisher=self._publisher)

    def _named(self, room: Room, name: str, *arguments: object, **options: object) -> object:
        if ":" in name:
            return self._called(room.setting, named_factory(room.setting, name))
        return room.build(name, *arguments, **options)

    def _configured_handlers(self) -> Iterator[ObservabilityEventHandler]:
        config = self._config
        rooms = (
            (CONSOLE, "console", config.console),
            (FILE, "jsonl", config.file),
            (OTEL, "otel", config.otel),
        )
        for room, file, settings in rooms:
            # What was left out of the project is missed only where the settings speak of it.
            wanted = room.has(file) or config.says(room.setting.partition(".")[0])
            if settings.enabled and wanted:
                made = room.build(file, settings)
                yield fitting(room.setting, ObservabilityEventHandler, made)

    def _called(self, what: str, factory: object) -> object:
        """Call a factory with the settings, and with the bus where it has a parameter for it."""
        return called(what, factory, self._config, publisher=self._publisher)

    async def _leave(self, what: str, inner: AsyncExitStack) -> None:
        """Leave a part; one that hangs must not keep the application from stopping."""
        seconds = self._config.observability.stop_timeout
        try:
            async with asyncio.timeout(seconds):
                await inner.aclose()
        except TimeoutError:
            _log.error("%s was not closed in %g s", what, seconds)


async def _take_out(
    client: ObservabilityClient, added: Iterable[ObservabilityEventHandler]
) -> None:
    """Stop the handlers that were added to somebody else's client."""
    ours = [handler for handler in added if handler in client.handlers]
    for report in await asyncio.gather(*map(client.remove_handler, ours)):
        if report.dropped or report.unconfirmed:
            _log.warning("observability: %s", report)


def called(what: str, factory: object, config: ApplicationConfig, **offered: object) -> object:
    """Call a factory with the settings, and with what is offered where it has parameters for it.

    Raises:
        ConfigurationError: it can't be called so.
    """
    if not callable(factory):
        found = f"an object of type {type(factory).__name__}"
        raise ConfigurationError(f"{what}: expected a part or a factory, found {found}")
    try:
        signature = inspect.signature(factory)
        taken = {name: each for name, each in offered.items() if name in signature.parameters}
        signature.bind(config, **taken)
    except (TypeError, ValueError) as error:  # the latter where built-ins don't say what they take
        text = f"{what}: expected a factory that takes the ApplicationConfig, found: {error}"
        raise ConfigurationError(text) from None
    return factory(config, **taken)


def fitting(what: str, kind: type[T], part: object) -> T:
    """Return a part if it is of the kind that is needed.

    Raises:
        ConfigurationError: it isn't.
    """
    if isinstance(part, kind):
        return part
    found = type(part).__name__
    raise ConfigurationError(f"{what}: expected a {kind.__name__}, found an object of type {found}")

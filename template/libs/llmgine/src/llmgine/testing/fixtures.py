"""Fixtures for pytest: a bus, and applications on it, that leave nothing behind; and virtual time.

In the `conftest.py` of a folder of tests:

    from llmgine.testing.fixtures import bus, start_app

    __all__ = ["bus", "start_app"]

(or, in the one at the very top, `pytest_plugins = ["llmgine.testing.fixtures"]`).
Then a test asks for what it needs:

    async def test_greeting(bus: MessageBus) -> None:
        bus.register_command_handler(Greet, greet)
        assert await bus.execute(Greet(name="Ada")) == "Hello, Ada!"

    async def test_turn(start_app: StartApp) -> None:
        app = await start_app(provider=ScriptedProvider(["Hello!"]), setup=assistant.register)

Tests in which waiting takes no time run on a loop of their own:

    def test_a_search_is_tried_again() -> None:
        async def scenario() -> None:
            async with MessageBus.isolated() as bus:
                ...

        run_in_virtual_time(scenario())

Time goes by only while nothing is left to do, and then at once up to the next timer: a pause of an
hour is over in a moment, and no limit cuts short what is under way. What happens on other threads
or over connections isn't waited for, so that such tests belong on an ordinary loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

import pytest_asyncio

from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import MessageBus
from llmgine.contracts import ContextStore, LLMProvider, ToolExecutor
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.settings import BusSettings

__all__ = [
    "StartApp",
    "VirtualTimeLoop",
    "bus",
    "quiet_config",
    "run_in_virtual_time",
    "start_app",
]

T = TypeVar("T")

_DRAIN = 2.0


class _Parts(TypedDict, total=False):
    """What an application may be given; see `ApplicationBootstrap`."""

    observability: ObservabilityClient | None
    handlers: Iterable[ObservabilityEventHandler]
    tools: ToolExecutor | None
    context: ContextStore | None
    provider: LLMProvider | None
    setup: Callable[[ApplicationBootstrap], None] | None


class StartApp(Protocol):
    """What the fixture `start_app` gives: make and start an application on the test's bus."""

    async def __call__(
        self, config: ApplicationConfig | None = None, **parts: Unpack[_Parts]
    ) -> ApplicationBootstrap:
        """Start it; the fixture stops it."""
        ...


def quiet_config(**values: object) -> ApplicationConfig:
    """Return settings that read no file, and that neither print nor write events."""
    quiet = {"console": {"enabled": False}, "file": {"enabled": False}}
    return ApplicationConfig(settings_file=None, **{**quiet, **values})


@pytest_asyncio.fixture
async def bus() -> AsyncGenerator[MessageBus, None]:
    """A bus of the test's own, started; stopped at the end, with nothing left on it.

    Work that is still going on by then has two seconds to finish. The test fails if something
    has to be cut off, if a session is still open, or if an event is still scheduled.
    """
    own = MessageBus.isolated(BusSettings(drain_timeout=_DRAIN))
    await own.start()
    try:
        yield own
    finally:
        left = own.stats()
        report = await own.stop()
    assert left.sessions == 0, f"{left.sessions} session(s) left open"
    assert report.clean, f"work was cut off at the end of the test: {report}"
    assert report.events_scheduled == 0, f"{report.events_scheduled} event(s) left scheduled"


@pytest_asyncio.fixture
async def start_app(bus: MessageBus) -> AsyncGenerator[StartApp, None]:
    """A function that starts applications on the test's bus; they are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(
            config: ApplicationConfig | None = None, **parts: Unpack[_Parts]
        ) -> ApplicationBootstrap:
            app = ApplicationBootstrap(config or quiet_config(), bus=bus, **parts)
            return await stack.enter_async_context(app)

        yield start


class _Selector(selectors.SelectSelector):
    """Adds what would be waited for to its time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock begins at 0, and jumps to the next timer when nothing is left."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the seconds that have gone by."""
        return self._virtual.now


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, as `asyncio.run` does, without waiting."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)

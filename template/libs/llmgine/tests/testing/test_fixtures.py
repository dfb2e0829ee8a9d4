from __future__ import annotations

import pytest
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import SessionStartEvent
from llmgine.providers.scripted import ScriptedProvider
from llmgine.testing.fixtures import StartApp, quiet_config

pytest_plugins = ["pytester"]

SETTINGS = """
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = auto
"""

LEFT_OVER = """
import asyncio
from dataclasses import dataclass

from llmgine.contracts import Event

pytest_plugins = ["llmgine.testing.fixtures"]


@dataclass(frozen=True, kw_only=True)
class Tick(Event):
    pass


async def test_sound(bus):
    await bus.publish(Tick())


async def test_session(bus):
    await bus.session("left").__aenter__()


async def test_scheduled(bus):
    bus.schedule(Tick(), after=60)


async def test_stuck(bus):
    async def hang(event):
        await asyncio.Event().wait()

    bus.register_event_handler(Tick, hang)
    await bus.publish(Tick())
"""


async def test_the_bus_is_running_and_isolated(bus: MessageBus) -> None:
    assert bus.stats().running
    assert bus is not MessageBus()


async def test_applications_share_the_test_s_bus(bus: MessageBus, start_app: StartApp) -> None:
    provider = ScriptedProvider(["Hello!"])
    app = await start_app(provider=provider)
    assert app.bus is bus
    assert app.observability.handlers == ()
    await app.stop()  # one at a time: each answers for the calls that wait for approval
    other = await start_app(quiet_config(provider={"name": "scripted"}))
    assert other.bus is bus


async def test_an_application_s_setup_runs(start_app: StartApp) -> None:
    heard: list[SessionStartEvent] = []

    def setup(app: ApplicationBootstrap) -> None:
        app.bus.register_event_handler(SessionStartEvent, heard.append)

    app = await start_app(setup=setup)
    async with app.bus.session("one"):
        pass
    assert [event.session_id for event in heard] == ["one"]


def test_what_is_left_on_the_bus_fails_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmgine.testing.fixtures._DRAIN", 0.2)
    pytester.makepyfile(LEFT_OVER)
    pytester.makeini(SETTINGS)
    result = pytester.runpytest_inprocess("-q", "--tb=line", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*1 session(s) left open*",
            "*1 event(s) left scheduled*",
            "*work was cut off at the end of the test*",
        ]
    )

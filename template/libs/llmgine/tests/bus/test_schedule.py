"""Events for later: outside every queue until they are due."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Event
from llmgine.errors import ConfigurationError, InvalidMessageError
from llmgine.settings import BusSettings


@dataclass(frozen=True, kw_only=True)
class Due(Event):
    number: int = 0


class Arrivals:
    def __init__(self, bus: MessageBus) -> None:
        self.numbers: list[int] = []
        self._any = asyncio.Event()
        bus.register_event_handler(Due, self.arrive, inline=True)

    def arrive(self, event: Due) -> None:
        self.numbers.append(event.number)
        self._any.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.numbers) < count:
                self._any.clear()
                await self._any.wait()


async def test_events_arrive_after_so_many_seconds_in_the_order_of_their_times(
    bus: MessageBus,
) -> None:
    arrivals = Arrivals(bus)
    began = time.monotonic()
    bus.schedule(Due(number=2), after=0.04)
    bus.schedule(Due(number=1), after=0.02)
    bus.schedule(Due(number=0), after=0)
    assert bus.stats().events_scheduled == 3
    await arrivals.wait_for(3)
    assert arrivals.numbers == [0, 1, 2]
    assert time.monotonic() - began >= 0.04
    assert bus.stats().events_scheduled == 0


async def test_events_arrive_at_a_date_in_any_time_zone(bus: MessageBus) -> None:
    arrivals = Arrivals(bus)
    zone = timezone(timedelta(hours=-9))
    bus.schedule(Due(number=1), at=datetime.now(zone) + timedelta(seconds=0.5))
    bus.schedule(Due(number=0), at=datetime.now(UTC) - timedelta(days=1))
    await arrivals.wait_for(2)
    assert arrivals.numbers == [0, 1]


async def test_a_date_is_kept_though_the_clock_is_set(
    bus: MessageBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals = Arrivals(bus)
    real = time.time
    bus.schedule(Due(), at=datetime.now(UTC) + timedelta(seconds=0.02))
    monkeypatch.setattr(time, "time", lambda: real() - 0.03)
    await asyncio.sleep(0.03)
    assert arrivals.numbers == []
    await arrivals.wait_for(1)


async def test_a_cancelled_event_never_arrives(bus: MessageBus) -> None:
    arrivals = Arrivals(bus)
    cancelled = bus.schedule(Due(number=1), after=0.01)
    arriving = bus.schedule(Due(number=2), after=0.02)
    cancelled.cancel()
    cancelled.cancel()
    await arrivals.wait_for(1)
    arriving.cancel()
    assert arrivals.numbers == [2]


async def test_join_does_not_wait_for_what_is_not_due(bus: MessageBus) -> None:
    registration = bus.schedule(Due(), after=3600)
    async with asyncio.timeout(30):
        await bus.join()
    registration.cancel()


async def test_what_is_not_due_is_counted_and_kept_over_a_restart() -> None:
    bus = MessageBus.isolated()
    arrivals = Arrivals(bus)
    await bus.start()
    later = bus.schedule(Due(number=9), after=3600)
    bus.schedule(Due(number=1), after=0.01)
    report = await bus.stop()
    assert report.events_scheduled == 2
    await asyncio.sleep(0.02)
    assert (arrivals.numbers, bus.stats().events_scheduled) == ([], 2)
    assert (await bus.stop()).events_scheduled == 2
    await bus.start()
    await arrivals.wait_for(1)
    later.cancel()
    assert (await bus.stop()).events_scheduled == 0
    assert arrivals.numbers == [1]


@pytest.mark.parametrize("turns", range(5))
async def test_an_event_that_is_due_in_the_moment_of_a_stop_is_kept(turns: int) -> None:
    bus = MessageBus.isolated()
    arrivals = Arrivals(bus)
    await bus.start()
    bus.schedule(Due(number=1), after=0)
    time.sleep(0.001)  # noqa: ASYNC251 - due by the time the loop comes round
    for _ in range(turns):
        await asyncio.sleep(0)
    report = await bus.stop()
    assert len(arrivals.numbers) + report.events_scheduled == 1
    await bus.start()
    await arrivals.wait_for(1)
    await bus.stop()
    assert arrivals.numbers == [1]


async def test_events_may_be_scheduled_before_the_start() -> None:
    bus = MessageBus.isolated()
    arrivals = Arrivals(bus)
    bus.schedule(Due(number=3), after=0)
    async with bus:
        await arrivals.wait_for(1)


async def test_a_scheduled_event_that_is_refused_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    async def slow(event: Due) -> None:
        await release.wait()

    settings = BusSettings(queue_size=1, overflow="refuse")
    async with MessageBus.isolated(settings) as bus:
        bus.register_event_handler(Due, slow)
        for _ in range(3):
            bus.schedule(Due(), after=0)
        async with asyncio.timeout(30):
            while bus.stats().events_refused == 0:  # noqa: ASYNC110 - told of by nothing
                await asyncio.sleep(0)
        release.set()
    assert "was refused" in caplog.text


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), datetime.min])  # noqa: DTZ001, DTZ901
def test_a_date_without_a_time_zone_is_refused(at: datetime) -> None:
    with pytest.raises(ConfigurationError, match="time zone"):
        MessageBus.isolated().schedule(Due(), at=at)


@pytest.mark.parametrize("after", [-1, math.inf, math.nan])
def test_seconds_that_cannot_be_meant_are_refused(after: float) -> None:
    with pytest.raises(ConfigurationError, match="after="):
        MessageBus.isolated().schedule(Due(), after=after)


def test_exactly_one_time_is_needed() -> None:
    bus = MessageBus.isolated()
    with pytest.raises(ConfigurationError, match="either at= or after="):
        bus.schedule(Due())
    with pytest.raises(ConfigurationError, match="either at= or after="):
        bus.schedule(Due(), at=datetime.now(UTC), after=1)


def test_an_undecorated_event_is_refused_when_it_is_scheduled() -> None:
    class Undecorated(Event):
        pass

    with pytest.raises(InvalidMessageError):
        MessageBus.isolated().schedule(Undecorated(), after=1)

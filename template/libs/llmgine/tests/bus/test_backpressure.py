"""Full queues: outside publishers wait or are refused, handlers go over, nobody deadlocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Command, CommandResultEvent, Event
from llmgine.errors import QueueFullError, WouldDeadlockError
from llmgine.settings import BusSettings


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Other(Event):
    pass


@dataclass(frozen=True, kw_only=True)
class Act(Command[None]):
    pass


class Gate:
    """A handler that is held until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.numbers: list[int] = []

    async def __call__(self, event: Step) -> None:
        self.entered.set()
        await self.release.wait()
        self.numbers.append(event.number)

    async def fill(self, bus: MessageBus, session_id: str | None = None) -> None:
        """Have one event handled, and as many wait as there is room for."""
        await bus.publish(Step(number=-1, session_id=session_id))
        await self.entered.wait()
        while True:
            queued = bus.stats().events_queued
            if queued == 3:
                return
            await bus.publish(Step(number=queued, session_id=session_id))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def small(**values: Any) -> MessageBus:
    return MessageBus.isolated(BusSettings(queue_size=3, drain_timeout=2.0, **values))


def test_a_queue_holds_10000_events_by_default() -> None:
    assert (BusSettings().queue_size, BusSettings().overflow) == (10_000, "wait")


async def test_a_publisher_outside_waits_until_there_is_room(gate: Gate) -> None:
    async with small() as bus:
        bus.register_event_handler(Step, gate)
        await gate.fill(bus)
        waiting = [asyncio.create_task(bus.publish(Step(number=n))) for n in range(3, 9)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        assert bus.stats().events_queued == 3
        gate.release.set()
        await asyncio.gather(*waiting)
        await bus.join()
    assert gate.numbers == [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8]


async def test_publishers_to_an_id_without_a_session_all_get_their_turn(gate: Gate) -> None:
    async with MessageBus.isolated(BusSettings(queue_size=1)) as bus:
        bus.register_event_handler(Step, gate)
        publishers = [
            asyncio.create_task(bus.publish(Step(number=n, session_id="s"))) for n in range(6)
        ]
        await gate.entered.wait()
        gate.release.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*publishers)
            await bus.join()
    assert gate.numbers == list(range(6))


async def test_a_turn_that_is_not_used_goes_to_the_next_publisher(gate: Gate) -> None:
    done = asyncio.Event()

    async def act(command: Act) -> None:
        await done.wait()  # needs the publisher behind it to get through

    async def on_other(event: Other) -> None:
        done.set()

    async def on_result(event: CommandResultEvent) -> None:
        pass

    async with MessageBus.isolated(BusSettings(queue_size=1)) as bus:
        bus.register_event_handler(Step, gate)
        bus.register_event_handler(Other, on_other)
        bus.register_event_handler(CommandResultEvent, on_result)
        bus.register_command_handler(Act, act)
        await bus.publish(Step())
        await gate.entered.wait()
        await bus.publish(Step())
        acting = asyncio.create_task(bus.execute(Act()))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(bus.publish(Other()))
        await asyncio.sleep(0)
        gate.release.set()
        async with asyncio.timeout(30):
            await publishing
            await acting


async def test_a_cancelled_publisher_gives_its_turn_away(gate: Gate) -> None:
    async with small() as bus:
        bus.register_event_handler(Step, gate)
        await gate.fill(bus)
        waiting = [asyncio.create_task(bus.publish(Step(number=n))) for n in (100, 101)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.release.set()
        await asyncio.wait(waiting)
        assert waiting[0].cancelled()
        await waiting[1]
        await bus.join()
    assert gate.numbers == [-1, 0, 1, 2, 101]


async def test_by_setting_a_full_queue_refuses_and_counts(gate: Gate) -> None:
    async with small(overflow="refuse") as bus:
        bus.register_event_handler(Step, gate)
        await gate.fill(bus, session_id="s")
        for _ in range(4):
            with pytest.raises(QueueFullError, match="queue of session 's' is full: 3 events wait"):
                await bus.publish(Step(session_id="s"))
        with pytest.raises(QueueFullError):
            await bus.publish_and_wait(Step(session_id="s"))
        assert bus.stats().events_refused == 5
        gate.release.set()


async def test_inside_a_handler_events_go_over_up_to_twice_the_limit(bus: MessageBus) -> None:
    accepted: list[int] = []
    refusals: list[QueueFullError] = []

    async def burst(event: Step) -> None:
        for number in range(8):
            try:
                await small_bus.publish(Other())
                accepted.append(number)
            except QueueFullError as error:
                refusals.append(error)

    async def nothing(event: Other) -> None:
        pass

    async with small() as small_bus:
        small_bus.register_event_handler(Step, burst)
        small_bus.register_event_handler(Other, nothing)
        await small_bus.publish_and_wait(Step())
        assert accepted == [0, 1, 2, 3, 4, 5]
        assert len(refusals) == 2
        assert "the queue of the bus is full: 6 events wait" in str(refusals[0])
        assert small_bus.stats().events_refused == 2


@pytest.mark.parametrize("kind", ["command", "concurrent", "thread", "other session"])
async def test_any_handler_of_the_bus_counts_as_inside(gate: Gate, kind: str) -> None:
    async with small() as bus:
        bus.register_event_handler(Step, gate)
        await gate.fill(bus)

        async def publish(message: Act | Other) -> None:
            async with asyncio.timeout(30):
                await bus.publish(Step(number=7, session_id=None))

        def publish_from_thread(event: Other) -> None:
            bus.publish_threadsafe(Step(number=7, session_id=None)).result(2)

        async with asyncio.timeout(30):
            if kind == "command":
                bus.register_command_handler(Act, publish)
                await bus.execute(Act(session_id="a"))
            elif kind == "thread":
                bus.register_event_handler(Other, publish_from_thread)
                await bus.publish_and_wait(Other(session_id="a"))
            else:
                bus.register_event_handler(Other, publish, concurrent=kind == "concurrent")
                await bus.publish_and_wait(Other(session_id="a"))
        assert bus.stats().events_queued == 4
        gate.release.set()


async def test_a_handler_of_another_bus_is_outside(gate: Gate, bus: MessageBus) -> None:
    published = asyncio.Event()

    async def publish(event: Other) -> None:
        await other.publish(Step(number=9))
        published.set()

    async with small() as other:
        other.register_event_handler(Step, gate)
        await gate.fill(other)
        bus.register_event_handler(Other, publish)
        await bus.publish(Other())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not published.is_set()
        gate.release.set()
        await published.wait()


async def test_handlers_that_publish_into_each_others_full_queues_never_deadlock() -> None:
    handled = {"a": 0, "b": 0}
    refused = 0

    async def pass_on(event: Step) -> None:
        nonlocal refused
        handled[event.session_id or ""] += 1
        if event.number == 0:
            return
        other = "b" if event.session_id == "a" else "a"
        for _ in range(2):
            try:
                await bus.publish(Step(number=event.number - 1, session_id=other))
            except QueueFullError:
                refused += 1
        await asyncio.sleep(0)

    async with small() as bus:
        bus.register_event_handler(Step, pass_on)
        async with asyncio.timeout(30):
            for _ in range(10):
                await bus.publish(Step(number=5, session_id="a"))
                await bus.publish(Step(number=5, session_id="b"))
            await bus.join()
        stats = bus.stats()
        assert sum(handled.values()) == stats.events_handled == stats.events
        assert stats.events_refused == refused > 0
        assert stats.events_queued == 0


async def test_events_nobody_hears_take_no_room(gate: Gate) -> None:
    async with small() as bus:
        bus.register_event_handler(Step, gate)
        await gate.fill(bus)
        await bus.publish(Other())
        assert bus.stats().events_queued == 3
        gate.release.set()


Wait = Callable[[MessageBus], Coroutine[Any, Any, object]]


async def leave_session(bus: MessageBus) -> None:
    session = bus.session("s")
    await session.__aenter__()
    raised: list[WouldDeadlockError] = []

    async def leave(event: Other) -> None:
        try:
            await session.__aexit__(None, None, None)
        except WouldDeadlockError as error:
            raised.append(error)

    session.register_event_handler(Other, leave)
    await session.publish_and_wait(Other())
    await session.__aexit__(None, None, None)
    assert raised
    raise raised[0]


async def join(bus: MessageBus) -> None:
    await bus.join()


async def stop(bus: MessageBus) -> None:
    await bus.stop()


async def publish_and_wait(bus: MessageBus) -> None:
    await bus.publish_and_wait(Step())


@pytest.mark.parametrize("wait", [join, stop, publish_and_wait])
@pytest.mark.parametrize("through", ["event", "command in event", "thread", "child task"])
async def test_waiting_for_oneself_is_an_error(bus: MessageBus, wait: Wait, through: str) -> None:
    raised: list[WouldDeadlockError] = []

    async def attempt(message: Event | Command[None]) -> None:
        waiting = wait(bus)
        if through == "child task":
            waiting = asyncio.create_task(asyncio.wait_for(waiting, 30))
        with pytest.raises(WouldDeadlockError) as caught:
            await waiting
        raised.append(caught.value)

    async def by_command(event: Other) -> None:
        await bus.execute(Act())

    loop = asyncio.get_running_loop()

    def by_thread(event: Other) -> None:
        asyncio.run_coroutine_threadsafe(attempt(event), loop).result(3)

    bus.register_command_handler(Act, attempt)
    bus.register_event_handler(Step, print)
    handlers = {"command in event": by_command, "thread": by_thread}
    bus.register_event_handler(Other, handlers.get(through, attempt))
    async with asyncio.timeout(30):
        await bus.publish_and_wait(Other())
    assert len(raised) == 1
    assert str(raised[0])


async def test_stop_from_a_command_handler_is_an_error(bus: MessageBus) -> None:
    async def act(command: Act) -> None:
        await bus.stop()

    bus.register_command_handler(Act, act)
    with pytest.raises(WouldDeadlockError):
        await bus.execute(Act())


async def test_leaving_a_session_from_its_own_handler_is_an_error(bus: MessageBus) -> None:
    with pytest.raises(WouldDeadlockError, match="session 's'"):
        await leave_session(bus)


async def test_waiting_for_oneself_by_way_of_another_queue_is_an_error(bus: MessageBus) -> None:
    refused: list[WouldDeadlockError] = []

    async def on_step(event: Step) -> None:
        await bus.publish_and_wait(Other(session_id="b"))

    async def on_other(event: Other) -> None:
        try:
            await bus.publish_and_wait(Step(session_id="a"))
        except WouldDeadlockError as error:
            refused.append(error)

    bus.register_event_handler(Step, on_step)
    bus.register_event_handler(Other, on_other)
    async with asyncio.timeout(30):
        await bus.publish_and_wait(Step(session_id="a"))
    assert len(refused) == 1


async def test_a_concurrent_handler_that_is_waited_for_is_part_of_the_wait(bus: MessageBus) -> None:
    refused: list[WouldDeadlockError] = []

    async def on_step(event: Step) -> None:
        await bus.publish_and_wait(Other(session_id="b"))

    async def on_other(event: Other) -> None:
        try:
            await bus.publish_and_wait(Step(session_id="a"))
        except WouldDeadlockError as error:
            refused.append(error)

    bus.register_event_handler(Step, on_step)
    bus.register_event_handler(Other, on_other, concurrent=True)
    async with asyncio.timeout(30):
        await bus.publish_and_wait(Step(session_id="a"))
    assert len(refused) == 1


async def test_a_concurrent_handler_may_wait_for_its_own_queue(bus: MessageBus) -> None:
    heard: list[Event] = []

    async def waits(event: Other) -> None:
        await bus.publish_and_wait(Step())

    bus.register_event_handler(Step, heard.append, inline=True)
    bus.register_event_handler(Other, waits, concurrent=True)
    async with asyncio.timeout(30):
        await bus.publish(Other())
        await bus.join()
    assert len(heard) == 1


async def test_a_task_left_behind_by_a_handler_is_not_inside_any_more(bus: MessageBus) -> None:
    left: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def afterwards() -> None:
        await over.wait()
        await bus.publish_and_wait(Step())
        await bus.join()

    async def on_other(event: Other) -> None:
        left.append(asyncio.create_task(afterwards()))

    bus.register_event_handler(Step, print)
    bus.register_event_handler(Other, on_other)
    await bus.publish_and_wait(Other())
    over.set()
    async with asyncio.timeout(30):
        await left[0]


async def test_join_from_outside_a_handler_is_fine_in_a_command(bus: MessageBus) -> None:
    async def act(command: Act) -> None:
        await bus.publish(Step())
        await bus.join()

    bus.register_event_handler(Step, print)
    bus.register_command_handler(Act, act)
    await bus.execute(Act())

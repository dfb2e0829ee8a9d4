"""Stopping: drain, cut, report. Starting again, in this loop or another."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from llmgine.bus import MessageBus, StopReport
from llmgine.contracts import (
    Command,
    CommandResultEvent,
    Event,
    EventHandlerFailedEvent,
    Message,
    SessionEndEvent,
    SessionStartEvent,
)
from llmgine.errors import (
    BusNotRunningError,
    BusStoppedError,
    ConfigurationError,
    NoHandlerError,
    QueueFullError,
    SessionClosedError,
)
from llmgine.settings import BusSettings

SHORT = BusSettings(drain_timeout=0.05, cancel_grace=0.05)


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


async def echo(command: Ask) -> str:
    return command.text


async def hang(message: Message) -> str:
    await asyncio.Event().wait()
    return ""


def isolated(settings: BusSettings | None = None) -> tuple[MessageBus, list[int]]:
    bus = MessageBus.isolated(settings)
    numbers: list[int] = []

    def hear(event: Step) -> None:
        numbers.append(event.number)

    bus.register_event_handler(Step, hear, inline=True)
    return bus, numbers


# -- Stop


async def test_stop_drains_what_is_queued_and_reports_it() -> None:
    bus, numbers = isolated()
    await bus.start()
    for number in range(20):
        await bus.publish(Step(number=number, session_id=f"s{number % 3}"))
    report = await bus.stop()
    assert sorted(numbers) == list(range(20))
    assert report.clean
    assert (report.events_handled, report.events_dropped) == (20, 0)
    assert 0 <= report.duration < 30


async def test_stop_lets_commands_finish() -> None:
    bus, _ = isolated()
    await bus.start()
    entered = asyncio.Event()

    async def slow(command: Ask) -> str:
        entered.set()
        await asyncio.sleep(0.01)
        await bus.publish(Step())  # what finishes the work under way is taken
        return await bus.execute(Echo(text="done"))

    bus.register_command_handler(Ask, slow)
    bus.register_command_handler(Echo, echo)
    asking = asyncio.create_task(bus.execute(Ask()))
    await entered.wait()
    report = await bus.stop()
    assert await asking == "done"
    assert (report.clean, report.events_handled) == (True, 1)


@dataclass(frozen=True, kw_only=True)
class Echo(Ask):
    pass


async def test_while_stopping_new_work_is_refused() -> None:
    bus, _ = isolated()
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(event: SessionEndEvent) -> None:
        entered.set()
        await release.wait()

    bus.register_command_handler(Ask, echo)
    bus.register_event_handler(SessionEndEvent, slow)
    await bus.start()
    await bus.publish(SessionEndEvent())
    await entered.wait()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    for session_id in (None, "new"):
        with pytest.raises(BusNotRunningError, match="stopping"):
            await bus.execute(Ask(session_id=session_id))
        with pytest.raises(BusNotRunningError, match="stopping"):
            await bus.publish(Step(session_id=session_id))
        with pytest.raises(BusNotRunningError, match="stopping"):
            await bus.publish_and_wait(Step(session_id=session_id))
    with pytest.raises(BusNotRunningError, match="stopping"):
        async with bus.session():
            pass
    release.set()
    assert (await stopping).clean


async def test_at_its_limit_stop_cuts_off_and_reports_numbers() -> None:
    bus, numbers = isolated(SHORT)
    results: list[CommandResultEvent] = []
    failures: list[EventHandlerFailedEvent] = []
    bus.register_event_handler(CommandResultEvent, results.append, inline=True)
    bus.register_event_handler(EventHandlerFailedEvent, failures.append, inline=True)
    bus.register_event_handler(Step, hang, priority=-1)
    bus.register_command_handler(Ask, hang)
    await bus.start()
    for number in range(4):
        await bus.publish(Step(number=number))
    callers = [asyncio.create_task(bus.execute(Ask())) for _ in range(3)]
    await asyncio.sleep(0.01)
    report = await bus.stop()
    assert numbers == [0]
    assert report.events_dropped == 3
    assert report.handlers_interrupted == 4
    assert (report.handlers_abandoned, report.clean) == (0, False)
    assert 0.05 <= report.duration < 30
    for caller in callers:
        with pytest.raises(BusStoppedError):
            await caller
        assert caller.cancelling() == 0
    # Whoever listened hears how what was cut off ended.
    assert [type(event.result.error) for event in results] == [BusStoppedError] * 3
    assert [type(event.error) for event in failures] == [BusStoppedError]
    stats = bus.stats()
    assert stats.events == stats.events_handled + stats.events_dropped
    assert stats.events_queued == stats.commands_in_flight == 0


async def test_a_callers_task_goes_on_after_its_command_was_cut_off() -> None:
    bus, _ = isolated(SHORT)
    bus.register_command_handler(Ask, hang)
    await bus.start()

    async def caller() -> str:
        try:
            await bus.execute(Ask())
        except BusStoppedError:
            await asyncio.sleep(0.01)
            return "went on"
        return ""

    calling = asyncio.create_task(caller())
    await asyncio.sleep(0)
    await bus.stop()
    assert await calling == "went on"


async def test_waiting_publishers_are_let_go_by_a_stop() -> None:
    bus, _ = isolated(BusSettings(drain_timeout=0.05, cancel_grace=0.05, queue_size=1))
    bus.register_event_handler(Step, hang)
    await bus.start()
    await bus.publish(Step())
    await asyncio.sleep(0)
    waiting_for_handlers = asyncio.create_task(bus.publish_and_wait(Step()))
    await asyncio.sleep(0)
    waiting_for_room = asyncio.create_task(bus.publish(Step()))
    await asyncio.sleep(0)
    await bus.stop()
    for waiting in (waiting_for_handlers, waiting_for_room):
        with pytest.raises(BusStoppedError):
            await waiting
    assert (bus.stats().events_dropped, bus.stats().events_refused) == (1, 1)


@pytest.mark.parametrize("kind", ["command", "event", "concurrent"])
async def test_stop_returns_though_a_handler_ignores_it(kind: str) -> None:
    bus, _ = isolated(SHORT)
    released, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(message: Message) -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return ""

    await bus.start()
    calling: asyncio.Task[str] | None = None
    if kind == "command":
        bus.register_command_handler(Ask, stubborn)
        calling = asyncio.create_task(bus.execute(Ask()))
    else:
        bus.register_event_handler(Step, stubborn, concurrent=kind == "concurrent")
        await bus.publish(Step())
    await asyncio.sleep(0)
    report = await bus.stop()
    assert report.duration < 0.05 + 1
    assert (report.handlers_interrupted, report.handlers_abandoned) == (1, 1)
    if calling is not None:
        with pytest.raises(BusStoppedError):
            await calling
    released.set()
    await ended.wait()
    await asyncio.sleep(0)


async def test_events_that_breed_events_for_ever_do_not_hold_up_stop() -> None:
    bus = MessageBus.isolated(SHORT)

    async def breed(event: Step) -> None:
        await asyncio.sleep(0)
        await bus.publish(Step(number=event.number + 1))

    bus.register_event_handler(Step, breed)
    await bus.start()
    await bus.publish(Step())
    began = time.monotonic()
    report = await bus.stop()
    assert time.monotonic() - began < 30
    assert not report.clean
    stats = bus.stats()
    assert stats.events == stats.events_handled + stats.events_dropped


async def test_stopping_twice_or_before_a_start_is_fine() -> None:
    bus, _ = isolated()
    assert await bus.stop() == StopReport()
    await bus.start()
    await bus.stop()
    assert await bus.stop() == StopReport()


async def test_stops_at_the_same_time_are_one_stop() -> None:
    bus, numbers = isolated()

    async def slow(event: Step) -> None:
        await asyncio.sleep(0.01)

    bus.register_event_handler(Step, slow)
    await bus.start()
    await bus.publish(Step())
    reports = await asyncio.gather(bus.stop(), bus.stop(), bus.stop())
    assert reports[0] is reports[1] is reports[2]
    assert (reports[0].events_handled, numbers) == (1, [0])


async def test_a_cancelled_stop_goes_on_in_the_background() -> None:
    bus, _ = isolated()
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(event: Step) -> None:
        entered.set()
        await release.wait()

    bus.register_event_handler(Step, slow)
    await bus.start()
    await bus.publish(Step())
    await entered.wait()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    release.set()
    assert (await bus.stop()).events_handled == 1
    assert not bus.stats().running


async def test_stop_ends_open_sessions_with_their_last_event() -> None:
    bus, _ = isolated()
    ends: list[str | None] = []

    def on_end(event: SessionEndEvent) -> None:
        ends.append(event.session_id)

    bus.register_event_handler(SessionEndEvent, on_end, inline=True)
    await bus.start()
    async with bus.session("s") as session:
        await bus.stop()
        assert ends == ["s"]
        with pytest.raises(SessionClosedError):
            await session.publish(Step())
    assert ends == ["s"]
    assert bus.stats().sessions == 0


async def test_a_session_left_while_the_bus_stops_ends_once() -> None:
    bus, _ = isolated()
    ends: list[Event] = []
    entered = asyncio.Event()

    async def on_end(event: SessionEndEvent) -> None:
        ends.append(event)
        entered.set()
        await asyncio.sleep(0.01)

    observed: list[Event] = []
    bus.add_observer(observed.append)
    bus.register_event_handler(SessionEndEvent, on_end)
    await bus.start()
    session = bus.session("s")
    await session.__aenter__()
    stopping = asyncio.create_task(bus.stop())
    await entered.wait()
    await session.__aexit__(None, None, None)
    await stopping
    assert len(ends) == 1
    assert [type(event) for event in observed] == [SessionStartEvent, SessionEndEvent]


async def test_sessions_that_close_while_the_bus_stops_do_not_hang() -> None:
    bus, _ = isolated(BusSettings(drain_timeout=1, cancel_grace=0.05))
    bus.register_event_handler(SessionEndEvent, print)
    await bus.start()

    async def converse() -> None:
        async with bus.session() as session:
            await session.publish(Step())

    conversations = [asyncio.create_task(converse()) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await bus.stop()
        await asyncio.wait(conversations)


# -- Registrations


async def test_registrations_since_start_end_with_stop_and_earlier_ones_stay() -> None:
    bus, numbers = isolated()
    seen: list[Event] = []
    early: list[Event] = []
    bus.register_command_handler(Ask, echo)
    bus.add_observer(early.append)
    await bus.start()
    late = [
        bus.register_event_handler(Step, seen.append, inline=True),
        bus.register_event_handler(Step, seen.append, session_id="s", inline=True),
        bus.register_command_handler(Echo, echo),
        bus.add_observer(seen.append),
    ]
    await bus.stop()
    await bus.start()
    await bus.publish(Step(number=7, session_id="s"))
    assert await bus.execute(Ask(text="stays")) == "stays"
    with pytest.raises(NoHandlerError):
        await bus.execute(Echo())
    await bus.stop()
    assert (numbers, seen) == ([7], [])
    assert early
    for registration in late:
        registration.cancel()


async def test_a_session_registration_made_before_start_waits_for_its_session() -> None:
    bus = MessageBus.isolated()
    heard: list[Event] = []
    bus.register_event_handler(Step, heard.append, session_id="s", inline=True)
    async with bus:
        await bus.publish(Step())
        await bus.publish(Step(session_id="s"))
    assert len(heard) == 1


# -- Start


async def test_starting_a_running_bus_does_nothing() -> None:
    bus, _ = isolated(SHORT)
    await bus.start()
    await bus.start()
    await bus.start(SHORT)
    with pytest.raises(ConfigurationError, match=r"bus=MessageBus\.isolated\(settings\)"):
        await bus.start(BusSettings())
    await bus.stop()


async def test_settings_given_to_start_hold_for_that_span() -> None:
    bus = MessageBus.isolated()
    bus.register_command_handler(Ask, hang)
    await bus.start(BusSettings(command_timeout=0.02))
    with pytest.raises(TimeoutError, match=r"0\.02 s"):
        await bus.execute(Ask())
    await bus.stop()
    await bus.start(BusSettings(command_timeout=0.03))
    with pytest.raises(TimeoutError, match=r"0\.03 s"):
        await bus.execute(Ask())
    await bus.stop()


async def test_restart_in_the_same_loop() -> None:
    bus, numbers = isolated()
    for round_number in range(3):
        async with bus:
            assert bus.stats().running
            await bus.publish(Step(number=round_number))
            async with bus.session("s"):
                pass
        assert not bus.stats().running
    assert numbers == [0, 1, 2]


async def test_a_start_during_a_stop_waits_for_it() -> None:
    bus, numbers = isolated()
    await bus.start()
    await bus.publish(Step(number=1))
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    await bus.start()
    assert stopping.done()
    await bus.publish_and_wait(Step(number=2))
    await bus.stop()
    assert numbers == [1, 2]


async def test_commands_need_a_running_bus() -> None:
    bus, _ = isolated()
    bus.register_command_handler(Ask, echo)
    for _ in range(2):
        with pytest.raises(BusNotRunningError, match=r"await bus\.start\(\)"):
            await bus.execute(Ask())
        with pytest.raises(BusNotRunningError):
            await bus.publish_and_wait(Step())
        with pytest.raises(BusNotRunningError):
            await bus.join()
        async with bus:
            pass


async def test_events_before_start_are_kept_then_delivered_in_order() -> None:
    bus, numbers = isolated()
    seen: list[Event] = []
    bus.add_observer(seen.append)
    for number in range(5):
        await bus.publish(Step(number=number))
    assert (bus.stats().events_kept, numbers, seen) == (5, [], [])
    await bus.start()
    assert bus.stats().events_kept == 0
    await bus.publish(Step(number=5))
    await bus.stop()
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert len(seen) == 6


async def test_kept_events_past_the_queues_size_are_refused_and_counted() -> None:
    bus, numbers = isolated(BusSettings(queue_size=2))
    for number in range(2):
        await bus.publish(Step(number=number))
    with pytest.raises(QueueFullError, match=r"await bus\.start\(\) first"):
        await bus.publish(Step(number=2))
    assert bus.stats().events_refused == 1
    async with bus:
        pass
    assert numbers == [0, 1]


# -- New loops


def test_a_new_loop_after_a_stop_is_fine() -> None:
    bus, numbers = isolated()

    async def main(number: int) -> None:
        async with bus:
            await bus.publish(Step(number=number))

    for number in range(3):
        asyncio.run(main(number))
    assert numbers == [0, 1, 2]


def test_a_new_loop_without_a_stop_is_fine_and_keeps_what_was_queued() -> None:
    bus, numbers = isolated()
    seen: list[Event] = []
    bus.add_observer(seen.append)
    bus.register_command_handler(Ask, echo)

    async def main(number: int) -> None:
        await bus.start()
        assert await bus.execute(Ask(text="works")) == "works"
        await bus.publish(Step(number=number))
        await bus.publish(Step(number=number + 10, session_id="s"))

    for number in range(3):
        asyncio.run(main(number))

    async def last() -> None:
        async with bus:
            pass

    assert bus.stats().running is False
    asyncio.run(last())
    assert sorted(numbers) == [0, 1, 2, 10, 11, 12]
    assert len([event for event in seen if isinstance(event, Step)]) == 6
    stats = bus.stats()
    assert stats.events == stats.events_handled + stats.events_dropped == 6
    assert stats.events_kept == 0


def test_a_loop_that_ends_amid_work_leaves_a_bus_that_starts_again() -> None:
    bus, numbers = isolated()
    bus.register_command_handler(Ask, hang)
    results: list[CommandResultEvent] = []
    steps: list[Step] = []

    def observe(event: Event) -> None:
        if isinstance(event, CommandResultEvent):
            results.append(event)
        elif isinstance(event, Step):
            steps.append(event)

    bus.add_observer(observe)

    async def main() -> None:
        await bus.start()
        registration = bus.register_event_handler(Step, hang, priority=1, session_id="s")
        for number in (1, 2, 3):
            await bus.publish(Step(number=number, session_id="s"))
        await bus.session("open").__aenter__()
        asyncio.ensure_future(bus.execute(Ask()))  # noqa: RUF006 - the loop ends first
        await asyncio.sleep(0.01)
        assert registration

    asyncio.run(main())
    assert [event.result.status for event in results] == ["cancelled"]

    async def again() -> None:
        assert bus.stats().events_queued == 2
        async with bus:
            assert bus.stats().sessions == 0
            async with bus.session("open"):
                await bus.publish_and_wait(Step(number=4, session_id="s"))

    asyncio.run(again())
    # The first was under way when its loop ended; the others were queued, and are seen once.
    assert numbers == [2, 3, 4]
    assert [step.number for step in steps] == [1, 2, 3, 4]
    stats = bus.stats()
    assert stats.events == stats.events_handled + stats.events_dropped
    assert stats.events_dropped == 1
    assert stats.commands_in_flight == 0


def test_a_stop_in_another_loop_forgets_the_lost_one() -> None:
    bus, numbers = isolated()

    async def main() -> None:
        await bus.start()
        await bus.publish(Step(number=1))

    asyncio.run(main())
    assert asyncio.run(bus.stop()) == StopReport()

    async def again() -> None:
        async with bus:
            pass

    asyncio.run(again())
    assert numbers == [1]

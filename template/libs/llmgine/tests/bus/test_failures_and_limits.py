"""Handlers that fail, hang, or won't stop, and the limits that end them."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import (
    Command,
    CommandResultEvent,
    Event,
    EventHandlerFailedEvent,
    Message,
    paused_clock,
)
from llmgine.errors import CommandTimeoutError, ConfigurationError, EventTimeoutError
from llmgine.settings import BusSettings

SHORT = 0.05


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class AskInside(Command[str]):
    pass


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


class Stubborn:
    """Ignores its cancellation until it is let go."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.refused = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, message: Message) -> str:
        # Or a test that fails would never end.
        giving_up = asyncio.get_running_loop().call_later(30, self.released.set)
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.refused.set()
        giving_up.cancel()
        self.ended.set()
        return "late"

    async def let_go(self) -> None:
        self.released.set()
        await self.ended.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@contextmanager
def blocked_threads() -> Generator[threading.Event]:
    release = threading.Event()
    try:
        yield release
    finally:
        release.set()


def short(
    command_timeout: float = SHORT, event_timeout: float = SHORT, cancel_grace: float = SHORT
) -> MessageBus:
    settings = BusSettings(
        command_timeout=command_timeout,
        event_timeout=event_timeout,
        cancel_grace=cancel_grace,
        drain_timeout=2.0,
    )
    return MessageBus.isolated(settings)


def failures_of(bus: MessageBus) -> list[EventHandlerFailedEvent]:
    failures: list[EventHandlerFailedEvent] = []
    bus.register_event_handler(EventHandlerFailedEvent, failures.append, inline=True)
    return failures


async def raise_error(event: Step) -> None:
    raise ValueError("boom")


async def exit_process(event: Step) -> None:
    raise SystemExit(3)


async def exit_later(event: Step) -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


async def raise_cancelled(event: Step) -> None:
    raise asyncio.CancelledError


async def raise_cancelled_later(event: Step) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def cancel_itself(event: Step) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)


async def cancel_itself_later(event: Step) -> None:
    await asyncio.sleep(0)
    await cancel_itself(event)


def raise_in_thread(event: Step) -> None:
    raise ValueError("boom")


def exit_in_thread(event: Step) -> None:
    raise SystemExit(3)


Failing = Callable[[Step], Awaitable[None] | None]
FAILING: list[Failing] = [
    raise_error,
    exit_process,
    exit_later,
    raise_cancelled,
    raise_cancelled_later,
    cancel_itself,
    cancel_itself_later,
    raise_in_thread,
    exit_in_thread,
]


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("failing", FAILING)
async def test_a_failing_handler_reaches_nobody_else(
    bus: MessageBus, failing: Failing, *, concurrent: bool
) -> None:
    failures = failures_of(bus)
    others: list[int] = []

    def other(event: Step) -> None:
        others.append(event.number)

    bus.register_event_handler(Step, failing, priority=1, concurrent=concurrent)
    bus.register_event_handler(Step, other, inline=True)
    events = [Step(number=number, session_id="s") for number in range(3)]
    for event in events:
        await bus.publish(event)
    await bus.join()
    assert others == [0, 1, 2]
    # Concurrent handlers end in any order.
    assert sorted(failure.event.id for failure in failures) == sorted(e.id for e in events)
    assert all(failure.parent_id == failure.event.id for failure in failures)
    assert {failure.session_id for failure in failures} == {"s"}
    assert {failure.handler for failure in failures} == {
        f"{failing.__module__}.{getattr(failing, '__qualname__', '')}"
    }
    stats = bus.stats()
    assert (stats.handlers_failed, stats.events_handled) == (3, stats.events)


async def test_a_handler_that_cancels_its_task_and_returns_does_no_harm(bus: MessageBus) -> None:
    handled: list[int] = []

    async def careless(event: Step) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        handled.append(event.number)

    bus.register_event_handler(Step, careless)
    for number in range(3):
        await bus.publish(Step(number=number))
    await bus.join()
    assert handled == [0, 1, 2]


async def test_a_failing_handler_of_failures_is_not_reported_again(
    bus: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[EventHandlerFailedEvent] = []

    async def fails_too(event: EventHandlerFailedEvent) -> None:
        seen.append(event)
        raise ValueError("again")

    bus.register_event_handler(Step, raise_error)
    bus.register_event_handler(EventHandlerFailedEvent, fails_too)
    await bus.publish(Step())
    await bus.join()
    assert len(seen) == 1
    assert "failed to handle the failure of" in caplog.text


async def test_a_failure_that_nobody_hears_of_is_logged(
    bus: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.register_event_handler(Step, raise_error)
    await bus.publish_and_wait(Step())
    assert "raise_error failed to handle Step" in caplog.text


def test_the_default_limits() -> None:
    settings = BusSettings()
    assert (settings.command_timeout, settings.event_timeout) == (60.0, 30.0)
    assert (settings.drain_timeout, settings.cancel_grace) == (10.0, 1.0)


async def hang(message: Message) -> str:
    await asyncio.Event().wait()
    return ""


async def test_a_command_past_its_limit_raises_and_leaves_the_callers_task_healthy() -> None:
    results: list[CommandResultEvent] = []
    async with short() as bus:
        bus.register_event_handler(CommandResultEvent, results.append, inline=True)
        bus.register_command_handler(Ask, hang)
        with pytest.raises(CommandTimeoutError, match=r"Ask was not answered by .*hang in 0.05 s"):
            await bus.execute(Ask())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # no stray cancellation either
        await bus.join()
    assert [event.result.status for event in results] == ["error"]
    assert isinstance(results[0].result.error, CommandTimeoutError)


async def test_the_error_of_a_limit_is_a_builtin_timeout_caused_by_the_cancellation() -> None:
    async with short() as bus:
        bus.register_command_handler(Ask, hang)
        with pytest.raises(TimeoutError) as caught:
            await bus.execute(Ask())
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_the_calls_limit_comes_before_the_handlers_before_the_settings() -> None:
    async def takes_longer(command: Ask) -> str:
        await asyncio.sleep(0.1)
        return "done"

    async with short() as bus:
        registration = bus.register_command_handler(Ask, takes_longer)
        with pytest.raises(CommandTimeoutError, match=r"0\.05 s"):
            await bus.execute(Ask())
        assert await bus.execute(Ask(), timeout=5) == "done"
        assert await bus.execute(Ask(), timeout=math.inf) == "done"
        registration.cancel()
        bus.register_command_handler(Ask, takes_longer, timeout=math.inf)
        assert await bus.execute(Ask()) == "done"
        with pytest.raises(CommandTimeoutError, match=r"0\.02 s"):
            await bus.execute(Ask(), timeout=0.02)


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
async def test_a_limit_that_cannot_be_meant_is_refused(bus: MessageBus, timeout: float) -> None:
    bus.register_command_handler(Ask, hang)
    with pytest.raises(ConfigurationError, match="above 0"):
        await bus.execute(Ask(), timeout=timeout)
    with pytest.raises(ConfigurationError, match="above 0"):
        bus.register_event_handler(Step, hang, timeout=timeout)


async def test_many_limits_of_different_lengths_each_expire_on_their_own() -> None:
    async def timed(bus: MessageBus, seconds: float) -> float:
        began = time.monotonic()
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask(), timeout=seconds)
        return time.monotonic() - began

    async with short() as bus:
        bus.register_command_handler(Ask, hang)
        limits = [0.2, 0.05, 0.1, 0.15, 0.05, 0.2]
        took = await asyncio.gather(*(timed(bus, seconds) for seconds in limits))
    assert all(limit <= seconds + 0.01 for limit, seconds in zip(limits, took, strict=True))
    assert max(took) < 30


async def test_the_callers_own_cancellation_at_the_same_time_wins() -> None:
    entered = asyncio.Event()

    async def slow_to_leave(command: Ask) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            entered.set()
            await asyncio.sleep(0.01)
        return ""

    async with short(cancel_grace=5) as bus:
        bus.register_command_handler(Ask, slow_to_leave)
        caller = asyncio.create_task(bus.execute(Ask()))
        await entered.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert caller.cancelled()


async def test_the_callers_cancellation_wins_over_a_handler_that_will_not_stop() -> None:
    stubborn = Stubborn()
    async with short() as bus:
        bus.register_command_handler(Ask, stubborn)
        caller = asyncio.create_task(bus.execute(Ask()))
        await stubborn.refused.wait()
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        await stubborn.let_go()


async def test_a_command_handler_that_will_not_stop_is_left_behind_and_counted() -> None:
    stubborn = Stubborn()
    async with short() as bus:
        bus.register_command_handler(Ask, stubborn)
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert bus.stats().handlers_abandoned == 1
        await stubborn.let_go()
        assert bus.stats().handlers_abandoned == 0


async def test_what_a_handler_left_behind_waits_for_never_hits_the_callers_task() -> None:
    stubborn = Stubborn()
    inner_cancelled = asyncio.Event()

    async def outer(command: Ask) -> str:
        while True:
            try:
                return await bus.execute(AskInside(), timeout=0.4)
            except asyncio.CancelledError:
                continue
            except CommandTimeoutError:
                inner_cancelled.set()
                await stubborn(command)
                return ""

    async with short() as bus:
        bus.register_command_handler(Ask, outer)
        bus.register_command_handler(AskInside, stubborn)
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask())
        # This very task would be cancelled here, half a second after it was let go.
        async with asyncio.timeout(30):
            await inner_cancelled.wait()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await stubborn.let_go()


async def test_a_nested_commands_limit_reaches_its_caller_as_an_error() -> None:
    async def outer(command: Ask) -> str:
        with pytest.raises(CommandTimeoutError):
            await bus.execute(AskInside(), timeout=0.02)
        await asyncio.sleep(0)
        return "recovered"

    async with short(command_timeout=5) as bus:
        bus.register_command_handler(Ask, outer)
        bus.register_command_handler(AskInside, hang)
        assert await bus.execute(Ask()) == "recovered"


async def test_an_outer_limit_ends_the_commands_inside() -> None:
    results: list[tuple[str, str]] = []

    def note(event: CommandResultEvent) -> None:
        results.append((type(event.command).__name__, event.result.status))

    async def outer(command: Ask) -> str:
        return await bus.execute(AskInside(), timeout=math.inf)

    async with short() as bus:
        bus.register_event_handler(CommandResultEvent, note, inline=True)
        bus.register_command_handler(Ask, outer)
        bus.register_command_handler(AskInside, hang)
        with pytest.raises(CommandTimeoutError, match="Ask was not"):
            await bus.execute(Ask())
        await bus.join()
    assert [name for name, _ in results] == ["AskInside", "Ask"]


async def test_a_hanging_event_handler_is_cut_off_and_the_queue_goes_on() -> None:
    handled: list[int] = []

    async def hangs_once(event: Step) -> None:
        if event.number == 0:
            await asyncio.Event().wait()
        handled.append(event.number)

    def after(event: Step) -> None:
        handled.append(100 + event.number)

    async with short() as bus:
        failures = failures_of(bus)
        bus.register_event_handler(Step, hangs_once)
        bus.register_event_handler(Step, after, inline=True)
        await bus.publish(Step(number=0))
        await bus.publish(Step(number=1))
        await bus.join()
        assert handled == [100, 1, 101]
        (failure,) = failures
        assert isinstance(failure.error, EventTimeoutError)
        assert bus.stats().handlers_interrupted == 1


async def test_an_event_handlers_own_limit_comes_before_the_setting() -> None:
    done: list[Event] = []

    async def takes_longer(event: Step) -> None:
        await asyncio.sleep(0.1)
        done.append(event)

    async with short() as bus:
        bus.register_event_handler(Step, takes_longer, timeout=math.inf)
        await bus.publish(Step())
        await bus.join()
    assert len(done) == 1


async def test_each_handler_of_an_event_has_a_limit_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    now = 0.0

    async def part(number: int) -> None:
        nonlocal now
        for _ in range(6):
            await asyncio.sleep(0)
            now += 0.01
        done.append(number)

    # Time goes by in the handlers alone, however busy the machine is.
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    async with short(event_timeout=0.1) as bus:
        failures = failures_of(bus)
        bus.register_event_handler(Step, lambda _: part(1), inline=True)
        bus.register_event_handler(Step, lambda _: part(2), inline=True)
        bus.register_event_handler(Step, lambda _: part(3), inline=True)
        await bus.publish_and_wait(Step())
        assert (done, failures) == ([1, 2, 3], [])


async def test_an_event_handler_that_will_not_stop_is_left_behind() -> None:
    stubborn = Stubborn()
    handled: list[str] = []

    async def refuses(event: Step) -> None:
        if event.number == 0:
            await stubborn(event)

    async def other(event: Step) -> None:
        await asyncio.sleep(0)
        handled.append(f"other {event.number}")

    async def background(event: Step) -> None:
        await asyncio.sleep(0.3)
        handled.append(f"background {event.number}")

    async with short() as bus:
        failures = failures_of(bus)
        bus.register_event_handler(Step, background, concurrent=True, priority=1, timeout=5)
        bus.register_event_handler(Step, refuses)
        bus.register_event_handler(Step, other)
        await bus.publish_and_wait(Step(number=0))
        assert handled == ["other 0", "background 0"]
        await bus.publish_and_wait(Step(number=1))
        assert handled == ["other 0", "background 0", "other 1", "background 1"]
        assert [type(failure.error) for failure in failures] == [EventTimeoutError]
        assert bus.stats().handlers_abandoned == 1
        await stubborn.let_go()
        assert bus.stats().handlers_abandoned == 0
        stats = bus.stats()
        assert stats.events == stats.events_handled


async def test_a_concurrent_handler_that_will_not_stop_is_left_behind() -> None:
    stubborn = Stubborn()
    async with short() as bus:
        failures = failures_of(bus)
        bus.register_event_handler(Step, stubborn, concurrent=True)
        await bus.publish_and_wait(Step())
        await bus.join()
        assert len(failures) == 1
        assert bus.stats().handlers_abandoned == 1
        await stubborn.let_go()


async def test_a_thread_past_its_limit_is_abandoned_counted_and_replaced() -> None:
    handled: list[int] = []
    with blocked_threads() as release:

        def blocks_once(event: Step) -> None:
            if event.number == 0:
                release.wait(30)
            handled.append(event.number)

        bus = MessageBus.isolated(BusSettings(event_timeout=SHORT, threads=1))
        async with bus:
            failures = failures_of(bus)
            bus.register_event_handler(Step, blocks_once)
            for number in range(3):
                await bus.publish(Step(number=number))
            await bus.join()
            assert handled == [1, 2]
            assert len(failures) == 1
            assert bus.stats().handlers_abandoned == 1
            release.set()
            async with asyncio.timeout(30):
                while bus.stats().handlers_abandoned:  # noqa: ASYNC110 - told of by nothing
                    await asyncio.sleep(0.005)


async def test_a_command_in_a_thread_has_a_limit_too() -> None:
    with blocked_threads() as release:

        def blocks(command: Ask) -> str:
            release.wait(30)
            return ""

        async with short() as bus:
            bus.register_command_handler(Ask, blocks)
            with pytest.raises(CommandTimeoutError):
                await bus.execute(Ask())
            assert bus.stats().handlers_abandoned == 1


async def test_no_limit_runs_inside_paused_clock() -> None:
    async def waits_for_a_person(command: Ask) -> str:
        await asyncio.sleep(0)
        with paused_clock(), paused_clock():
            await asyncio.sleep(3 * SHORT)
        return "approved"

    async with short() as bus:
        bus.register_command_handler(Ask, waits_for_a_person)
        assert await bus.execute(Ask()) == "approved"


async def test_a_paused_clock_goes_on_with_the_time_that_was_left() -> None:
    async def waits_and_hangs(command: Ask) -> str:
        with paused_clock():
            await asyncio.sleep(2 * SHORT)
        await asyncio.Event().wait()
        return ""

    async with short() as bus:
        bus.register_command_handler(Ask, waits_and_hangs)
        began = time.monotonic()
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask())
        assert 3 * SHORT - 0.01 <= time.monotonic() - began < 30


async def test_a_pause_stops_the_clocks_of_all_that_wait_for_it() -> None:
    async def inner(command: AskInside) -> str:
        with paused_clock():
            await asyncio.sleep(3 * SHORT)
        return "approved"

    async def outer(command: Ask) -> str:
        async with bus.session():
            return await bus.execute(AskInside())

    async def on_step(event: Step) -> None:
        answers.append(await bus.execute(Ask()))

    answers: list[str] = []
    async with short() as bus:
        bus.register_command_handler(AskInside, inner)
        bus.register_command_handler(Ask, outer)
        bus.register_event_handler(Step, on_step)
        await bus.publish_and_wait(Step())
    assert answers == ["approved"]


async def test_a_pause_in_an_event_that_is_waited_for_stops_the_waiters_clock() -> None:
    async def on_step(event: Step) -> None:
        with paused_clock():
            await asyncio.sleep(3 * SHORT)

    async def outer(command: Ask) -> str:
        await bus.publish_and_wait(Step())
        return "approved"

    for concurrent in (False, True):
        async with short() as bus:
            bus.register_command_handler(Ask, outer)
            bus.register_event_handler(Step, on_step, concurrent=concurrent)
            assert await bus.execute(Ask()) == "approved"


async def test_a_worker_thread_can_pause_the_clock() -> None:
    def waits(command: Ask) -> str:
        with paused_clock():
            time.sleep(3 * SHORT)
        return "approved"

    async with short() as bus:
        bus.register_command_handler(Ask, waits)
        assert await bus.execute(Ask()) == "approved"


async def test_paused_clock_outside_every_handler_does_nothing() -> None:
    with paused_clock():
        pass


@pytest.mark.parametrize("kind", ["command", "event", "concurrent"])
async def test_timeouts_and_task_groups_work_in_handlers(bus: MessageBus, kind: str) -> None:
    notes: list[str] = []

    async def child() -> None:
        await asyncio.sleep(0)
        raise ValueError("child")

    async def handler(message: Message) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            notes.append("timeout")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                group.create_task(asyncio.sleep(10))
        except* ValueError:
            notes.append("group")
        await asyncio.sleep(0)
        return "fine"

    if kind == "command":
        bus.register_command_handler(Ask, handler)
        assert await bus.execute(Ask()) == "fine"
    else:
        bus.register_event_handler(Step, handler, concurrent=kind == "concurrent")
        await bus.publish_and_wait(Step())
    assert notes == ["timeout", "group"]
    assert bus.stats().handlers_failed == 0


async def test_the_queue_goes_on_after_a_task_group_in_a_handler_fails(bus: MessageBus) -> None:
    failures = failures_of(bus)
    handled: list[int] = []

    async def child() -> None:
        raise ValueError("child")

    async def handler(event: Step) -> None:
        handled.append(event.number)
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(asyncio.sleep(10))

    bus.register_event_handler(Step, handler)
    for number in range(3):
        await bus.publish(Step(number=number))
    await bus.join()
    assert handled == [0, 1, 2]
    assert [type(failure.error) for failure in failures] == [ExceptionGroup] * 3

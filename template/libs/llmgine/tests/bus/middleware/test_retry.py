"""Commands that say that they are idempotent are run again: when, how often, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import MessageBus
from llmgine.bus.middleware import Retry
from llmgine.contracts import Command, CommandResultEvent, CommandStartedEvent, Event
from llmgine.errors import (
    AuthenticationError,
    BusStoppedError,
    CircuitOpenError,
    CommandTimeoutError,
    ConfigurationError,
    OverloadedError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.settings import BusSettings, CommandRetrySettings
from llmgine.testing.fixtures import run_in_virtual_time


@dataclass(frozen=True, kw_only=True)
class Search(Command[str]):
    idempotent: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SearchAndPay(Search):
    """Its class doesn't say so itself."""


@dataclass(frozen=True, kw_only=True)
class Pay(Command[str]):
    pass


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    pass


class Flaky:
    """A handler that fails as told, and then answers."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    async def __call__(self, message: Command[str] | Event) -> str:
        self.times.append(asyncio.get_running_loop().time())
        if self.failures:
            raise self.failures.pop(0)
        return "found"


def a_bus(retry: Retry, settings: BusSettings | None = None) -> MessageBus:
    bus = MessageBus.isolated(settings)
    bus.add_middleware(retry)
    return bus


def run(
    retry: Retry,
    scenario: Callable[[MessageBus], Awaitable[None]],
    settings: BusSettings | None = None,
) -> None:
    async def main() -> None:
        async with a_bus(retry, settings) as bus:
            await scenario(bus)

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    "failure", [ConnectionError("gone"), TimeoutError(), OverloadedError("busy")], ids=repr
)
def test_what_may_pass_is_tried_again_and_seen_from_outside_as_one_command(
    failure: Exception,
) -> None:
    handler, retry, seen = Flaky(failure, failure), Retry(), list[Event]()

    async def scenario(bus: MessageBus) -> None:
        bus.add_observer(seen.append)
        bus.register_command_handler(Search, handler)
        assert await bus.execute(Search()) == "found"

    run(retry, scenario)
    assert len(handler.times) == 3
    assert (retry.counts.retried, retry.counts.recovered, retry.counts.given_up) == (2, 1, 0)
    started, ended = seen
    assert isinstance(started, CommandStartedEvent)
    assert isinstance(ended, CommandResultEvent)
    assert (ended.result.status, ended.result.value) == ("ok", "found")


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("bad"),
        AuthenticationError("key"),
        StreamInterruptedError("half"),
        CircuitOpenError("open", key="k", retry_after=1),
    ],
    ids=repr,
)
def test_what_stays_is_raised_at_once(failure: Exception) -> None:
    handler, retry = Flaky(failure), Retry()

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        with pytest.raises(type(failure)) as caught:
            await bus.execute(Search())
        assert caught.value is failure

    run(retry, scenario)
    assert len(handler.times) == 1
    assert retry.counts.given_up == 0


@pytest.mark.parametrize("kind", [Pay, SearchAndPay])
def test_only_a_class_that_says_so_itself_is_idempotent(kind: type[Command[str]]) -> None:
    handler = Flaky(ConnectionError("gone"))

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(kind, handler)
        with pytest.raises(ConnectionError):
            await bus.execute(kind())

    run(Retry(), scenario)
    assert len(handler.times) == 1


def test_events_are_never_delivered_again() -> None:
    handler = Flaky(ConnectionError("gone"))

    async def scenario(bus: MessageBus) -> None:
        bus.register_event_handler(Step, handler)
        await bus.publish_and_wait(Step())
        assert bus.stats().handlers_failed == 1

    run(Retry(), scenario)
    assert len(handler.times) == 1


def test_the_last_error_is_raised_with_a_note_of_the_attempts() -> None:
    last = ConnectionError("the last")
    handler = Flaky(ConnectionError("first"), ConnectionError("second"), last)
    retry = Retry()

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        with pytest.raises(ConnectionError) as caught:
            await bus.execute(Search())
        assert caught.value is last
        assert caught.value.__notes__ == ["given up after 3 of 3 attempts"]

    run(retry, scenario)
    assert (retry.counts.retried, retry.counts.recovered, retry.counts.given_up) == (2, 0, 1)


def test_a_retry_after_is_waited_out_unless_it_is_too_long() -> None:
    patient = Flaky(RateLimitError("slow down", retry_after=20))
    hasty = Flaky(RateLimitError("come back tomorrow", retry_after=31))

    async def scenario(bus: MessageBus) -> None:
        registration = bus.register_command_handler(Search, patient)
        assert await bus.execute(Search()) == "found"
        registration.cancel()
        bus.register_command_handler(Search, hasty)
        with pytest.raises(RateLimitError) as caught:
            await bus.execute(Search())
        note = "given up since the next attempt would have to wait 31 s"
        assert caught.value.__notes__ == [note]

    run(Retry(), scenario)
    first, second = patient.times
    assert 20 <= second - first <= 20.5
    assert len(hasty.times) == 1


@given(
    st.integers(min_value=1, max_value=40),
    st.floats(min_value=0, max_value=10),
    st.floats(min_value=0, max_value=20),
    st.floats(min_value=0, max_value=100),
)
def test_pauses_and_attempts_stay_within_their_bounds(
    attempts: int, delay: float, max_delay: float, deadline: float
) -> None:
    settings = CommandRetrySettings(
        attempts=attempts, delay=delay, max_delay=max_delay, deadline=deadline
    )
    handler = Flaky(*(ConnectionError() for _ in range(60)))

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        with pytest.raises(ConnectionError):
            await bus.execute(Search())

    run(Retry(settings), scenario)
    assert 1 <= len(handler.times) <= attempts
    assert handler.times[-1] <= deadline
    for number, (before, after) in enumerate(zip(handler.times, handler.times[1:], strict=False)):
        assert after - before <= min(max_delay, delay * 2**number) + 1e-6


@pytest.mark.parametrize("outer", [False, True], ids=["its own limit", "that of its caller"])
def test_no_attempt_begins_that_a_limit_would_cut_off(*, outer: bool) -> None:
    handler = Flaky(*(RateLimitError("wait", retry_after=4) for _ in range(9)))
    settings = CommandRetrySettings(attempts=9)

    async def scenario(bus: MessageBus) -> None:
        async def pay(command: Pay) -> str:
            return await bus.execute(Search())

        bus.register_command_handler(Search, handler)
        bus.register_command_handler(Pay, pay)
        with pytest.raises(RateLimitError) as caught:
            await bus.execute(Pay() if outer else Search(), timeout=10)
        assert "for want of time" in caught.value.__notes__[0]

    run(Retry(settings), scenario)
    assert 2 <= len(handler.times) <= 3


@pytest.mark.parametrize("when", ["in an attempt", "in a pause"])
def test_the_callers_cancellation_ends_it(when: str) -> None:
    waiting = asyncio.Event()
    calls: list[Search] = []

    async def handler(command: Search) -> str:
        calls.append(command)
        waiting.set()
        if when == "in an attempt":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("while being cancelled") from None
        raise RateLimitError("wait", retry_after=5)

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        asking = asyncio.create_task(bus.execute(Search()))
        await waiting.wait()
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled() or isinstance(asking.exception(), ConnectionError)
        await asyncio.sleep(60)

    run(Retry(), scenario)
    assert len(calls) == 1


def test_what_a_limit_has_cut_off_is_not_tried_again() -> None:
    calls: list[Search] = []

    async def handler(command: Search) -> str:
        calls.append(command)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("hung up") from None
        return "never"

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Search(), timeout=5)
        await asyncio.sleep(60)

    run(Retry(), scenario)
    assert len(calls) == 1


def test_a_stop_ends_a_pause() -> None:
    handler = Flaky(*(RateLimitError("wait", retry_after=25) for _ in range(9)))

    async def main() -> None:
        bus = a_bus(Retry(), BusSettings(drain_timeout=1))
        bus.register_command_handler(Search, handler)
        await bus.start()
        asking = asyncio.create_task(bus.execute(Search()))
        await asyncio.sleep(0.1)
        report = await bus.stop()
        with pytest.raises(BusStoppedError):
            await asking
        assert (report.handlers_interrupted, report.handlers_abandoned) == (1, 0)
        assert asyncio.get_running_loop().time() < 5

    run_in_virtual_time(main())
    assert len(handler.times) == 1


def test_the_application_says_what_may_pass() -> None:
    handler = Flaky(ZeroDivisionError("this time"))

    async def scenario(bus: MessageBus) -> None:
        bus.register_command_handler(Search, handler)
        assert await bus.execute(Search()) == "found"

    run(Retry(retry_on=lambda error: isinstance(error, ArithmeticError)), scenario)
    assert len(handler.times) == 2


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"delay": -1}, {"deadline": float("nan")}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        CommandRetrySettings(**wrong)  # pyright: ignore[reportArgumentType]

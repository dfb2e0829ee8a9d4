"""What keeps failing is refused for a while, and then tried once: per key, per session."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from llmgine.bus import MessageBus
from llmgine.bus.middleware import CircuitBreaker
from llmgine.contracts import Command, Event, EventHandlerFailedEvent, Message
from llmgine.errors import (
    AuthenticationError,
    CircuitOpenError,
    CommandTimeoutError,
    ConfigurationError,
    OverloadedError,
    StreamInterruptedError,
)
from llmgine.settings import BusSettings, CircuitBreakerSettings
from llmgine.testing.fixtures import VirtualTimeLoop, run_in_virtual_time

Fate = Literal["ok", "fail", "wrong input", "hang", "hang on", "wait"]
QUICK = CircuitBreakerSettings(calls=4, window=60, failures=2, ratio=0.5, open_for=10)
MODELLED = CircuitBreakerSettings(
    calls=6, window=30, failures=2, ratio=0.5, open_for=10, scope="bus"
)


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    fate: Fate = "ok"
    tenant: str = ""


@dataclass(frozen=True, kw_only=True)
class Other(Command[str]):
    fate: Fate = "ok"


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    pass


class Handler:
    """Does as a command says."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: BaseException = ConnectionError("down")
        self.release = asyncio.Event()

    async def __call__(self, command: Ask | Other) -> str:
        self.calls += 1
        match command.fate:
            case "fail":
                raise self.error.with_traceback(None)
            case "wrong input":
                raise ValueError("a letter, not a number")
            case "hang":
                await asyncio.Event().wait()
            case "hang on":
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                await self.release.wait()
            case "wait":
                await self.release.wait()
            case "ok":
                pass
        return "answer"


def run(
    breaker: CircuitBreaker, scenario: Callable[[MessageBus, Handler], Awaitable[None]]
) -> None:
    async def main() -> None:
        bus, handler = MessageBus.isolated(BusSettings(command_timeout=5)), Handler()
        bus.add_middleware(breaker)
        bus.register_command_handler(Ask, handler)
        bus.register_command_handler(Other, handler)
        async with bus:
            await scenario(bus, handler)

    run_in_virtual_time(main())


async def fail(bus: MessageBus, message: Command[str] | None = None, *, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await bus.execute(message or Ask(fate="fail"))


def test_enough_failures_open_the_circuit_and_one_good_try_closes_it() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        assert breaker.state(Ask()) == "open"
        await asyncio.sleep(4)
        with pytest.raises(CircuitOpenError) as caught:
            await bus.execute(Ask())
        assert handler.calls == 2
        assert caught.value.key is Ask
        assert caught.value.retry_after == pytest.approx(6)
        assert str(caught.value) == (
            "the circuit of Ask is open, since too many calls have failed "
            "(the last one: ConnectionError); try again in 6.0 s"
        )
        await asyncio.sleep(caught.value.retry_after)
        assert breaker.state(Ask()) == "half-open"
        assert await bus.execute(Ask()) == "answer"
        assert breaker.state(Ask()) == "closed"
        await fail(bus, times=1)
        assert breaker.state(Ask()) == "closed"

    run(breaker, scenario)


def test_failures_count_for_as_long_as_the_window_is() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus, times=1)
        await asyncio.sleep(60)
        await fail(bus, times=1)
        assert breaker.state(Ask()) == "closed"
        await asyncio.sleep(59)
        await fail(bus, times=1)
        assert breaker.state(Ask()) == "open"

    run(breaker, scenario)


def test_a_try_that_fails_opens_the_circuit_for_as_long_again() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        await asyncio.sleep(10)
        await fail(bus, times=1)
        with pytest.raises(CircuitOpenError) as caught:
            await bus.execute(Ask())
        assert caught.value.retry_after == pytest.approx(10)

    run(breaker, scenario)


def test_one_call_tries_while_others_are_refused() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        await asyncio.sleep(10)
        trying = asyncio.create_task(bus.execute(Ask(fate="wait")))
        await asyncio.sleep(0)
        for _ in range(5):
            with pytest.raises(CircuitOpenError):
                await bus.execute(Ask())
        assert handler.calls == 3
        handler.release.set()
        assert await trying == "answer"
        assert await bus.execute(Ask()) == "answer"

    run(breaker, scenario)


def test_a_try_that_is_cancelled_makes_way_for_the_next() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        await asyncio.sleep(10)
        trying = asyncio.create_task(bus.execute(Ask(fate="wait")))
        await asyncio.sleep(0)
        trying.cancel()
        await asyncio.wait([trying])
        assert breaker.state(Ask()) == "half-open"
        assert await bus.execute(Ask()) == "answer"
        assert breaker.state(Ask()) == "closed"

    run(breaker, scenario)


def test_a_try_that_never_ends_makes_way_once_the_bus_has_given_it_up() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        await asyncio.sleep(10)
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask(fate="hang on"), timeout=1)
        assert bus.stats().handlers_abandoned == 1
        assert await bus.execute(Ask()) == "answer"
        assert breaker.state(Ask()) == "closed"
        await fail(bus, times=1)
        handler.release.set()
        await asyncio.sleep(1)
        assert bus.stats().handlers_abandoned == 0
        await fail(bus, times=1)
        assert breaker.state(Ask()) == "open"

    run(breaker, scenario)


def test_a_try_without_a_limit_makes_way_after_as_long_again() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus)
        await asyncio.sleep(10)
        stuck = asyncio.create_task(bus.execute(Ask(fate="wait"), timeout=math.inf))
        await asyncio.sleep(4)
        with pytest.raises(CircuitOpenError) as caught:
            await bus.execute(Ask())
        assert caught.value.retry_after == pytest.approx(6)
        await asyncio.sleep(caught.value.retry_after)
        assert await bus.execute(Ask()) == "answer"
        assert breaker.state(Ask()) == "closed"
        handler.release.set()
        assert await stuck == "answer"

    run(breaker, scenario)


def test_what_a_try_asks_of_its_own_kind_is_part_of_it() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        async def delegate(command: Ask) -> str:
            if command.tenant:
                return await bus.execute(Ask(fate=command.fate))
            return await handler(command)

        async with bus.session() as session:
            session.register_command_handler(Ask, delegate)
            with pytest.raises(ConnectionError):
                await bus.execute(Ask(fate="fail", tenant="other"))
            assert breaker.state(Ask()) == "open"
            await asyncio.sleep(10)
            with pytest.raises(ConnectionError):
                await bus.execute(Ask(fate="fail", tenant="other"))
            assert breaker.state(Ask()) == "open"
            await asyncio.sleep(10)
            assert await bus.execute(Ask(tenant="other")) == "answer"
            assert breaker.state(Ask()) == "closed"

    run(breaker, scenario)


def test_calls_that_run_out_of_time_have_failed() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        for _ in range(2):
            with pytest.raises(CommandTimeoutError):
                await bus.execute(Ask(fate="hang"))
        assert breaker.state(Ask()) == "open"

    run(breaker, scenario)


def test_wrong_input_and_calls_that_are_cancelled_say_nothing() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        for _ in range(9):
            with pytest.raises(ValueError, match="a letter"):
                await bus.execute(Ask(fate="wrong input"))
            asking = asyncio.create_task(bus.execute(Ask(fate="hang")))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        assert breaker.state(Ask()) == "closed"

    run(breaker, scenario)


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (OverloadedError("busy"), True),
        (StreamInterruptedError("half"), True),
        (TimeoutError(), True),
        (RuntimeError("of a library"), True),
        (AuthenticationError("key"), False),
        (KeyError("input"), False),
        (CircuitOpenError("of another", key="k", retry_after=1), False),
    ],
    ids=repr,
)
def test_which_errors_count(error: Exception, *, opens: bool) -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        handler.error = error
        for _ in range(2):
            with pytest.raises(type(error)):
                await bus.execute(Ask(fate="fail"))
        assert breaker.state(Ask()) == ("open" if opens else "closed")

    run(breaker, scenario)


def test_the_application_says_which_errors_count() -> None:
    breaker = CircuitBreaker(QUICK, counts=lambda error: isinstance(error, ValueError))

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus, times=9)
        assert breaker.state(Ask()) == "closed"
        for _ in range(2):
            with pytest.raises(ValueError, match="a letter"):
                await bus.execute(Ask(fate="wrong input"))
        assert breaker.state(Ask()) == "open"

    run(breaker, scenario)


def test_types_and_sessions_have_circuits_of_their_own() -> None:
    breaker = CircuitBreaker(QUICK)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        async with bus.session("broken"), bus.session("fine") as fine:
            await fail(bus, Ask(fate="fail", session_id="broken"))
            with pytest.raises(CircuitOpenError, match="Ask in session 'broken' is open"):
                await bus.execute(Ask(session_id="broken"))
            assert await bus.execute(Other(session_id="broken")) == "answer"
            assert await fine.execute(Ask(session_id="fine")) == "answer"

    run(breaker, scenario)


def test_all_sessions_can_share_the_circuits() -> None:
    scope = CircuitBreakerSettings(calls=4, failures=2, scope="bus")
    breaker = CircuitBreaker(scope)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus, Ask(fate="fail", session_id="one"), times=1)
        await fail(bus, Ask(fate="fail", session_id="two"), times=1)
        with pytest.raises(CircuitOpenError):
            await bus.execute(Ask(session_id="three"))

    run(breaker, scenario)


def test_the_key_is_the_applications_and_may_let_messages_pass() -> None:
    def tenant(message: Message) -> str | None:
        return message.tenant or None if isinstance(message, Ask) else None

    breaker = CircuitBreaker(QUICK, key=tenant)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus, Ask(fate="fail", tenant="a"))
        await fail(bus, times=9)
        with pytest.raises(CircuitOpenError, match="the circuit of 'a' is open") as caught:
            await bus.execute(Ask(tenant="a"))
        assert caught.value.key == "a"
        assert await bus.execute(Ask(tenant="b")) == "answer"

    run(breaker, scenario)


def test_events_pass_unless_a_key_is_given_for_them() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        errors: list[BaseException] = []

        async def broken(event: Step) -> None:
            raise ConnectionError("down")

        def note(event: EventHandlerFailedEvent) -> None:
            errors.append(event.error)

        bus.register_event_handler(Step, broken)
        bus.register_event_handler(EventHandlerFailedEvent, note, inline=True)
        for _ in range(3):
            await bus.publish_and_wait(Step())
        await bus.join()
        kinds.append([type(error) for error in errors])

    kinds: list[list[type]] = []
    run(CircuitBreaker(QUICK), scenario)
    run(CircuitBreaker(QUICK, key=lambda m: "steps" if isinstance(m, Step) else None), scenario)
    assert kinds == [[ConnectionError] * 3, [ConnectionError, ConnectionError, CircuitOpenError]]


def test_the_one_that_has_gone_unused_for_longest_makes_way() -> None:
    limited = CircuitBreakerSettings(calls=4, failures=2, max_keys=2)
    breaker = CircuitBreaker(limited, key=lambda m: m.tenant if isinstance(m, Ask) else None)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await fail(bus, Ask(fate="fail", tenant="a"))
        await bus.execute(Ask(tenant="b"))
        assert breaker.state(Ask(tenant="a")) == "open"
        await bus.execute(Ask(tenant="c"))
        assert len(breaker) == 2
        assert breaker.state(Ask(tenant="a")) == "closed"

    run(breaker, scenario)


async def test_nothing_is_kept_of_sessions_that_have_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("ERROR")  # pytest keeps what is logged
    breaker = CircuitBreaker(QUICK)
    bus = MessageBus.isolated()
    bus.add_middleware(breaker)
    bus.register_command_handler(Ask, Handler())

    async def converse(sessions: int) -> int:
        for _ in range(sessions):
            async with bus.session() as session:
                for _ in range(3):
                    with suppress(ConnectionError, CircuitOpenError):
                        await session.execute(Ask(fate="fail"))
                assert len(breaker) == 1
        assert len(breaker) == 0
        gc.collect()
        return sys.getallocatedblocks()

    async with bus:
        rounds = [await converse(100) for _ in range(5)]
    # What leaks grows in every round; what is made only once, or elsewhere, doesn't.
    assert min(after - before for before, after in pairwise(rounds)) < 50


@dataclass
class Model:
    """What a circuit should do, told in the plainest way.

    Attributes:
        ended: when each call ended that has a say, and whether it had failed.
        opened: when the circuit was opened; None while it is closed.
        tried: when the try under way began.
        changes: how often its state has changed.
    """

    ended: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])
    opened: float | None = None
    tried: float | None = None
    changes: int = 0

    def admits(self, now: float) -> bool:
        if self.opened is None:
            return True
        since = self.opened if self.tried is None else self.tried
        return now >= since + MODELLED.open_for

    def begin(self, now: float) -> int:
        if self.opened is not None:
            self.tried = now
            self.changes += 1
        return self.changes

    def end(self, now: float, fate: Fate | None, began: int) -> None:
        if began != self.changes:
            return
        self.tried = None
        if fate not in {"ok", "fail"}:
            return
        if self.opened is not None:
            self.opened = now if fate == "fail" else None
            self.changes += 1
            self.ended.clear()
            return
        self.ended.append((now, fate == "fail"))
        last = [bad for at, bad in self.ended[-MODELLED.calls :] if at > now - MODELLED.window]
        bad = sum(last)
        if fate == "fail" and bad >= MODELLED.failures and bad / len(last) >= MODELLED.ratio:
            self.opened = now
            self.changes += 1
            self.ended.clear()


class CircuitMachine(RuleBasedStateMachine):
    """Calls of all kinds, slow ones among them, against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.breaker = CircuitBreaker(MODELLED)
        self.bus = MessageBus.isolated(BusSettings(command_timeout=10_000))
        self.bus.add_middleware(self.breaker)
        self.bus.register_command_handler(Ask, Handler())
        self.bus.register_command_handler(Other, Handler())
        self.model = Model()
        self.waits: list[float] = []
        self.slow: list[tuple[asyncio.Future[Fate], asyncio.Task[str], int]] = []
        self.runner.run(self.bus.start())

    @property
    def now(self) -> float:
        return self.runner.get_loop().time()

    async def call(self, fate: Fate) -> None:
        admitted = self.model.admits(self.now)
        began = self.model.begin(self.now) if admitted else 0
        try:
            await self.bus.execute(Ask(fate=fate))
        except CircuitOpenError as refusal:
            assert not admitted
            self.waits.append(refusal.retry_after)
        except (ConnectionError, ValueError):
            assert admitted
            self.model.end(self.now, fate, began)
        else:
            assert admitted
            self.model.end(self.now, fate, began)

    @rule(fate=st.sampled_from(("ok", "fail", "fail", "fail", "wrong input")))
    def one_call(self, fate: Fate) -> None:
        self.runner.run(self.call(fate))

    @rule(seconds=st.sampled_from((0.5, 4.0, 11.0, 16.0)))
    def time_goes_by(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    @rule()
    def a_slow_call_begins(self) -> None:
        self.runner.run(self.begin())

    async def begin(self) -> None:
        if not self.model.admits(self.now):
            return
        began = self.model.begin(self.now)
        fate: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self.slow.append((fate, asyncio.create_task(self.wait(fate)), began))
        await asyncio.sleep(0)

    async def wait(self, fate: asyncio.Future[Fate]) -> str:
        async def answer(command: Ask) -> str:
            if await fate == "fail":
                raise ConnectionError("down")
            return "answer"

        session_id = f"slow-{id(fate)}"
        shared = self.bus.register_command_handler(Ask, answer, session_id=session_id)
        try:
            return await self.bus.execute(Ask(session_id=session_id))
        finally:
            shared.cancel()

    @rule(end=st.sampled_from(("ok", "fail", None)), which=st.integers(min_value=0))
    def a_slow_call_ends(self, end: Fate | None, which: int) -> None:
        if self.slow:
            self.runner.run(self.finish(end, which % len(self.slow)))

    async def finish(self, end: Fate | None, which: int) -> None:
        fate, task, began = self.slow.pop(which)
        if end is None:
            task.cancel()
        else:
            fate.set_result(end)
        await asyncio.wait([task])
        self.model.end(self.now, end, began)
        if not task.cancelled():
            assert (task.exception() is not None) == (end == "fail")

    @invariant()
    def the_state_is_as_it_should_be(self) -> None:
        async def state() -> str:
            return self.breaker.state(Ask())

        opened = self.model.opened
        expected = "closed" if opened is None else "open"
        if opened is not None and self.now >= opened + MODELLED.open_for:
            expected = "half-open"
        assert self.runner.run(state()) == expected

    @invariant()
    def refusals_say_how_long_to_wait(self) -> None:
        assert all(0 < wait <= MODELLED.open_for for wait in self.waits)

    def teardown(self) -> None:
        for _, task, _ in self.slow:
            task.cancel()
        self.runner.run(self.bus.stop())
        self.runner.close()


TestCircuit = CircuitMachine.TestCase
TestCircuit.settings = hypothesis_settings(max_examples=20, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    "wrong",
    [{"failures": 0}, {"calls": 1}, {"ratio": 1.5}, {"open_for": -1}, {"max_keys": 0}],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    values: dict[str, float] = {"failures": 2, "calls": 4, **wrong}
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        CircuitBreakerSettings(**values)  # pyright: ignore[reportArgumentType]

"""So many calls in so much time: who waits, who is refused, and who comes next."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import MessageBus
from llmgine.bus.middleware import RateLimit, TokenLimit
from llmgine.contracts import Command, Event, Message
from llmgine.errors import BusStoppedError, ConfigurationError, RateExceededError
from llmgine.settings import BusSettings, RateLimitSettings
from llmgine.testing.fixtures import VirtualTimeLoop, run_in_virtual_time


@dataclass(frozen=True, kw_only=True)
class Ask(Command[int]):
    number: int = 0
    tokens: float = 0
    takes: float = 0


@dataclass(frozen=True, kw_only=True)
class Other(Command[int]):
    pass


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    pass


class Handler:
    """Notes when it was called for what."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Ask | Other]] = []

    async def __call__(self, command: Ask | Other) -> int:
        self.calls.append((asyncio.get_running_loop().time(), command))
        if isinstance(command, Ask) and command.takes < 0:
            raise ValueError("no result")
        return len(self.calls)

    @property
    def numbers(self) -> list[int]:
        return [command.number for _, command in self.calls if isinstance(command, Ask)]


def run(
    limit: RateLimit,
    scenario: Callable[[MessageBus, Handler], Awaitable[None]],
    settings: BusSettings | None = None,
) -> None:
    async def main() -> None:
        bus, handler = MessageBus.isolated(settings), Handler()
        bus.add_middleware(limit)
        bus.register_command_handler(Ask, handler)
        bus.register_command_handler(Other, handler)
        async with bus:
            await scenario(bus, handler)

    run_in_virtual_time(main())


def estimated(message: Message) -> float:
    return message.tokens if isinstance(message, Ask) else 0


def taken(message: Message, result: object) -> float | None:
    return message.takes if isinstance(message, Ask) else None


ASKS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=9), st.integers(min_value=0, max_value=10)),
    max_size=25,
)


@given(ASKS, st.integers(min_value=1, max_value=4), st.sampled_from((0.0, 5.0, 1000.0)))
def test_no_stretch_of_time_has_more_and_calls_keep_their_order(
    asks: list[tuple[float, int]], requests: int, max_wait: float
) -> None:
    settings = RateLimitSettings(requests=requests, per=10, max_wait=max_wait)
    limit = RateLimit(settings, tokens=TokenLimit(limit=12, estimate=estimated))
    refused: list[int] = []
    waits: list[float] = []

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        async def ask(number: int, tokens: int) -> None:
            began = asyncio.get_running_loop().time()
            try:
                await bus.execute(Ask(number=number, tokens=tokens))
            except RateExceededError as refusal:
                waits.append(refusal.retry_after)
                refused.append(number)
                began -= max_wait  # it didn't wait
            assert asyncio.get_running_loop().time() - began <= max_wait + 1e-6

        async with asyncio.TaskGroup() as tasks:
            for number, (pause, tokens) in enumerate(asks):
                await asyncio.sleep(pause)
                tasks.create_task(ask(number, tokens))
        assert all(wait > max_wait for wait in waits)
        assert sorted(handler.numbers + refused) == list(range(len(asks)))
        assert handler.numbers == sorted(handler.numbers)
        for at, _ in handler.calls:
            stretch = [each for when, each in handler.calls if at - 10 + 1e-6 < when <= at]
            assert len(stretch) <= requests
            assert sum(map(estimated, stretch)) <= 12

    run(limit, scenario)


def test_a_call_beyond_the_limit_waits_for_its_turn() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await asyncio.gather(*(bus.execute(Ask(number=number)) for number in range(5)))
        assert [at for at, _ in handler.calls] == pytest.approx([0, 0, 10, 10, 20])
        assert handler.numbers == [0, 1, 2, 3, 4]

    run(RateLimit(RateLimitSettings(requests=2, per=10)), scenario)


def test_a_call_that_would_wait_too_long_is_refused_and_told_when_to_come_back() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await bus.execute(Ask())
        await asyncio.sleep(4)
        with pytest.raises(RateExceededError) as caught:
            await bus.execute(Ask())
        assert caught.value.key is Ask
        assert caught.value.retry_after == pytest.approx(6)
        assert str(caught.value) == "Ask may have 1 calls in 10 s, and its next turn is in 6.0 s"
        await asyncio.sleep(caught.value.retry_after)
        await bus.execute(Ask())

    run(RateLimit(RateLimitSettings(requests=1, per=10, max_wait=5)), scenario)


def test_who_leaves_makes_way_for_those_behind() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await bus.execute(Ask())
        asking = [asyncio.create_task(bus.execute(Ask(number=number))) for number in (1, 2, 3)]
        await asyncio.sleep(1)
        asking[0].cancel()
        asking[1].cancel()
        await asyncio.wait(asking)
        assert handler.numbers == [0, 3]
        assert [at for at, _ in handler.calls] == pytest.approx([0, 10])

    run(RateLimit(RateLimitSettings(requests=1, per=10)), scenario)


def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await bus.execute(Ask())
        asking = [asyncio.create_task(bus.execute(Ask(number=number))) for number in (1, 2)]
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        # After the window's own timer, and before the task that it wakes.
        loop.call_at(10, asking[0].cancel)
        await asyncio.wait(asking)
        assert asking[0].cancelled()
        assert handler.numbers == [0, 2]
        assert [at for at, _ in handler.calls] == pytest.approx([0, 10])

    run(RateLimit(RateLimitSettings(requests=1, per=10)), scenario)


def test_no_limit_runs_while_a_call_waits() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        async def ask(command: Other) -> int:
            return await bus.execute(Ask(number=2))

        await bus.execute(Ask())
        bus.register_command_handler(Other, ask, session_id="outer")
        results = await asyncio.gather(
            bus.execute(Ask(number=1), timeout=1), bus.execute(Other(session_id="outer"), timeout=1)
        )
        assert results == [2, 3]

    by_all = RateLimit(
        RateLimitSettings(requests=1, per=10, scope="bus"),
        key=lambda message: "asks" if isinstance(message, Ask) else None,
    )
    run(by_all, scenario)


def test_tokens_are_counted_as_well() -> None:
    limit = RateLimit(
        RateLimitSettings(requests=9, per=10), tokens=TokenLimit(limit=100, estimate=estimated)
    )

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await asyncio.gather(*(bus.execute(Ask(tokens=40)) for _ in range(3)))
        assert [at for at, _ in handler.calls] == pytest.approx([0, 0, 10])
        with pytest.raises(RateExceededError, match="asks for 101 tokens at once") as caught:
            await bus.execute(Ask(tokens=101))
        assert caught.value.retry_after == float("inf")
        with pytest.raises(ConfigurationError, match="estimate: "):
            await bus.execute(Ask(tokens=-1))

    run(limit, scenario)


def test_calls_are_counted_for_what_they_have_taken_once_that_is_known() -> None:
    tokens = TokenLimit(limit=100, estimate=estimated, settle=taken)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await bus.execute(Ask(tokens=90, takes=10))
        await bus.execute(Ask(tokens=90, takes=150))
        await bus.execute(Ask(tokens=90, takes=90))
        assert [at for at, _ in handler.calls] == pytest.approx([0, 0, 10])

    run(RateLimit(RateLimitSettings(requests=9, per=10), tokens=tokens), scenario)


def test_tokens_that_were_not_taken_let_the_next_one_go_at_once() -> None:
    tokens = TokenLimit(limit=100, estimate=estimated, settle=taken)
    limit = RateLimit(RateLimitSettings(requests=9, per=10), tokens=tokens)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        async def slow(command: Ask) -> int:
            await asyncio.sleep(3)
            return await handler(command)

        bus.register_command_handler(Ask, slow, session_id="s")
        asks = [Ask(tokens=90, takes=10, session_id="s") for _ in range(2)]
        await asyncio.gather(*map(bus.execute, asks))
        assert [at for at, _ in handler.calls] == pytest.approx([3, 6])

    run(limit, scenario)


def test_a_result_is_not_lost_where_its_tokens_cannot_be_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(message: Message, result: object) -> float:
        raise KeyError("usage")

    tokens = TokenLimit(limit=100, estimate=estimated, settle=broken)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        assert await bus.execute(Ask(tokens=90)) == 1

    run(RateLimit(tokens=tokens), scenario)
    assert "the tokens of Ask stay as estimated" in caplog.text


def test_a_stop_ends_the_wait() -> None:
    limit = RateLimit(RateLimitSettings(requests=1, per=20))

    async def main() -> None:
        bus, handler = MessageBus.isolated(BusSettings(drain_timeout=1)), Handler()
        bus.add_middleware(limit)
        bus.register_command_handler(Ask, handler)
        await bus.start()
        await bus.execute(Ask())
        asking = asyncio.create_task(bus.execute(Ask(number=1)))
        await asyncio.sleep(0)
        await bus.stop()
        with pytest.raises(BusStoppedError):
            await asking
        await bus.start()
        await bus.execute(Ask(number=2))
        assert handler.numbers == [0, 2]
        assert asyncio.get_running_loop().time() == pytest.approx(20)
        await bus.stop()

    run_in_virtual_time(main())


async def ask_twice(bus: MessageBus) -> None:
    async with bus:
        await asyncio.gather(bus.execute(Ask()), bus.execute(Ask()))


def test_it_goes_on_when_the_bus_starts_on_another_loop() -> None:
    bus, handler = MessageBus.isolated(), Handler()
    bus.add_middleware(RateLimit(RateLimitSettings(requests=1, per=0.05)))
    bus.register_command_handler(Ask, handler)
    asyncio.run(ask_twice(bus))
    asyncio.run(ask_twice(bus))
    assert len(handler.calls) == 4


def test_who_waited_on_a_loop_that_has_gone_takes_no_turn() -> None:
    bus, handler, gone = MessageBus.isolated(), Handler(), VirtualTimeLoop()
    bus.add_middleware(RateLimit(RateLimitSettings(requests=1, per=20, max_wait=50)))
    bus.register_command_handler(Ask, handler)
    gone.run_until_complete(bus.start())
    tasks = [gone.create_task(bus.execute(Ask(number=number))) for number in range(3)]
    gone.run_until_complete(tasks[0])
    run_in_virtual_time(ask_twice(bus))
    assert [at for at, _ in handler.calls] == [0, 20, 40]
    for task in tasks:
        task.cancel()
    gone.run_until_complete(asyncio.wait(tasks))
    gone.close()


def test_types_and_sessions_are_counted_by_themselves_and_events_not_at_all() -> None:
    async def scenario(bus: MessageBus, handler: Handler) -> None:
        bus.register_event_handler(Step, str, inline=True)
        async with bus.session("one") as one, bus.session("two") as two:
            await one.execute(Ask(session_id="one"))
            with pytest.raises(RateExceededError, match="Ask in session 'one' may have 1 calls"):
                await one.execute(Ask(session_id="one"))
            await one.execute(Other(session_id="one"))
            await two.execute(Ask(session_id="two"))
        for _ in range(5):
            await bus.publish_and_wait(Step())
        assert bus.stats().handlers_failed == 0

    run(RateLimit(RateLimitSettings(requests=1, max_wait=0)), scenario)


def test_keys_are_bounded_and_those_that_count_are_never_forgotten() -> None:
    settings = RateLimitSettings(requests=1, per=10, max_wait=0, max_keys=2)
    limit = RateLimit(settings, key=lambda m: m.number if isinstance(m, Ask) else None)

    async def scenario(bus: MessageBus, handler: Handler) -> None:
        await bus.execute(Ask(number=1))
        await asyncio.sleep(5)
        await bus.execute(Ask(number=2))
        with pytest.raises(RateExceededError, match="too many others are counted"):
            await bus.execute(Ask(number=3))
        await asyncio.sleep(5)
        await bus.execute(Ask(number=3))
        with pytest.raises(RateExceededError):
            await bus.execute(Ask(number=2))
        assert len(limit) == 2

    run(limit, scenario)


async def test_nothing_is_kept_of_sessions_that_have_ended() -> None:
    limit = RateLimit(RateLimitSettings(requests=2, max_wait=0))
    bus = MessageBus.isolated()
    bus.add_middleware(limit)

    async def answer(command: Ask) -> int:
        return 1

    bus.register_command_handler(Ask, answer)

    async def converse(sessions: int) -> int:
        for _ in range(sessions):
            async with bus.session() as session:
                for _ in range(3):
                    with suppress(RateExceededError):
                        await session.execute(Ask())
                assert len(limit) == 1
        assert len(limit) == 0
        gc.collect()
        return sys.getallocatedblocks()

    async with bus:
        rounds = [await converse(100) for _ in range(5)]
    # What leaks grows in every round; what is made only once, or elsewhere, doesn't.
    assert min(after - before for before, after in pairwise(rounds)) < 50


@pytest.mark.parametrize("wrong", [{"requests": 0}, {"per": 0}, {"max_wait": -1}, {"max_keys": 0}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        RateLimitSettings(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match=r"^limit: "):
        TokenLimit(limit=0, estimate=estimated)

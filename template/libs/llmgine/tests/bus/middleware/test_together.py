"""All of them around the same handlers: in any order, nested, and through a stop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from llmgine.bus import MessageBus
from llmgine.bus.middleware import CircuitBreaker, DeadLetters, RateLimit, Retry
from llmgine.contracts import Command, Event, Middleware
from llmgine.errors import CircuitOpenError, RateExceededError
from llmgine.settings import CircuitBreakerSettings, CommandRetrySettings, RateLimitSettings
from llmgine.testing.fixtures import run_in_virtual_time


@dataclass(frozen=True, kw_only=True)
class Look(Command[str]):
    idempotent: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Report(Command[str]):
    pass


@dataclass(frozen=True, kw_only=True)
class Heard(Event):
    pass


class World:
    """Handlers of which the innermost one fails a number of times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: list[float] = []

    async def look(self, command: Look) -> str:
        self.calls.append(asyncio.get_running_loop().time())
        if len(self.calls) <= self.failures:
            raise ConnectionError("gone")
        return "seen"

    def bus(self, middlewares: Sequence[Middleware]) -> MessageBus:
        bus = MessageBus.isolated()
        for middleware in middlewares:
            bus.add_middleware(middleware)
        bus.register_command_handler(Look, self.look)

        async def report(command: Report) -> str:
            return f"nothing was {await bus.execute(Look())}"

        bus.register_command_handler(Report, report)
        return bus


ORDERS = list(itertools.permutations(range(4)))


def all_four() -> tuple[DeadLetters, Retry, CircuitBreaker, RateLimit]:
    return (
        DeadLetters(),
        Retry(CommandRetrySettings(attempts=3, delay=1)),
        CircuitBreaker(CircuitBreakerSettings(calls=10, failures=4)),
        RateLimit(RateLimitSettings(requests=2, per=10)),
    )


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
def test_a_nested_command_recovers_in_every_order(order: tuple[int, ...]) -> None:
    world, four = World(failures=2), all_four()

    async def main() -> None:
        async with world.bus([four[index] for index in order]) as bus:
            assert await bus.execute(Report()) == "nothing was seen"
            await bus.publish_and_wait(Heard())
            async with bus.session() as session:
                assert await session.execute(Report()) == "nothing was seen"
        assert four[0].letters() == []
        assert four[2].state(Look()) == "closed"

    run_in_virtual_time(main())
    assert len(world.calls) == 4


def test_in_the_recommended_order_each_attempt_takes_a_turn() -> None:
    world, four = World(failures=2), all_four()

    async def main() -> None:
        async with world.bus(four) as bus:
            assert await bus.execute(Look()) == "seen"

    run_in_virtual_time(main())
    assert world.calls[2] - world.calls[0] >= 10


def test_in_the_recommended_order_an_open_circuit_takes_no_turn() -> None:
    world, four = World(failures=99), all_four()

    async def main() -> None:
        async with world.bus(four) as bus:
            for _ in range(2):
                with pytest.raises((ConnectionError, CircuitOpenError)):
                    await bus.execute(Look())
            assert four[2].state(Look()) == "open"
            began = asyncio.get_running_loop().time()
            for _ in range(9):
                with pytest.raises(CircuitOpenError):
                    await bus.execute(Look())
            assert asyncio.get_running_loop().time() == began
        errors = {letter.error.type.rpartition(".")[2] for letter in four[0].letters()}
        assert errors == {"ConnectionError", "CircuitOpenError"}

    run_in_virtual_time(main())
    assert len(world.calls) == 4


def test_a_refusal_within_says_nothing_about_the_circuit() -> None:
    world = World(failures=0)
    breaker = CircuitBreaker(CircuitBreakerSettings(calls=4, failures=1))
    limit = RateLimit(RateLimitSettings(requests=1, max_wait=0))

    async def main() -> None:
        async with world.bus([breaker, limit]) as bus:
            await bus.execute(Look())
            for _ in range(5):
                with pytest.raises(RateExceededError):
                    await bus.execute(Look())
        assert breaker.state(Look()) == "closed"

    run_in_virtual_time(main())

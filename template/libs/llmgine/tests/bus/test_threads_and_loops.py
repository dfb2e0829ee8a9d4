"""Other threads and other loops: refused by name, with one way across."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Command, Event, current_parent_id
from llmgine.errors import BusNotRunningError, WrongLoopError

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    pass


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


async def answer(command: Ask) -> str:
    return "answer"


Use = Callable[[MessageBus], Coroutine[Any, Any, object]]


async def execute(bus: MessageBus) -> None:
    await bus.execute(Ask())


async def publish(bus: MessageBus) -> None:
    await bus.publish(Step())


async def publish_and_wait(bus: MessageBus) -> None:
    await bus.publish_and_wait(Step())


async def join(bus: MessageBus) -> None:
    await bus.join()


async def enter_session(bus: MessageBus) -> None:
    async with bus.session():
        pass


async def schedule(bus: MessageBus) -> None:
    bus.schedule(Step(), at=datetime.now(UTC))


@pytest.mark.parametrize("use", [execute, publish, publish_and_wait, join, enter_session, schedule])
async def test_another_threads_loop_is_told_of_publish_threadsafe(
    bus: MessageBus, use: Use
) -> None:
    bus.register_command_handler(Ask, answer)

    def elsewhere() -> None:
        with pytest.raises(WrongLoopError, match="publish_threadsafe"):
            asyncio.run(use(bus))

    await asyncio.to_thread(elsewhere)


async def test_start_and_stop_from_another_loop_are_refused(bus: MessageBus) -> None:
    def elsewhere() -> None:
        for use in (bus.start, bus.stop):
            with pytest.raises(WrongLoopError, match="another event loop"):
                asyncio.run(use())

    await asyncio.to_thread(elsewhere)
    assert bus.stats().running


async def test_publish_threadsafe_crosses_over(bus: MessageBus) -> None:
    heard: list[tuple[int, str]] = []
    loop_thread = threading.get_ident()

    async def hear(event: Step) -> None:
        assert threading.get_ident() == loop_thread
        heard.append((event.number, request_id.get()))

    def elsewhere() -> None:
        request_id.set("of the thread")
        for number in range(10):
            bus.publish_threadsafe(Step(number=number)).result(2)

    bus.register_event_handler(Step, hear)
    await asyncio.to_thread(elsewhere)
    await bus.join()
    assert heard == [(number, "of the thread") for number in range(10)]


async def test_publish_threadsafe_from_many_threads_loses_nothing(bus: MessageBus) -> None:
    heard: list[int] = []

    def hear(event: Step) -> None:
        heard.append(event.number)

    def elsewhere(start: int) -> None:
        pending = [bus.publish_threadsafe(Step(number=start + n)) for n in range(100)]
        for future in pending:
            future.result(5)

    bus.register_event_handler(Step, hear, inline=True)
    await asyncio.gather(*(asyncio.to_thread(elsewhere, 100 * n) for n in range(4)))
    await bus.join()
    assert sorted(heard) == list(range(400))
    for start in range(0, 400, 100):
        own = [number for number in heard if start <= number < start + 100]
        assert own == sorted(own)


async def test_a_plain_handler_publishes_from_its_thread(bus: MessageBus) -> None:
    parents: list[str | None] = []

    def in_thread(event: Step) -> None:
        if event.number == 0:
            made = Step(number=1)
            parents.append(made.parent_id)
            bus.publish_threadsafe(made).result(2)
        else:
            parents.append(current_parent_id())

    bus.register_event_handler(Step, in_thread)
    first = Step()
    await bus.publish(first)
    await bus.join()
    assert parents[0] == first.id
    assert len(parents) == 2


def test_publish_threadsafe_needs_a_running_bus() -> None:
    with pytest.raises(BusNotRunningError):
        MessageBus.isolated().publish_threadsafe(Step())


async def test_publish_threadsafe_hands_on_a_refusal(bus: MessageBus) -> None:
    class Undecorated(Event):
        pass

    def elsewhere() -> Future[None]:
        return bus.publish_threadsafe(Undecorated())

    future = await asyncio.to_thread(elsewhere)
    with pytest.raises(TypeError, match="not decorated"):
        await asyncio.wrap_future(future)


def test_a_registration_ends_after_its_loop_was_closed_while_somebody_waited() -> None:
    bus = MessageBus.isolated()

    async def hang(event: Step) -> None:
        await asyncio.Event().wait()

    async def begin() -> asyncio.Task[None]:
        await bus.start()
        await bus.publish(Step())
        joining = asyncio.create_task(bus.join())
        await asyncio.sleep(0)
        return joining

    registration = bus.register_event_handler(Step, hang)
    loop = asyncio.new_event_loop()
    joining = loop.run_until_complete(begin())
    loop.close()
    registration.cancel()
    assert not joining.done()

"""What can be registered, what is refused and why; the singleton; messages the bus makes."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.bus.report import command_result, command_started
from llmgine.contracts import (
    Command,
    CommandResult,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    EventHandlerFailedEvent,
)
from llmgine.errors import InvalidMessageError, UndecoratedMessageError

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


class Undecorated(Event):
    number: int = 0


class UndecoratedCommand(Command[str]):
    text: str = ""


class UndecoratedBelow(Step):
    more: int = 0


async def echo(command: Ask) -> str:
    return command.text


async def refused(command: UndecoratedCommand) -> str:
    return command.text


def test_an_undecorated_class_is_refused_showing_the_line_to_add() -> None:
    bus = MessageBus.isolated()
    line = r"@dataclass\(frozen=True, kw_only=True\)\s+class "
    with pytest.raises(UndecoratedMessageError, match=line + "Undecorated"):
        bus.register_event_handler(Undecorated, print)
    with pytest.raises(UndecoratedMessageError, match=line + "UndecoratedBelow"):
        bus.register_event_handler(UndecoratedBelow, print)
    with pytest.raises(UndecoratedMessageError, match=line + "UndecoratedCommand"):
        bus.register_command_handler(UndecoratedCommand, refused)


async def test_an_undecorated_event_is_refused_when_it_is_published(bus: MessageBus) -> None:
    bus.register_event_handler(Event, print)
    for publish in (bus.publish, bus.publish_and_wait):
        with pytest.raises(UndecoratedMessageError):
            await publish(Undecorated())
    with pytest.raises(UndecoratedMessageError):
        await MessageBus.isolated().publish(Undecorated())


@pytest.mark.parametrize("wrong", [Ask, int, "Step", None, Step()])
def test_only_event_classes_can_be_subscribed_to(wrong: Any) -> None:
    with pytest.raises(InvalidMessageError, match="expected a subclass of Event"):
        MessageBus.isolated().register_event_handler(wrong, print)


@pytest.mark.parametrize("wrong", [Step, int, "Ask", None])
def test_only_command_classes_can_be_handled(wrong: Any) -> None:
    with pytest.raises(InvalidMessageError, match="expected a subclass of Command"):
        MessageBus.isolated().register_command_handler(wrong, echo)


def generator(event: Step) -> Iterator[int]:
    yield event.number


async def async_generator(event: Step) -> AsyncIterator[int]:
    yield event.number


@pytest.mark.parametrize("wrong", [None, "print", 3, generator, async_generator])
def test_what_cannot_be_a_handler_is_refused(wrong: Any) -> None:
    bus = MessageBus.isolated()
    with pytest.raises(InvalidMessageError):
        bus.register_event_handler(Step, wrong)
    with pytest.raises(InvalidMessageError):
        bus.register_command_handler(Ask, wrong)


class Answerer:
    async def __call__(self, command: Ask) -> str:
        return f"called {command.text}"

    async def method(self, command: Ask) -> str:
        return f"method {command.text}"

    @staticmethod
    async def static(command: Ask) -> str:
        return f"static {command.text}"


async def with_prefix(prefix: str, command: Ask) -> str:
    return f"{prefix} {command.text}"


def returns_awaitable(command: Ask) -> Awaitable[str]:
    return with_prefix("awaitable", command)


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        (Answerer(), "called x"),
        (Answerer().method, "method x"),
        (Answerer.static, "static x"),
        (partial(with_prefix, "partial"), "partial x"),
        (returns_awaitable, "awaitable x"),
    ],
)
async def test_every_kind_of_callable_is_a_handler(
    bus: MessageBus, handler: Any, answer: str
) -> None:
    bus.register_command_handler(Ask, handler)
    assert await bus.execute(Ask(text="x")) == answer


async def test_a_failing_handler_is_named_whatever_kind_it_is(bus: MessageBus) -> None:
    class Broken:
        async def method(self, extra: str, event: Step) -> None:
            raise ValueError(extra)

    failures: list[EventHandlerFailedEvent] = []
    bus.register_event_handler(EventHandlerFailedEvent, failures.append, inline=True)
    bus.register_event_handler(Step, partial(Broken().method, "extra"))
    await bus.publish(Step())
    await bus.join()
    assert failures[0].handler.endswith("Broken.method")


def test_the_process_has_one_bus() -> None:
    assert MessageBus() is MessageBus()
    assert MessageBus.isolated() is not MessageBus.isolated()
    assert MessageBus() is not MessageBus.isolated()

    class OwnBus(MessageBus):
        pass

    assert OwnBus() is OwnBus()
    assert isinstance(OwnBus(), OwnBus)
    assert MessageBus() is not OwnBus()
    constructor: Any = MessageBus
    with pytest.raises(TypeError):
        constructor("settings")


async def test_a_session_is_on_the_processs_bus_by_default() -> None:
    from llmgine.bus import BusSession

    assert BusSession().bus is MessageBus()


def made_by_bus() -> list[tuple[Event, Event]]:
    command = Ask(text="x", session_id="s", parent_id="above")
    error = ValueError("boom")
    about: dict[str, Any] = {"session_id": "s", "parent_id": command.id}
    return [
        (command_started(command), CommandStartedEvent(command=command, **about)),
        (
            command_result(command, 1.5, "value"),
            CommandResultEvent(
                command=command, result=CommandResult(value="value", duration=1.5), **about
            ),
        ),
        (
            command_result(command, 2.5, error=error, status="cancelled"),
            CommandResultEvent(
                command=command,
                result=CommandResult(error=error, status="cancelled", duration=2.5),
                **about,
            ),
        ),
    ]


@pytest.mark.parametrize(("quick", "public"), made_by_bus(), ids=["started", "ok", "cancelled"])
def test_events_made_by_the_bus_equal_what_constructors_make(quick: Event, public: Event) -> None:
    assert type(quick) is type(public)
    for field in dataclasses.fields(public):
        made, expected = getattr(quick, field.name), getattr(public, field.name)
        if field.name == "id":
            assert (len(made), made == expected) == (len(expected), False)
        elif field.name == "timestamp":
            assert abs(made - expected) < 5
        else:
            assert made == expected
            assert type(made) is type(expected)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(quick, "session_id", "other")  # noqa: B010 - a frozen attribute


async def test_handlers_of_queued_events_run_in_a_copy_of_the_publishers_context(
    bus: MessageBus,
) -> None:
    seen: list[str] = []

    async def set_and_note(event: Step) -> None:
        seen.append(request_id.get())
        request_id.set(f"changed by {event.number}")
        await asyncio.sleep(0)

    async def second(event: Step) -> None:
        seen.append(request_id.get())

    bus.register_event_handler(Step, set_and_note)
    bus.register_event_handler(Step, second)
    for number in (1, 2):
        request_id.set(f"publisher {number}")
        await bus.publish(Step(number=number))
    await bus.join()
    # One context for each event: its handlers share it, others and the publisher don't.
    assert seen == ["publisher 1", "changed by 1", "publisher 2", "changed by 2"]
    assert request_id.get() == "publisher 2"


async def test_a_handler_can_reset_a_context_variable_across_awaits(bus: MessageBus) -> None:
    async def handler(event: Event) -> None:
        token = request_id.set("inner")
        await asyncio.sleep(0)
        request_id.reset(token)

    bus.register_event_handler(Step, handler)
    bus.register_event_handler(Event, handler, concurrent=True)
    await bus.publish_and_wait(Step())
    assert bus.stats().handlers_failed == 0


async def converse(bus: MessageBus, sessions: int, events: int) -> None:
    async def hear(event: Step) -> None:
        if event.number % 7 == 0:
            await asyncio.sleep(0)

    for number in range(sessions):
        async with bus.session() as session:
            session.register_event_handler(Step, hear)
            session.register_command_handler(Ask, echo)
            await session.execute(Ask(text="x"))
            await session.publish(Step(number=number))
    for number in range(events):
        await bus.publish(Step(number=number, session_id=f"visitor-{number % 50}"))
        if number % 500 == 0:
            await bus.join()
    await bus.join()


async def test_nothing_is_kept_of_20000_events_and_1000_sessions(bus: MessageBus) -> None:
    async def hear(event: Event) -> None:
        if event.session_id == "visitor-3":
            await asyncio.sleep(0)

    bus.register_event_handler(Event, hear)
    rounds: list[int] = []
    for _ in range(4):
        await converse(bus, 250, 5000)
        gc.collect()
        rounds.append(sys.getallocatedblocks())
    # What leaks grows in every round; what is made only once, or elsewhere, doesn't.
    assert min(after - before for before, after in pairwise(rounds)) < 100


async def test_nothing_is_kept_of_commands_that_fail_or_run_out_of_time(bus: MessageBus) -> None:
    async def fail(command: Ask) -> str:
        await asyncio.sleep(1 if command.text == "slow" else 0)
        raise ValueError(command.text)

    async def attempt(text: str) -> None:
        with suppress(ValueError, TimeoutError):
            await bus.execute(Ask(text=text), timeout=0.001)

    async def attempts() -> int:
        await asyncio.gather(*(attempt("fast") for _ in range(500)))
        await asyncio.gather(*(attempt("slow") for _ in range(200)))
        gc.collect()
        return sys.getallocatedblocks()

    bus.register_command_handler(Ask, fail)
    rounds = [await attempts() for _ in range(4)]
    assert min(after - before for before, after in pairwise(rounds)) < 100


async def test_the_numbers_of_a_bus(bus: MessageBus) -> None:
    async def fail(command: Ask) -> str:
        raise ValueError("boom")

    bus.register_command_handler(Ask, fail)
    bus.register_event_handler(Step, str)
    for _ in range(3):
        with pytest.raises(ValueError, match="boom"):
            await bus.execute(Ask())
        await bus.publish(Step())
    assert bus.stats().events_queued == 3
    await bus.join()
    stats = bus.stats()
    assert (stats.commands, stats.commands_failed, stats.commands_in_flight) == (3, 3, 0)
    assert (stats.events, stats.events_handled, stats.events_queued) == (3, 3, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(stats, "events", 0)  # noqa: B010 - a frozen attribute

"""Code around every handler, and eyes on every event."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Command, CommandResultEvent, CommandStartedEvent, Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import CommandTimeoutError, ConfigurationError
from llmgine.settings import BusSettings

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    pass


@dataclass(frozen=True, kw_only=True)
class Chunk(Event):
    observed: ClassVar[bool] = False


class Note:
    """Middleware that writes down when it was passed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        self.notes.append(f"{self.name} before {type(message).__name__}")
        try:
            return await call_next(message)
        finally:
            self.notes.append(f"{self.name} after")


async def echo(command: Ask) -> str:
    await asyncio.sleep(0)
    return command.text


async def test_middleware_runs_around_commands_and_events_first_added_outermost() -> None:
    notes: list[str] = []
    bus = MessageBus.isolated()
    bus.add_middleware(Note("outer", notes))
    bus.add_middleware(Note("inner", notes))
    bus.register_command_handler(Ask, echo)

    def step(event: Step) -> None:
        notes.append("handled")

    async with bus:
        bus.register_event_handler(Step, step)
        assert await bus.execute(Ask(text="hello")) == "hello"
        assert notes == ["outer before Ask", "inner before Ask", "inner after", "outer after"]
        notes.clear()
        await bus.publish_and_wait(Step())
    assert notes == [
        "outer before Step",
        "inner before Step",
        "handled",
        "inner after",
        "outer after",
    ]


async def test_middleware_may_answer_change_repeat_or_fail() -> None:
    async def policy(message: Message, call_next: CallNext) -> object:
        match message:
            case Ask(text="cached"):
                return "from the cache"
            case Ask(text="twice"):
                return f"{await call_next(message)}{await call_next(message)}"
            case Ask(text="forbidden"):
                raise PermissionError("no")
            case _:
                return await call_next(Ask(text="changed"))

    bus = MessageBus.isolated()
    bus.add_middleware(policy)
    bus.register_command_handler(Ask, echo)
    async with bus:
        assert await bus.execute(Ask(text="cached")) == "from the cache"
        assert await bus.execute(Ask(text="twice")) == "twicetwice"
        assert await bus.execute(Ask(text="hello")) == "changed"
        with pytest.raises(PermissionError):
            await bus.execute(Ask(text="forbidden"))


async def test_middleware_is_under_the_handlers_limit() -> None:
    async def hangs(message: Message, call_next: CallNext) -> object:
        await asyncio.Event().wait()
        return await call_next(message)

    bus = MessageBus.isolated(BusSettings(command_timeout=0.02))
    bus.add_middleware(hangs)
    bus.register_command_handler(Ask, echo)
    async with bus:
        with pytest.raises(CommandTimeoutError):
            await bus.execute(Ask())


async def test_middleware_is_added_before_start_and_can_be_taken_back() -> None:
    notes: list[str] = []
    bus = MessageBus.isolated()
    registration = bus.add_middleware(Note("m", notes))
    bus.register_command_handler(Ask, echo)
    async with bus:
        with pytest.raises(ConfigurationError, match="before the bus starts"):
            bus.add_middleware(Note("late", notes))
        await bus.execute(Ask())
    registration.cancel()
    registration.cancel()
    async with bus:
        await bus.execute(Ask())
    assert notes == ["m before Ask", "m after"]


async def test_middleware_that_observes_is_shown_every_event_until_it_is_taken_back() -> None:
    class Watching(Note):
        def observe(self, event: Event) -> None:
            self.notes.append(f"saw {type(event).__name__}")

    notes: list[str] = []
    bus = MessageBus.isolated()
    registration = bus.add_middleware(Watching("m", notes))
    async with bus:
        async with bus.session():
            await bus.publish(Step())
        registration.cancel()
        await bus.publish(Step())
    assert notes == ["saw SessionStartEvent", "saw Step", "saw SessionEndEvent"]


async def test_an_observer_sees_events_in_the_publishers_task_before_they_are_queued(
    bus: MessageBus,
) -> None:
    seen: list[tuple[Event, object, str, int]] = []

    def observe(event: Event) -> None:
        queued = bus.stats().events_queued
        seen.append((event, asyncio.current_task(), request_id.get(), queued))

    bus.register_event_handler(Step, print)
    bus.add_observer(observe)
    request_id.set("publisher's")
    event = Step()
    await bus.publish(event)
    assert seen == [(event, asyncio.current_task(), "publisher's", 0)]


async def test_an_observer_sees_every_event_though_nobody_handles_it(bus: MessageBus) -> None:
    seen: list[Event] = []
    registration = bus.add_observer(seen.append)
    bus.register_command_handler(Ask, echo)
    await bus.publish(Step())
    await bus.publish_and_wait(Step())
    await bus.execute(Ask())
    async with bus.session():
        pass
    assert [type(event).__name__ for event in seen] == [
        "Step",
        "Step",
        "CommandStartedEvent",
        "CommandResultEvent",
        "SessionStartEvent",
        "SessionEndEvent",
    ]
    registration.cancel()
    await bus.publish(Step())
    assert len(seen) == 6


async def test_unobserved_classes_are_kept_from_observers_not_from_handlers(
    bus: MessageBus,
) -> None:
    seen: list[Event] = []
    heard: list[Event] = []
    bus.add_observer(seen.append)
    bus.register_event_handler(Chunk, heard.append, inline=True)
    await bus.publish_and_wait(Chunk())
    assert (len(seen), len(heard)) == (0, 1)


async def test_an_observer_that_raises_is_logged_counted_and_harmless(
    bus: MessageBus, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ValueError("broken observer")

    seen: list[Event] = []
    bus.add_observer(broken)
    bus.add_observer(seen.append)
    bus.register_command_handler(Ask, echo)
    assert await bus.execute(Ask(text="fine")) == "fine"
    await bus.publish(Step())
    assert len(seen) == 3
    assert bus.stats().observers_failed == 3
    assert "broken observer" in caplog.text


async def test_an_observer_alone_gets_both_lifecycle_events(bus: MessageBus) -> None:
    seen: list[Event] = []
    bus.add_observer(seen.append)
    bus.register_command_handler(Ask, echo)
    command = Ask(text="x")
    await bus.execute(command)
    started, ended = seen
    assert isinstance(started, CommandStartedEvent)
    assert isinstance(ended, CommandResultEvent)
    assert started.command is ended.command is command
    assert ended.result.value == "x"

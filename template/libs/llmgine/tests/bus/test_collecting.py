"""Registrations can be collected, to end together."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Command, Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import NoHandlerError


@dataclass(frozen=True, kw_only=True)
class Ask(Command[int]):
    pass


@dataclass(frozen=True, kw_only=True)
class Tick(Event):
    pass


async def middleware(message: Message, call_next: CallNext) -> object:
    return await call_next(message)


async def answer(command: Ask) -> int:
    return 1


async def test_all_that_is_registered_in_the_block_ends_together() -> None:
    bus = MessageBus.isolated()
    seen: list[Event] = []
    outside: list[Event] = []
    with bus.collecting() as registered:
        bus.add_middleware(middleware)
        bus.add_observer(seen.append)
        bus.register_command_handler(Ask, answer)
        bus.register_event_handler(Tick, seen.append)
        bus.schedule(Tick(), after=60)
    bus.register_event_handler(Tick, outside.append)
    assert len(registered) == 5
    for registration in registered:
        registration.cancel()
    async with bus:
        await bus.publish_and_wait(Tick())
        with pytest.raises(NoHandlerError):
            await bus.execute(Ask())
        assert bus.stats().events_scheduled == 0
    assert seen == []
    assert len(outside) == 1


def test_collections_nest_and_end() -> None:
    bus = MessageBus.isolated()
    with bus.collecting() as outer:
        with bus.collecting() as inner:
            bus.register_command_handler(Ask, answer)
        bus.register_event_handler(Tick, print)
    bus.register_event_handler(Tick, str)
    assert (len(outer), len(inner)) == (2, 1)

"""What type checkers must take, and what they must infer. They read it; nothing runs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import assert_type

from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import Bus, Command, Event
from llmgine.contracts.codec import decode, register
from llmgine.contracts.llm import Usage


@register
@dataclass(frozen=True, kw_only=True)
class Count(Command[int]):
    word: str


@dataclass(frozen=True, kw_only=True)
class Forget(Command[None]):
    word: str


@dataclass(frozen=True, kw_only=True)
class Counted(Event):
    number: int


@dataclass(frozen=True, kw_only=True)
class CountedTwice(Counted):
    again: int


async def count(command: Count) -> int:
    return len(command.word)


def count_in_a_thread(command: Count) -> int:
    return len(command.word)


def count_any(command: Command[int]) -> int:
    return len(command.id)


def count_truth(command: Count) -> bool:
    return bool(command.word)


async def forget(command: Forget) -> None:
    del command


async def hear(event: Counted) -> None:
    del event


def hear_anything(event: Event) -> str:
    return event.id


def count_with(prefix: str, command: Count) -> int:
    return len(prefix + command.word)


class Service:
    async def count(self, command: Count) -> int:
        return len(command.word)

    def hear(self, event: Counted) -> None:
        del event


class Counter:
    async def __call__(self, command: Count) -> int:
        return len(command.word)


class Listener:
    def __call__(self, event: Event) -> None:
        del event


async def with_a_bus(bus: Bus) -> None:
    assert_type(await bus.execute(Count(word="a")), int)
    assert_type(await bus.execute(Forget(word="a")), None)
    bus.register_command_handler(Count, count)
    bus.register_command_handler(Count, count_in_a_thread)
    bus.register_command_handler(Count, count_any)
    bus.register_command_handler(Count, count_truth)
    bus.register_command_handler(Count, Service().count)
    bus.register_command_handler(Count, Counter())
    bus.register_command_handler(Count, partial(count_with, "x"))
    bus.register_command_handler(Forget, forget)
    bus.register_event_handler(Counted, hear)
    bus.register_event_handler(CountedTwice, hear)
    bus.register_event_handler(Counted, hear_anything)
    bus.register_event_handler(Counted, Service().hear)
    bus.register_event_handler(Counted, Listener())
    bus.register_event_handler(Counted, lambda event: event.number)


async def with_the_real_ones(bus: MessageBus, session: BusSession) -> None:
    plain: Bus = bus
    assert_type(await plain.execute(Count(word="a")), int)
    assert_type(await bus.execute(Count(word="a")), int)
    assert_type(await session.execute(Count(word="a")), int)
    bus.register_command_handler(Count, count)
    bus.register_event_handler(Counted, Service().hear)
    session.register_command_handler(Count, Counter())
    session.register_event_handler(Counted, lambda event: event.number)


def with_the_codec(data: bytes) -> None:
    assert_type(decode(data), object)
    assert_type(decode(data, Usage), Usage)
    assert_type(Count(word="a").word, str)

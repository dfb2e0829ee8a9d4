"""A test to copy: a command, its handler, and a bus of the test's own (see conftest.py)."""

from __future__ import annotations

from dataclasses import dataclass

from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import Command


@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str


async def greet(command: Greet) -> str:
    return f"Hello, {command.name}!"


async def test_a_command_is_answered(bus: MessageBus) -> None:
    bus.register_command_handler(Greet, greet)
    async with BusSession(bus=bus) as session:
        assert await session.execute(Greet(name="Ada")) == "Hello, Ada!"

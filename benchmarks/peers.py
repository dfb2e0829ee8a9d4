"""Other libraries that do what a bus does, each as it comes and by its own documented calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from measuring import Subject, Tally

__all__ = ["IN_FLIGHT", "PEERS", "Note", "version"]

IN_FLIGHT = 100


@dataclass(frozen=True)
class Note:
    """A message of one field."""

    number: int


def version(name: str) -> str | None:
    """Return which version is installed, if one is."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _one_by_one(send: Callable[[Note], Awaitable[object]]) -> Callable[[int], Awaitable[None]]:
    async def run(operations: int) -> None:
        for number in range(operations):
            await send(Note(number))

    return run


def _together(send: Callable[[Note], Awaitable[object]]) -> Callable[[int], Awaitable[None]]:
    async def run(operations: int) -> None:
        for begin in range(0, operations, IN_FLIGHT):
            sent = [send(Note(number)) for number in range(begin, begin + IN_FLIGHT)]
            await asyncio.gather(*sent)

    return run


def _counted(tally: Tally) -> Callable[[], int]:
    return lambda: tally.count


async def _mediatorx(stack: AsyncExitStack) -> list[Subject]:
    del stack
    package, name = import_module("mediatorx"), "mediatorx"

    def mediator(handlers: int) -> tuple[Any, Tally]:
        tally = Tally()

        class Handler:
            async def handle(self, message: Note) -> None:
                del message
                tally.count += 1

        made = package.Mediator(package.DictResolver().add_instance(Handler, Handler()))
        made.register(Note, Handler)
        for _ in range(handlers):
            made.register_notification(Note, Handler)
        return made, tally

    subjects: list[Subject] = []
    for row, shape in (("execute", _one_by_one), ("in_flight", _together)):
        made, tally = mediator(0)
        subjects.append(Subject(row, name, 200, shape(made.send), _counted(tally)))
    for handlers in (1, 10):
        made, tally = mediator(handlers)
        run = _one_by_one(made.publish)
        subjects.append(Subject(f"publish_{handlers}", name, 200, run, _counted(tally), handlers))
    return subjects


async def _blinker(stack: AsyncExitStack) -> list[Subject]:
    package, name = import_module("blinker"), "blinker"

    def signal(receivers: int) -> tuple[Callable[[Note], Awaitable[object]], Tally]:
        made, tally = package.Signal(), Tally()
        for _ in range(receivers):

            async def receive(sender: object, message: Note) -> None:
                del sender, message
                tally.count += 1

            made.connect(receive)
            stack.callback(made.disconnect, receive)  # which keeps it: the signal won't

        def send(note: Note) -> Awaitable[object]:
            return made.send_async(None, message=note)

        return send, tally

    subjects: list[Subject] = []
    for row, shape in (("execute", _one_by_one), ("in_flight", _together)):
        send, tally = signal(1)
        subjects.append(Subject(row, name, 200, shape(send), _counted(tally)))
    for receivers in (1, 10):
        send, tally = signal(receivers)
        run = _one_by_one(send)
        subjects.append(Subject(f"publish_{receivers}", name, 200, run, _counted(tally), receivers))
    return subjects


async def _autogen(stack: AsyncExitStack) -> list[Subject]:
    core, name = import_module("autogen_core"), "autogen-core"

    async def runtime(agents: int) -> tuple[Any, Tally]:
        tally = Tally()

        class Desk(core.RoutedAgent):
            @core.message_handler
            async def on_note(self, message: Note, ctx: Any) -> None:  # noqa: ANN401 - untyped here
                del message, ctx
                tally.count += 1

        made = core.SingleThreadedAgentRuntime()
        for number in range(agents):
            await Desk.register(made, f"desk{number}", lambda: Desk("a desk"))
            await made.add_subscription(core.TypeSubscription("notes", f"desk{number}"))
        made.start()
        stack.push_async_callback(made.stop_when_idle)
        return made, tally

    desk, topic = core.AgentId("desk0", "default"), core.TopicId("notes", "default")
    subjects: list[Subject] = []
    for row, shape in (("execute", _one_by_one), ("in_flight", _together)):
        made, tally = await runtime(1)

        def send(note: Note, made: Any = made) -> Awaitable[object]:  # noqa: ANN401 - as above
            return made.send_message(note, desk)

        subjects.append(Subject(row, name, IN_FLIGHT, shape(send), _counted(tally)))
    for agents in (1, 10):
        made, tally = await runtime(agents)

        async def run(operations: int, made: Any = made) -> None:  # noqa: ANN401 - as above
            for number in range(operations):
                await made.publish_message(Note(number), topic)
            await made.stop_when_idle()
            made.start()

        subjects.append(Subject(f"publish_{agents}", name, 20, run, _counted(tally), agents))
    return subjects


async def _bubus(stack: AsyncExitStack) -> list[Subject]:
    package, name = import_module("bubus"), "bubus"
    logging.getLogger("bubus").setLevel(logging.ERROR)

    class NoteEvent(package.BaseEvent):
        number: int

    def bus(handlers: int) -> tuple[Any, Tally]:
        made, tally = package.EventBus(), Tally()
        for number in range(handlers):

            async def hear(event: object) -> None:
                del event
                tally.count += 1

            hear.__name__ = f"hear{number}"
            made.on(NoteEvent, hear)
        stack.push_async_callback(made.stop, timeout=1, clear=True)
        return made, tally

    executing, executed = bus(1)

    async def execute(operations: int) -> None:
        for number in range(operations):
            await executing.dispatch(NoteEvent(number=number))

    # Its queue takes 50 events at most, so there is no row with 100 in flight.
    subjects = [Subject("execute", name, 5, execute, _counted(executed))]
    for handlers in (1, 10):
        made, tally = bus(handlers)

        async def publish(operations: int, made: Any = made) -> None:  # noqa: ANN401 - as above
            events = [made.dispatch(NoteEvent(number=number)) for number in range(operations)]
            for event in events:
                await event

        subjects.append(Subject(f"publish_{handlers}", name, 5, publish, _counted(tally), handlers))
    return subjects


PEERS: dict[str, Callable[[AsyncExitStack], Awaitable[list[Subject]]]] = {
    "mediatorx": _mediatorx,
    "blinker": _blinker,
    "autogen-core": _autogen,
    "bubus": _bubus,
}
"""Each library by its package's name, with what makes its subjects."""

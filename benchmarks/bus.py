# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "autogen-core>=0.7.5,<0.8",
#   "blinker>=1.9,<2",
#   "bubus>=1.5.6,<1.6",
#   "llmgine[jsonl]",
#   "mediatorx>=1.0.1,<2",
# ]
#
# [tool.uv.sources]
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What a message costs on the bus, beside other libraries and beside no bus at all.

    uv run benchmarks/bus.py [--quick] [--rounds N] [--json FILE] [--readme]

All figures are CPU time in F, one direct `await handler(message)` that builds the message, a
frozen dataclass of one field. All subjects take turns, in rounds of about a millisecond, and the
best round counts, so that a busy machine changes the ratios little. Every delivery is counted: a
wrong count is the one thing that fails. The libraries to compare with come in an environment of
their own.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmgine.bus import MessageBus
from llmgine.contracts import Command, Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.observability import ObservabilityClient
from llmgine.observability.console import ConsoleEventHandler
from llmgine.observability.jsonl import FileEventHandler
from llmgine.settings import ConsoleSettings, FileSettings
from measuring import (
    Subject,
    Tally,
    blocks_kept,
    columns,
    markdown,
    put_between,
    take_turns,
    undelivered,
)
from peers import IN_FLIGHT, PEERS, Note, version

__all__ = ["main"]

_OURS = "llmgine"
_DIRECT = "no bus"
_README = Path(__file__).parent.parent / "README.md"
_COMMAND = "uv run benchmarks/bus.py"


@dataclass(frozen=True, kw_only=True)
class Ask(Command[None]):
    """A command of one field."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Told(Event):
    """An event of one field."""

    number: int


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: its name among the subjects.
        title: what is measured.
        limit: how much it may be.
        stretch: what would be better still.
        unit: F, or what else the figures count.
    """

    key: str
    title: str
    limit: float | None = None
    stretch: float | None = None
    unit: str = "F"

    def shown(self, value: float | None) -> str:
        """Return a figure as the table shows it."""
        if value is None:
            return "-"
        digits = 2 if self.unit == "blocks" else 1
        return f"{value:,.{digits}f}"

    def verdict(self, value: float | None) -> str:
        """Compare a figure, as it is shown, with what it may be."""
        if value is None or self.limit is None:
            return "-"
        seen = float(self.shown(value).replace(",", ""))
        if seen > self.limit:
            return "missed"
        return "yes" if self.stretch is None or seen > self.stretch else "stretch"


_ROWS = (
    Row("execute", "execute, nobody listening", 6, 5),
    Row("observed", "execute, 2 middlewares, 1 inline observer", 14, 12),
    Row("queued", "execute, 2 middlewares, a queued subscriber to `Event`", 20, 17),
    Row("in_flight", f"execute, {IN_FLIGHT} in flight, nobody listening", 12, 9),
    Row("publish_1", "publish to 1 handler, burst, to the last delivery", 8, 6),
    Row("publish_10", "publish to 10 handlers, burst, to the last delivery", 13, 11),
    Row("session", "session: open, 1 command, close; 1,000 others open", 20, 16),
    Row("growth", "... against 100 others open (times)", 1.2, 1.0, "times"),
    Row("event_memory", "memory kept per event (blocks)", 0, 0, "blocks"),
    Row("session_memory", "memory kept per closed session (blocks)", 0, 0, "blocks"),
    Row("handlers", "execute, console and event file on, to the last line written"),
)


# -- Our subjects


class _Nowhere(io.StringIO):
    """A stream that takes everything and keeps nothing."""

    def write(self, s: str, /) -> int:
        return len(s)


async def _started(stack: AsyncExitStack) -> MessageBus:
    return await stack.enter_async_context(MessageBus.isolated())


def _ours(
    row: str, operations: int, run: Callable[[int], Awaitable[None]], tally: Tally, each: int = 1
) -> Subject:
    return Subject(row, _OURS, operations, run, lambda: tally.count, each)


def _executing(bus: MessageBus) -> Callable[[int], Awaitable[None]]:
    async def run(operations: int) -> None:
        for number in range(operations):
            await bus.execute(Ask(number=number))

    return run


async def _through(message: Message, call_next: CallNext) -> object:
    return await call_next(message)


async def _through_too(message: Message, call_next: CallNext) -> object:
    return await call_next(message)


async def _execute(stack: AsyncExitStack) -> Subject:
    bus, tally = await _started(stack), Tally()
    bus.register_command_handler(Ask, tally.hear)
    return _ours("execute", 400, _executing(bus), tally)


async def _observed(stack: AsyncExitStack) -> Subject:
    bus, tally = MessageBus.isolated(), Tally()
    bus.add_middleware(_through)
    bus.add_middleware(_through_too)
    bus.add_observer(tally.see)
    bus.register_command_handler(Ask, tally.hear)
    await stack.enter_async_context(bus)
    return _ours("observed", 200, _executing(bus), tally, each=3)


async def _queued(stack: AsyncExitStack) -> Subject:
    bus, tally = MessageBus.isolated(), Tally()
    bus.add_middleware(_through)
    bus.add_middleware(_through_too)

    async def run(operations: int) -> None:
        await execute(operations)
        await bus.join()

    # Middleware is around every handler: six calls of it for a command and its two events.
    bus.register_event_handler(Event, tally.hear)
    bus.register_command_handler(Ask, tally.hear)
    await stack.enter_async_context(bus)
    execute = _executing(bus)
    return _ours("queued", 150, run, tally, each=3)


async def _in_flight(stack: AsyncExitStack) -> Subject:
    bus, tally = await _started(stack), Tally()
    bus.register_command_handler(Ask, tally.hear)

    async def run(operations: int) -> None:
        for begin in range(0, operations, IN_FLIGHT):
            numbers = range(begin, begin + IN_FLIGHT)
            await asyncio.gather(*[bus.execute(Ask(number=number)) for number in numbers])

    return _ours("in_flight", 200, run, tally)


async def _publish(stack: AsyncExitStack, handlers: int) -> Subject:
    bus, tally = await _started(stack), Tally()

    def register() -> None:
        async def hear(event: Told) -> None:
            del event
            tally.count += 1

        bus.register_event_handler(Told, hear)

    async def run(operations: int) -> None:
        for number in range(operations):
            await bus.publish(Told(number=number))
        await bus.join()

    for _ in range(handlers):
        register()
    return _ours(f"publish_{handlers}", 400 // handlers + 100, run, tally, each=handlers)


async def _session(stack: AsyncExitStack, row: str, others: int) -> Subject:
    bus, tally = await _started(stack), Tally()
    bus.register_command_handler(Ask, tally.hear)
    opened, enough = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with AsyncExitStack() as sessions:
            for _ in range(others):
                await sessions.enter_async_context(bus.session())
            opened.set()
            await enough.wait()

    async def run(operations: int) -> None:
        for number in range(operations):
            async with bus.session() as session:
                await session.execute(Ask(number=number))

    # A task of their own, since a session is ambient where it is opened.
    holding = asyncio.create_task(hold())

    async def release() -> None:
        enough.set()
        await holding

    stack.push_async_callback(release)
    await opened.wait()
    return _ours(row, 150, run, tally)


async def _handlers(stack: AsyncExitStack) -> Subject:
    """Return what the default project switches on, as its bootstrap wires it."""
    bus, tally = await _started(stack), Tally()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    file = FileEventHandler(FileSettings(path=Path(folder) / "events.jsonl"))
    client = ObservabilityClient([ConsoleEventHandler(ConsoleSettings(), _Nowhere()), file])
    stack.push_async_callback(client.stop)
    bus.add_observer(client.observe)
    bus.register_command_handler(Ask, tally.hear)
    execute = _executing(bus)

    async def run(operations: int) -> None:
        await execute(operations)
        await client.flush(60)

    def delivered() -> int:
        return tally.count + sum(each.delivered for each in client.report().handlers)

    return Subject("handlers", _OURS, 50, run, delivered, each=5)


def _direct() -> list[Subject]:
    """Return the same shapes without any bus; the first of them is F."""
    tallies = [Tally() for _ in range(3)]

    async def one(operations: int) -> None:
        hear = tallies[0].hear
        for number in range(operations):
            await hear(Note(number))

    async def together(operations: int) -> None:
        hear = tallies[1].hear
        for begin in range(0, operations, IN_FLIGHT):
            numbers = range(begin, begin + IN_FLIGHT)
            await asyncio.gather(*[hear(Note(number)) for number in numbers])

    async def ten(operations: int) -> None:
        handlers = [tallies[2].hear] * 10
        for number in range(operations):
            note = Note(number)
            for hear in handlers:
                await hear(note)

    return [
        Subject("execute", _DIRECT, 1000, one, lambda: tallies[0].count),
        Subject("in_flight", _DIRECT, 200, together, lambda: tallies[1].count),
        Subject("publish_10", _DIRECT, 300, ten, lambda: tallies[2].count, each=10),
    ]


async def _subjects(stack: AsyncExitStack, peers: Iterable[str]) -> list[Subject]:
    subjects = _direct()
    subjects += [
        await _execute(stack),
        await _observed(stack),
        await _queued(stack),
        await _in_flight(stack),
        await _publish(stack, 1),
        await _publish(stack, 10),
        await _session(stack, "session", 1000),
        await _session(stack, "fewer_sessions", 100),
        await _handlers(stack),
    ]
    for name in peers:
        subjects += await PEERS[name](stack)
    return subjects


# -- From measurements to a table


@dataclass(frozen=True)
class _Memory:
    """How many operations to look at, for each library, and in which row."""

    row: str
    subject: str
    operations: dict[str, int]


_MEMORY = (
    _Memory(
        "event_memory",
        "publish_1",
        {_OURS: 20_000, "mediatorx": 20_000, "blinker": 20_000, "autogen-core": 1000, "bubus": 100},
    ),
    _Memory("session_memory", "session", {_OURS: 5000}),
)


async def _memory(subjects: Iterable[Subject], share: float) -> dict[tuple[str, str], float]:
    """Return the blocks kept, by row and library."""
    kept: dict[tuple[str, str], float] = {}
    for memory in _MEMORY:
        for subject in subjects:
            if subject.row == memory.subject and subject.name in memory.operations:
                operations = max(subject.operations, int(memory.operations[subject.name] * share))
                kept[memory.row, subject.name] = await blocks_kept(subject, operations)
    return kept


def _figures(subjects: Iterable[Subject], floor: float) -> dict[tuple[str, str], float]:
    """Return the best rounds in F, by row and library."""
    figures = {(each.row, each.name): each.best / floor for each in subjects}
    figures["growth", _OURS] = figures["session", _OURS] / figures["fewer_sessions", _OURS]
    figures["publish_1", _DIRECT] = figures["execute", _DIRECT]
    return figures


async def _measure(rounds: int, share: float) -> dict[str, Any]:
    """Measure everything; `share` is how much of the usual number of operations to do."""
    versions = {name: version(name) for name in PEERS}
    async with AsyncExitStack() as stack:
        present = [name for name, installed in versions.items() if installed]
        subjects = await _subjects(stack, present)
        for subject in subjects:
            least = IN_FLIGHT if subject.row == "in_flight" else 1
            subject.operations = max(least, int(subject.operations * share))
        await take_turns(subjects, rounds)
        floor = subjects[0].best
        figures = _figures(subjects, floor) | await _memory(subjects, share)
        wrong = undelivered(subjects)
    return {
        "python": platform.python_version(),
        "rounds": rounds,
        "floor_ns": round(floor, 1),
        "peers": versions,
        "rows": [_row(row, figures) for row in _ROWS],
        "deliveries": sum(each.expected for each in subjects),
        "wrong_deliveries": wrong,
    }


def _row(row: Row, figures: dict[tuple[str, str], float]) -> dict[str, Any]:
    own = figures.get((row.key, _OURS))
    return {
        **asdict(row),
        "verdict": row.verdict(own),
        "figures": {
            name: None if figure is None else round(figure, 3)
            for name in (_OURS, _DIRECT, *PEERS)
            for figure in [figures.get((row.key, name))]
        },
    }


def _table(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = [_OURS, _DIRECT, *(name for name, found in report["peers"].items() if found)]
    head = ["in F, unless it says otherwise", "at most", "stretch", "reached", *names]
    lines: list[list[str]] = []
    for row, measured in zip(_ROWS, report["rows"], strict=True):
        figures = [row.shown(measured["figures"][name]) for name in names]
        bounds = ["-" if bound is None else f"{bound:g}" for bound in (row.limit, row.stretch)]
        lines.append([row.title, *bounds, measured["verdict"], *figures])
    return head, lines


def _notes(report: dict[str, Any]) -> str:
    """Say what the table was made from."""
    peers = report["peers"]
    found = ", ".join(f"{name} {number}" for name, number in peers.items() if number)
    missing = ", ".join(name for name, number in peers.items() if not number)
    lines = [
        f"F is {report['floor_ns']:.0f} ns: one direct `await handler(message)`, message built.",
        f"Python {report['python']}; CPU time; best of {report['rounds']} rounds, taking turns.",
        f"{report['deliveries']:,} deliveries, {len(report['wrong_deliveries'])} counts wrong.",
    ]
    if found:
        dash = "A dash: nothing comparable (bubus queues 50 events at most)."
        lines.append(f"Beside it: {found}. {dash}")
    if missing:
        lines.append(f"Not installed, so not measured: {missing}.")
    return "\n".join(lines)


def _for_readme(report: dict[str, Any]) -> str:
    table = markdown(*_table(report))
    return f"```\n{_COMMAND}\n```\n\n{table}\n\n{_notes(report)}"


def main() -> int:
    """Measure, and print a table; return 1 if a delivery is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    parser.add_argument("--rounds", type=int, default=100, help="how often each subject runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    rounds, share = (3, 0.2) if options.quick else (options.rounds, 1.0)
    report = asyncio.run(_measure(rounds, share))
    sys.stdout.write(f"{columns(*_table(report))}\n\n{_notes(report)}\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.readme:
        put_between(_README, "benchmarks:bus", _for_readme(report))
    for line in report["wrong_deliveries"]:
        sys.stderr.write(f"wrong: {line}\n")
    return 1 if report["wrong_deliveries"] else 0


if __name__ == "__main__":
    sys.exit(main())

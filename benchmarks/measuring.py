"""What the benchmarks stand on: turns, best rounds, deliveries that add up."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "Subject",
    "Tally",
    "blocks_kept",
    "columns",
    "direct",
    "direct_await",
    "markdown",
    "put_between",
    "take_turns",
    "undelivered",
]


class Tally:
    """Counts what arrives."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    async def hear(self, message: object) -> None:
        """Count a message: the handler of every subject."""
        del message
        self.count += 1

    def see(self, message: object) -> None:
        """Count a message, without being awaited."""
        del message
        self.count += 1


@dataclass
class Subject:
    """One library that does one thing again and again.

    Attributes:
        row: what it does.
        name: the library.
        operations: how often, in one round.
        run: does it that often, and returns once everything is delivered.
        delivered: how much has arrived so far, in all rounds.
        each: how much arrives for one operation.
        clock: what measures it, in nanoseconds.
        best: nanoseconds for one operation in the best round.
        done: operations so far.
    """

    row: str
    name: str
    operations: int
    run: Callable[[int], Awaitable[None]]
    delivered: Callable[[], int]
    each: int = 1
    clock: Callable[[], int] = time.process_time_ns
    best: float = field(default=math.inf, init=False)
    done: int = field(default=0, init=False)

    async def perform(self, operations: int) -> None:
        """Do it so often, and count that."""
        self.done += operations
        await self.run(operations)

    async def round(self) -> None:
        """Do one round by the clock, without the garbage collector."""
        gc.disable()
        try:
            began = self.clock()
            await self.perform(self.operations)
            took = self.clock() - began
        finally:
            gc.enable()
        self.best = min(self.best, took / self.operations)

    @property
    def expected(self) -> int:
        """How much should have arrived."""
        return self.done * self.each


async def take_turns(subjects: Sequence[Subject], rounds: int) -> None:
    """Give each subject its turn in every round, so that a busy machine slows all of them."""
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for subject in subjects:
                await subject.round()
            gc.collect()
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class _Word:
    """A message of one field."""

    number: int


def direct() -> Subject:
    """Return the measure F: one direct await of a handler, its message built."""
    tally = Tally()

    async def run(operations: int) -> None:
        for number in range(operations):
            await tally.hear(_Word(number))

    return Subject("direct", "no bus", 1000, run, lambda: tally.count)


async def direct_await() -> float:
    """Return F in nanoseconds."""
    subject = direct()
    await take_turns([subject], 30)
    return subject.best


async def blocks_kept(subject: Subject, operations: int) -> float:
    """Return how many blocks of memory stay allocated for one operation, once it is over."""
    least = math.inf
    for _ in range(4):  # the first of them warms up
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(operations // subject.operations):
            await subject.perform(subject.operations)
        gc.collect()
        least = min(least, sys.getallocatedblocks() - before)
    return max(0.0, least / operations)


def undelivered(subjects: Iterable[Subject]) -> list[str]:
    """Return a line for each subject whose deliveries don't add up."""
    return [
        f"{each.row}, {each.name}: {each.delivered()} delivered, {each.expected} expected"
        for each in subjects
        if each.delivered() != each.expected
    ]


def columns(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table for a terminal; all but the first column are flush right."""
    table = [head, *lines]
    widths = [max(len(line[place]) for line in table) for place in range(len(head))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table for a page; all but the first column are flush right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def put_between(page: Path, mark: str, text: str) -> None:
    """Put text between `<!-- mark -->` and `<!-- /mark -->`.

    Raises:
        ValueError: the page has no such place.
    """
    whole = page.read_text("utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        message = f"{page.name} has no place for {mark}"
        raise ValueError(message)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")

# /// script
# requires-python = ">=3.11"
# dependencies = ["llmgine"]
#
# [tool.uv.sources]
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What the durable context store makes of a disk, beside bare `sqlite3` and a store in memory.

    uv run benchmarks/context.py [--quick] [--rounds N] [--json FILE] [--readme]

50 tasks append to a conversation each, one message after the other, and each waits until its
message is safe. Bare `sqlite3` then writes the very rows that the store left, in one thread, in
transactions of as many rows as there are tasks: what it doesn't do is to make rows of messages and
to tell who waits. All subjects take turns, each round with a new file; the clock is the one on the
wall, since disks take time and no CPU. Every conversation is read again: a wrong one is the one
thing that fails.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from llmgine.context import InMemoryContextStore
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.contracts import ChatMessage, ContextStore
from reports import Report, Row, report_on

__all__ = ["main"]

_TASKS = 50
_LONG = 1000
_WINDOW = 20
_TICK = 0.001
_FULL, _NORMAL, _MEMORY, _IDLE = "FULL", "NORMAL", "in memory", "idle"
_TEXT = "A message of an ordinary length, as people write them to an assistant of theirs: " * 2
Conversations = Mapping[str, Sequence[ChatMessage]]
_ROWS = (
    Row("many", f"appends a second, {_TASKS} tasks", "bare sqlite3", 0.33, least=True),
    Row("one", "appends a second, one task", "bare sqlite3"),
    Row("wait", f"longest wait of the event loop, {_TASKS} tasks", "ms", 10),
    Row("window", f"the last {_WINDOW} of {_LONG:,} messages", "ms", 1),
)


@dataclass(frozen=True)
class Load:
    """How much one round does."""

    many: int
    one: int
    windows: int


_USUAL, _QUICK = Load(100, 200, 50), Load(4, 10, 5)


class Figures:
    """Everything that was measured, by row and column; several figures for several rounds."""

    def __init__(self) -> None:
        self._all: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.wrong: list[str] = []

    def add(self, row: str, name: str, figure: float) -> None:
        """Keep the figure of a round."""
        self._all[row, name].append(figure)

    def best(self, row: str, name: str) -> float:
        """Return the highest rate of all rounds."""
        return max(self._all[row, name])

    def typical(self, row: str, name: str) -> float:
        """Return the middle one of all rounds' figures."""
        return median(self._all[row, name])


# -- The stores


@asynccontextmanager
async def _opened(name: str, file: Path) -> AsyncGenerator[ContextStore]:
    if name == _MEMORY:
        yield InMemoryContextStore()
        return
    synchronous: Literal["full", "normal"] = "full" if name == _FULL else "normal"
    async with SQLiteContextStore(file, synchronous=synchronous) as store:
        yield store


def _conversations(name: str, number: int, length: int) -> Conversations:
    """Return what is to be said, by session."""
    said = [ChatMessage.user(f"{at}: {_TEXT}") for at in range(length)]
    return {f"{name} {at}": said for at in range(number)}


async def _converse(store: ContextStore, session_id: str, messages: Sequence[ChatMessage]) -> None:
    for message in messages:
        await store.add_message(session_id, message)


async def _append(store: ContextStore, conversations: Conversations) -> float:
    """Let a task have each conversation, one message after the other; return messages a second."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for session_id, messages in conversations.items():
            group.create_task(_converse(store, session_id, messages))
    took = time.perf_counter() - began
    return sum(map(len, conversations.values())) / took


async def _ticking(over: asyncio.Event) -> float:
    """Tick until it is over; return by how many milliseconds the latest tick came too late."""
    longest = 0.0
    while not over.is_set():
        began = time.perf_counter()
        await asyncio.sleep(_TICK)
        longest = max(longest, time.perf_counter() - began - _TICK)
    return 1000 * longest


async def _window(store: ContextStore, session_id: str, windows: int) -> float:
    """Return the milliseconds that the end of a long conversation usually takes."""
    times: list[float] = []
    for _ in range(windows):
        began = time.perf_counter()
        await store.get_context(session_id, last=_WINDOW)
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


async def _wrong(store: ContextStore, conversations: Conversations) -> list[str]:
    """Return a line for each conversation, or end of one, that isn't what was said."""
    wrong: list[str] = []
    for session_id, messages in conversations.items():
        said = [message.text for message in messages]
        for last in (None, _WINDOW):
            found = await store.get_context(session_id, last=last)
            if [message.text for message in found] != said[-last if last else 0 :]:
                wrong.append(f"{session_id}, last={last}: isn't what was said")
    return wrong


async def _store_round(name: str, file: Path, load: Load, figures: Figures) -> None:
    many, one, long = (
        _conversations("many", _TASKS, load.many),
        _conversations("one", 1, load.one),
        _conversations("long", 1, _LONG),
    )
    async with _opened(name, file) as store:
        over = asyncio.Event()
        ticking = asyncio.create_task(_ticking(over))
        figures.add("many", name, await _append(store, many))
        over.set()
        figures.add("wait", name, await ticking)
        figures.add("one", name, await _append(store, one))
        ((session_id, messages),) = long.items()
        await store.add_messages(session_id, messages)
        figures.add("window", name, await _window(store, session_id, load.windows))
        wrong = await _wrong(store, {**many, **one, **long})
        figures.wrong += [f"{name}: {line}" for line in wrong]


# -- The same without them


def _left_in(file: Path, name: str) -> tuple[list[str], str, list[tuple[Any, ...]]]:
    """Return a file's schema, the table of its messages, and the rows of some conversations."""
    with closing(sqlite3.connect(file)) as db:
        schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql > ''")]
        rows = db.execute("SELECT * FROM messages WHERE session LIKE ?", (f"{name} %",)).fetchall()
    insert = f"INSERT INTO messages VALUES ({', '.join('?' * len(rows[0]))})"  # noqa: S608 - no data
    return schema, insert, rows


def _bare(
    name: str, schema: Sequence[str], insert: str, groups: Sequence[Any], file: Path
) -> float:
    """Write the groups of rows, a transaction each; return the rows a second."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for statement in schema:
            db.execute(statement)
        db.execute(f"PRAGMA synchronous = {name}")
        began = time.perf_counter()
        for group in groups:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(insert, group)
            db.execute("COMMIT")
        return sum(map(len, groups)) / (time.perf_counter() - began)


async def _bare_round(name: str, file: Path, load: Load, figures: Figures) -> None:
    schema, insert, rows = _left_in(file, "many")
    # Rows come by conversation; the tasks took turns.
    groups = [rows[number :: load.many] for number in range(load.many)]
    write = partial(_bare, name, schema, insert)
    rate = await asyncio.to_thread(write, groups, file.with_suffix(".many"))
    figures.add("many", f"bare {name}", rate)
    _, _, rows = _left_in(file, "one")
    rate = await asyncio.to_thread(write, [[row] for row in rows], file.with_suffix(".one"))
    figures.add("one", f"bare {name}", rate)


# -- From measurements to a table


async def _round(load: Load, figures: Figures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in (_FULL, _NORMAL):
            file = Path(folder) / f"{name}.db"
            await _store_round(name, file, load, figures)
            await _bare_round(name, file, load, figures)
        await _store_round(_MEMORY, Path(folder), load, figures)
    over = asyncio.Event()
    ticking = asyncio.create_task(_ticking(over))
    await asyncio.sleep(load.many / 400)
    over.set()
    figures.add("wait", _IDLE, await ticking)


def _table(figures: Figures) -> dict[tuple[str, str], float]:
    table = {("wait", _IDLE): figures.typical("wait", _IDLE)}
    for name in (_FULL, _NORMAL, _MEMORY):
        bare = f"bare {_FULL if name == _FULL else _NORMAL}"
        for row in ("many", "one"):
            table[row, name] = figures.best(row, name) / figures.best(row, bare)
        table["window", name] = figures.typical("window", name)
        if name != _MEMORY:  # which never waits, and so never lets the loop go on
            table["wait", name] = figures.typical("wait", name)
    return table


async def _measure(rounds: int, quick: bool) -> Report:
    figures, load = Figures(), _QUICK if quick else _USUAL
    for _ in range(rounds):
        await _round(load, figures)
    bare = ", ".join(
        f"{figures.best('many', f'bare {name}'):,.0f} with {name}" for name in (_FULL, _NORMAL)
    )
    return Report(
        rows=_ROWS,
        names=[_FULL, _NORMAL, _MEMORY, _IDLE],
        own=[_FULL, _NORMAL],
        figures=_table(figures),
        notes=[
            f"Clock on the wall; {rounds} rounds, taking turns, each with a new file.",
            "Rates are the best round's, waits and windows those of the middle one.",
            f"Bare sqlite3: the same rows, {_TASKS} a transaction, one after the other.",
            f"It writes {bare} a second; in memory is counted in the latter.",
        ],
        wrong=figures.wrong,
    )


def main() -> int:
    """Measure, and print a table; return 1 if a conversation is wrong."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    return report_on("context", summary, 9, _measure)


if __name__ == "__main__":
    sys.exit(main())

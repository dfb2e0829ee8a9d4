# /// script
# requires-python = ">=3.11"
# dependencies = ["llmgine"]
#
# [tool.uv.sources]
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What the durable context store makes of a disk, beside bare group commit and a store in memory.

    uv run benchmarks/context.py [--quick] [--rounds N] [--json FILE] [--readme]

50 tasks append to a conversation each, one message after the other, and each waits until its
message is safe. Bare group commit then writes the very rows that the store left: as many tasks hand
them to one thread, which writes all that waits in one transaction and wakes them; it knows nothing
of messages, versions, errors and cancellation. Bare `sqlite3` writes them with nobody waiting, in
transactions of as many rows. All subjects take turns, each round with a new file; the clock is the
one on the wall, since disks take time and no CPU. Every conversation is read again: a wrong one is
the one thing that fails.
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
from pathlib import Path
from queue import SimpleQueue
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
    Row("many", f"appends a second, {_TASKS} tasks", "bare group commit", 0.33, least=True),
    Row("unheard", "... against rows that nobody waits for", "bare sqlite3"),
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


@dataclass(frozen=True)
class Rows:
    """What a store has left in its file.

    Attributes:
        schema: the statements that made its tables.
        insert: the one that puts in a row.
        rows: those of some conversations, in turn.
    """

    schema: list[str]
    insert: str
    rows: list[Any]

    @classmethod
    def of(cls, file: Path, name: str) -> Rows:
        """Read the conversations of that name."""
        select = "SELECT * FROM messages WHERE session LIKE ? ORDER BY number, session"
        with closing(sqlite3.connect(file)) as db:
            schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql > ''")]
            rows = db.execute(select, (f"{name} %",)).fetchall()
        places = ", ".join("?" * len(rows[0]))
        return cls(schema, f"INSERT INTO messages VALUES ({places})", rows)  # noqa: S608 - no data

    def connect(self, file: Path, synchronous: str) -> sqlite3.Connection:
        """Return a new database with the same tables."""
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        for statement in self.schema:
            db.execute(statement)
        return db

    def write(self, db: sqlite3.Connection, together: int) -> float:
        """Write so many rows in each transaction; return the rows a second."""
        began = time.perf_counter()
        for at in range(0, len(self.rows), together):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(self.insert, self.rows[at : at + together])
            db.execute("COMMIT")
        return len(self.rows) / (time.perf_counter() - began)


class Writer:
    """The least that lets tasks wait for a thread which writes all that waits at once."""

    def __init__(self, db: sqlite3.Connection, insert: str) -> None:
        self._db = db
        self._insert = insert
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[tuple[Any, asyncio.Future[None]] | None] = SimpleQueue()

    async def append(self, rows: Sequence[Any]) -> None:
        """Write rows, one after the other."""
        for row in rows:
            written: asyncio.Future[None] = self._loop.create_future()
            self._waiting.put((row, written))
            await written

    def end(self) -> None:
        """Let the thread end."""
        self._waiting.put(None)

    def work(self) -> None:
        """Write until the end, in a thread."""
        while (first := self._waiting.get()) is not None:
            group = [first]
            while not self._waiting.empty() and (one := self._waiting.get()) is not None:
                group.append(one)
            self._db.execute("BEGIN IMMEDIATE")
            for row, _ in group:
                self._db.execute(self._insert, row)
            self._db.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._tell, [written for _, written in group])

    def _tell(self, group: Sequence[asyncio.Future[None]]) -> None:
        for written in group:
            written.set_result(None)


async def _written(db: sqlite3.Connection, rows: Rows) -> float:
    """Let as many tasks as ever wait for a bare writer; return the rows a second."""
    writer = Writer(db, rows.insert)
    working = asyncio.create_task(asyncio.to_thread(writer.work))
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for task in range(_TASKS):
            group.create_task(writer.append(rows.rows[task::_TASKS]))
    took = time.perf_counter() - began
    writer.end()
    await working
    return len(rows.rows) / took


async def _bare_round(name: str, file: Path, figures: Figures) -> None:
    many, one = Rows.of(file, "many"), Rows.of(file, "one")
    with closing(many.connect(file.with_suffix(".many"), name)) as db:
        figures.add("unheard", f"bare {name}", many.write(db, _TASKS))
    with closing(many.connect(file.with_suffix(".waiting"), name)) as db:
        figures.add("many", f"bare {name}", await _written(db, many))
    with closing(one.connect(file.with_suffix(".one"), name)) as db:
        figures.add("one", f"bare {name}", one.write(db, 1))


# -- From measurements to a table


async def _round(load: Load, figures: Figures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in (_FULL, _NORMAL):
            file = Path(folder) / f"{name}.db"
            await _store_round(name, file, load, figures)
            await _bare_round(name, file, figures)
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
        for row, own in (("many", "many"), ("unheard", "many"), ("one", "one")):
            table[row, name] = figures.best(own, name) / figures.best(row, bare)
        table["window", name] = figures.typical("window", name)
        if name != _MEMORY:  # which never waits, and so never lets the loop go on
            table["wait", name] = figures.typical("wait", name)
    return table


async def _measure(rounds: int, quick: bool) -> Report:
    figures, load = Figures(), _QUICK if quick else _USUAL
    for _ in range(rounds):
        await _round(load, figures)
    raw = ", ".join(
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
            "Bare group commit: the same rows, as many tasks, one thread that writes and wakes:",
            f"{raw} a second. In memory is counted in the latter.",
        ],
        wrong=figures.wrong,
    )


def main() -> int:
    """Measure, and print a table; return 1 if a conversation is wrong."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    return report_on("context", summary, 9, _measure)


if __name__ == "__main__":
    sys.exit(main())

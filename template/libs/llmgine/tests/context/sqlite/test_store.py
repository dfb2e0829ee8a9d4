"""The store in a file keeps the promises of every store, and those of a durable one."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.context import InMemoryContextStore
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.context.sqlite.database import Worker
from llmgine.contracts import ChatMessage, ContextStore, OpaquePart, Publisher, ToolCall, ToolResult
from llmgine.errors import CodecError, ContextStoreError, VersionConflictError
from llmgine.testing.context_suite import DurableContextStore, DurableContextStoreSuite
from llmgine.testing.fixtures import quiet_config


class TestSQLiteContextStore(DurableContextStoreSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "context.db"

    def open_store(
        self, *, tenant: str = "", publisher: Publisher | None = None
    ) -> DurableContextStore:
        return SQLiteContextStore(
            self.path, tenant=tenant, publisher=publisher, synchronous="normal"
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.db"


@asynccontextmanager
async def held(path: Path) -> AsyncGenerator[None, None]:
    """The file while somebody else writes to it."""
    async with SQLiteContextStore(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def user(text: object) -> ChatMessage:
    return ChatMessage.user(str(text))


async def texts(store: ContextStore, session_id: str = "s") -> list[str]:
    return [message.text for message in await store.get_context(session_id)]


# -- The same as in memory, whatever is done

ids = st.sampled_from("abc")
messages = st.one_of(
    st.text(max_size=5).map(user),
    ids.map(lambda each: ChatMessage.assistant("see", ToolCall(id=each, name="look"))),
    ids.map(lambda each: ChatMessage.tool(ToolResult(tool_call_id=each, name="look"))),
)
sessions = st.sampled_from(["s", "t\0", "é"])
operations = st.lists(
    st.one_of(
        st.tuples(
            sessions,
            st.lists(messages, max_size=4),
            st.one_of(st.none(), st.none(), st.integers(0, 6)),
        ),
        st.tuples(sessions, st.just("clear")),
        st.tuples(sessions, st.one_of(st.none(), st.integers(-1, 12))),
    ),
    max_size=25,
)
Operation = tuple[str, Sequence[ChatMessage], int | None] | tuple[str, str] | tuple[str, int | None]


async def outcome(store: ContextStore, operation: Operation) -> object:
    try:
        match operation:
            case session_id, "clear":
                return await store.clear_context(session_id)
            case session_id, (int() | None) as last:
                return await store.get_context(session_id, last=last)
            case session_id, list(batch), expected:
                return await store.add_messages(session_id, batch, expected_version=expected)
            case _:
                raise AssertionError(operation)
    except (VersionConflictError, ValueError) as error:
        return str(error)


@settings(max_examples=25, deadline=None)
@given(operations)
def test_it_does_what_the_store_in_memory_does(done: list[Operation]) -> None:
    async def compare(path: Path) -> None:
        memory = InMemoryContextStore()
        async with SQLiteContextStore(path, synchronous="normal") as file:
            for operation in done:
                assert await outcome(file, operation) == await outcome(memory, operation)
        async with SQLiteContextStore(path, synchronous="normal") as file:
            for session_id in ("s", "t\0", "é"):
                kept = await file.get_context(session_id)
                assert kept == await memory.get_context(session_id)

    with TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder) / "context.db"))


async def test_a_window_reaches_far_back_for_a_call(path: Path) -> None:
    call = ChatMessage.assistant(ToolCall(id="1", name="look"))
    result = ChatMessage.tool(ToolResult(tool_call_id="1", name="look"))
    async with SQLiteContextStore(path) as store:
        history = [user(0), call, *map(user, range(500)), result]
        await store.add_messages("s", history)
        assert await store.get_context("s", last=1) == history[1:]
        assert await store.get_context("s", last=10**30) == history


# -- Groups of writers


async def test_writers_at_once_share_transactions_in_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    do: Callable[[Worker, Sequence[object]], None] = vars(Worker)["_do"]

    def counted(self: Worker, jobs: Sequence[object]) -> None:
        groups.append(len(jobs))
        do(self, jobs)

    async with held(path):
        store = SQLiteContextStore(path)
        monkeypatch.setattr(Worker, "_do", counted)
        writes = [asyncio.create_task(store.add_message("s", user(n))) for n in range(50)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)
    assert sum(groups) == 50
    assert len(groups) <= 2
    assert await texts(store) == [str(n) for n in range(50)]
    await store.close()


async def test_fifty_tasks_lose_nothing(path: Path) -> None:
    async with SQLiteContextStore(path) as store:

        async def write(task: int) -> None:
            for number in range(10):
                await store.add_message(f"s{task % 5}", user(f"{task} {number}"))

        await asyncio.gather(*map(write, range(50)))
        for session in range(5):
            found = await texts(store, f"s{session}")
            assert len(found) == 100
            for task in range(session, 50, 5):
                own = [text for text in found if text.split()[0] == str(task)]
                assert own == [f"{task} {number}" for number in range(10)]


async def test_one_bad_item_of_a_group_fails_alone(path: Path) -> None:
    bad = ChatMessage(role="user", parts=(OpaquePart(provider="p", data={"x": object()}),))  # type: ignore[dict-item]
    async with held(path):
        store = SQLiteContextStore(path)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        writes = [
            store.add_message("s", user("first")),
            store.add_messages("s", [user("x")], expected_version=7),
            store.add_messages("s", [user("y"), bad]),
            store.add_message("\ud800", user("z")),
            store.add_message("s", user("last")),
        ]
        tasks = [asyncio.create_task(write) for write in writes]
        await asyncio.sleep(0)
    first, conflict, unknown, surrogate, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == (None, None)
    assert isinstance(conflict, VersionConflictError)
    assert isinstance(unknown, CodecError)
    assert isinstance(surrogate, ContextStoreError)
    assert await texts(store) == ["first", "last"]
    await store.close()


async def test_a_failure_of_the_database_spares_the_rest_of_the_group(path: Path) -> None:
    async with SQLiteContextStore(path) as store:
        with closing(sqlite3.connect(path)) as db:
            db.execute(
                """CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.body LIKE '%bad%'
                BEGIN SELECT RAISE(ABORT, 'refused'); END"""
            )
        async with held(path):
            writes = [
                store.add_messages("s", [user(n), user("bad" if n == 3 else n)]) for n in range(6)
            ]
            tasks = [asyncio.create_task(write) for write in writes]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        (failure,) = [each for each in outcomes if isinstance(each, BaseException)]
        assert isinstance(failure, ContextStoreError)
        assert "refused" in str(failure)
        assert await texts(store) == [text for n in "01245" for text in (n, n)]


# -- The loop, tasks and threads


async def test_the_loop_goes_on_while_a_write_waits(path: Path) -> None:
    async with held(path):
        store = SQLiteContextStore(path, busy_timeout=60)
        write = asyncio.create_task(store.add_message("s", user("a")))
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert not write.done()
        assert await store.get_context("s") == []
    await write
    assert await texts(store) == ["a"]
    await store.close()


async def test_a_cancelled_write_is_whole_or_absent(path: Path) -> None:
    async with held(path):
        store = SQLiteContextStore(path)
        batches = [[user(f"{n} {part}") for part in range(3)] for n in range(4)]
        writes = [asyncio.create_task(store.add_messages("s", batch)) for batch in batches]
        await asyncio.sleep(0.01)
        for write in writes[:3]:
            write.cancel()
        await asyncio.wait(writes[:3])
        assert all(write.cancelled() for write in writes[:3])
    version = await writes[3]
    found = await texts(store)
    assert len(found) == version
    assert found[-3:] == ["3 0", "3 1", "3 2"]
    counts = [sum(text.startswith(f"{n} ") for text in found) for n in range(4)]
    assert set(counts) <= {0, 3}
    await store.close()


def test_a_store_made_before_any_loop_serves_several(path: Path) -> None:
    store = SQLiteContextStore(path)
    assert not path.exists()
    asyncio.run(store.add_message("s", user("a")))
    assert asyncio.run(texts(store)) == ["a"]

    def write(number: int) -> None:
        asyncio.run(store.add_messages("s", [user(number)] * 2))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = asyncio.run(texts(store))[1:]
    assert found[::2] == found[1::2]
    assert sorted(found[::2]) == ["0", "1", "2", "3"]
    asyncio.run(store.close())


async def test_a_store_that_is_dropped_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    store = SQLiteContextStore(path)
    await store.add_message("s", user("a"))
    await store.get_context("s")
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert len(started) == 2
    del store
    gc.collect()
    for thread in started:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()


# -- In an application


async def test_settings_choose_it_and_the_application_closes_it(path: Path) -> None:
    config = quiet_config(context={"store": "sqlite", "path": path, "tenant": "t"})
    for version in (1, 2):
        async with ApplicationBootstrap(config, bus=MessageBus.isolated()) as app:
            assert isinstance(app.context, SQLiteContextStore)
            assert await app.context.add_messages("s", [user("a")]) == version
            store = app.context
        with pytest.raises(ContextStoreError, match="closed"):
            await store.get_context("s")
    async with SQLiteContextStore(path, tenant="t") as store:
        assert await texts(store) == ["a", "a"]

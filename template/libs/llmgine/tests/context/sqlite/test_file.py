"""The file itself: who may read it, what other versions left in it, and what is broken about it."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import stat
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from llmgine.context.sqlite import SQLiteContextStore, database
from llmgine.contracts import (
    ChatMessage,
    ContextStore,
    MediaPart,
    OpaquePart,
    TextPart,
    ToolCall,
    ToolResult,
)
from llmgine.errors import ConfigurationError, ContextStoreError, CorruptRowError
from llmgine.settings import ContextSettings

# What version 1 of the schema wrote, for ever: a change that can't read this loses conversations.
VERSION_1 = r"""
CREATE TABLE messages (
    tenant TEXT NOT NULL,
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (tenant, session, number)
);
INSERT INTO messages VALUES ('', 's', 1, '{"type":"ChatMessage","role":"user","parts":[{"type":"TextPart","text":"Grüße","provider_data":{"a":[1,null,2.5]}},{"type":"MediaPart","kind":"image","media_type":"image/png","data":"AP8=","url":null,"file_id":null,"name":null,"provider_data":null}],"id":"m1","name":null,"provider_data":null}', 1700000000.5);
INSERT INTO messages VALUES ('', 's', 2, '{"type":"ChatMessage","role":"assistant","parts":[{"type":"ToolCall","id":"1","name":"look","arguments":"{\"a\": 1","provider_data":null},{"type":"PartOfTomorrow","x":[1]}],"id":null,"name":null,"provider_data":null}', 1700000001.5);
INSERT INTO messages VALUES ('', 's', 3, '{"type":"ChatMessage","role":"tool","parts":[{"type":"ToolResult","tool_call_id":"1","name":"look","content":[{"type":"TextPart","text":"seen","provider_data":null}],"is_error":true,"error_code":"x"}],"id":null,"name":null,"provider_data":null}', 1700000002.5);
INSERT INTO messages VALUES ('t', 's', 1, '{"type":"ChatMessage","role":"user","parts":[],"id":null,"name":null,"provider_data":null}', 1700000003.5);
PRAGMA application_id = 1819045223;
PRAGMA user_version = 1;
"""  # noqa: E501
OF_VERSION_1 = [
    ChatMessage(
        role="user",
        parts=(
            TextPart(text="Grüße", provider_data={"a": [1, None, 2.5]}),
            MediaPart(kind="image", media_type="image/png", data=b"\x00\xff"),
        ),
        id="m1",
    ),
    ChatMessage.assistant(
        ToolCall(id="1", name="look", arguments='{"a": 1'),
        OpaquePart(provider="llmgine.newer", data={"type": "PartOfTomorrow", "x": [1]}),
    ),
    ChatMessage.tool(
        ToolResult(
            tool_call_id="1",
            name="look",
            content=(TextPart(text="seen"),),
            is_error=True,
            error_code="x",
        )
    ),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "context.db"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of version 1, as some copy of it may be: with another journal, for all to read."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
    return path


def user(text: object) -> ChatMessage:
    return ChatMessage.user(str(text))


def meddle(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def read(path: Path) -> bytes:
    return path.read_bytes()


async def fill(store: ContextStore, batch: Sequence[ChatMessage]) -> int:
    """Add to a conversation until that is refused; return what it has by then."""
    kept = 0
    with suppress(ContextStoreError):
        while kept < 1_000:
            kept = await store.add_messages("s", batch)
    return kept


async def failure(store: ContextStore) -> str:
    """What reading and writing are told, which is the same."""
    with pytest.raises(ContextStoreError) as read:
        await store.get_context("s")
    with pytest.raises(ContextStoreError) as written:
        await store.add_message("s", user("a"))
    assert str(written.value) == str(read.value)
    return str(read.value)


# -- A new file


@pytest.mark.skipif(sys.platform == "win32", reason="modes are a matter of POSIX")
async def test_it_and_its_folder_are_for_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SQLiteContextStore(path) as store:
            await store.add_message("s", user("a"))
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == [
                "context.db",
                "context.db-shm",
                "context.db-wal",
            ]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert [file.name for file in path.parent.iterdir()] == ["context.db"]


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1)])
def test_power_failures_are_waited_for_as_set(path: Path, synchronous: str, number: int) -> None:
    with closing(database.DatabaseFile(path, synchronous, 1).connect()) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (number,)


def test_a_negative_wait_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout"):
        ContextSettings(busy_timeout=-1)


async def test_a_store_stays_with_its_file_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteContextStore("context.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with store:
        await store.add_message("s", user("a"))
    assert (tmp_path / "context.db").exists()


# -- Other versions


async def test_what_version_1_wrote_is_read(old: Path) -> None:
    async with SQLiteContextStore(old) as store:
        assert await store.get_context("s") == OF_VERSION_1
        assert await store.get_context("s", last=1) == OF_VERSION_1[1:]
        assert await store.add_messages("s", [user("new")], expected_version=3) == 4
    async with SQLiteContextStore(old, tenant="t") as store:
        assert len(await store.get_context("s")) == 1


async def test_an_older_file_is_brought_up_step_by_step(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("ALTER TABLE messages ADD COLUMN note TEXT", "UPDATE messages SET note = 'kept'")
    more = (*database.MIGRATIONS, steps, ("CREATE TABLE later (x)",))
    monkeypatch.setattr(database, "MIGRATIONS", more)
    async with SQLiteContextStore(old) as store:
        assert await store.get_context("s") == OF_VERSION_1
    async with SQLiteContextStore(old) as store:
        assert await store.get_context("s") == OF_VERSION_1
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT DISTINCT note FROM messages").fetchall() == [("kept",)]
        assert db.execute("SELECT count(*) FROM later").fetchone() == (0,)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken = ("DELETE FROM messages", "ALTER TABLE nothing ADD COLUMN x")
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, broken))
        store = SQLiteContextStore(old)
        assert "nothing" in await failure(store)
    assert await store.get_context("s") == OF_VERSION_1
    await store.close()


@pytest.mark.parametrize("content", [b"", None])
async def test_an_empty_file_becomes_one_of_this_version(path: Path, content: bytes | None) -> None:
    write(path, content or b"")
    if content is None:
        meddle(path, "VACUUM")
    async with SQLiteContextStore(path) as store:
        await store.add_message("s", user("a"))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(database.MIGRATIONS),)


async def test_a_newer_file_is_refused_and_left_alone(old: Path) -> None:
    meddle(old, "PRAGMA user_version = 9")
    before = read(old)
    store = SQLiteContextStore(old)
    text = await failure(store)
    assert str(old) in text
    assert "schema 9" in text
    assert "update the project, or name another file" in text
    await store.close()
    assert read(old) == before


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE theirs (x)",
        "CREATE TABLE messages (x)",
        "CREATE TABLE theirs (x); PRAGMA user_version = 1",
        "CREATE TABLE messages (x); PRAGMA user_version = 7",
        "CREATE TABLE theirs (x); PRAGMA user_version = -1",
    ],
)
async def test_another_program_s_database_is_refused_and_left_alone(
    path: Path, script: str
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    before = read(path)
    store = SQLiteContextStore(path)
    assert "database of another program" in await failure(store)
    await store.close()
    assert read(path) == before


async def test_to_wait_for_ever_for_others_is_no_error(path: Path) -> None:
    async with SQLiteContextStore(path, busy_timeout=math.inf) as store:
        await store.add_message("s", user("a"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.add_message("s", user("b")))
            await asyncio.wait((writing,), timeout=0.05)
            assert not writing.done()
            other.execute("ROLLBACK")
        await writing
    with pytest.raises(ConfigurationError, match="busy_timeout"):
        SQLiteContextStore(path, busy_timeout=math.nan)


# -- What is broken


@pytest.mark.parametrize(
    "body",
    [
        '{"type":"ChatMessage","role":"us',
        '{"type":"TextPart","text":"no message"}',
        '{"type":"ChatMessage","role":"king"}',
        "",
        b"\xff\xfe",
        7,
    ],
)
async def test_a_corrupt_row_is_named_and_the_rest_stays_readable(path: Path, body: object) -> None:
    async with SQLiteContextStore(path) as store:
        await store.add_messages("s", [user(n) for n in range(1, 6)])
        await store.add_message("t", user("other"))
        meddle(path, "UPDATE messages SET body = ? WHERE session = 's' AND number = 3", body)
        for last in (None, 3):
            with pytest.raises(CorruptRowError, match="session 's', message 3: can't decode"):
                await store.get_context("s", last=last)
        assert await store.get_context("s", last=2) == [user(4), user(5)]
        assert await store.get_context("t") == [user("other")]
        assert await store.add_messages("s", [user(6)]) == 6
        sound, errors = await store.salvage("s")
        assert [message.text for message in sound] == ["1", "2", "4", "5", "6"]
        assert [str(error).partition(":")[0] for error in errors] == ["session 's', message 3"]
        assert await store.salvage("nobody") == ([], [])


async def test_a_list_is_whole_whatever_can_t_be_read(path: Path) -> None:
    async with SQLiteContextStore(path) as store, SQLiteContextStore(path, tenant="b") as other:
        await store.add_messages("s", [user("first"), user("second")])
        await store.add_messages("t", [user("x" * 2_000_000), user("more")])
        await other.add_message("s", user("another tenant's"))
        meddle(path, "UPDATE messages SET body = '{' WHERE tenant = '' AND session = 's'")
        listed = await store.list_sessions()
        found = {each.session_id: (each.messages, each.opening) for each in listed}
        assert found == {"s": (2, ""), "t": (2, "more")}
        assert [each.opening for each in await other.list_sessions()] == ["another tenant's"]
        assert await other.find_session("t") is None


async def test_a_damaged_page_is_an_error_and_no_more(path: Path) -> None:
    async with SQLiteContextStore(path) as store:
        await store.add_messages("s", [user("x" * 1_000)] * 50)
    data = bytearray(read(path))
    data[4096:] = b"\xa5" * (len(data) - 4096)
    write(path, bytes(data))
    store = SQLiteContextStore(path)
    text = await failure(store)
    assert "malformed" in text
    assert "backup" in text
    await store.close()


async def test_what_is_no_database_is_left_alone(path: Path) -> None:
    write(path, b"Dear diary, today I was mistaken for a database. " * 50)
    store = SQLiteContextStore(path)
    text = await failure(store)
    assert "file is not a database; name another file" in text
    await store.close()
    assert read(path).startswith(b"Dear diary")


async def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SQLiteContextStore(tmp_path / "file" / "context.db")
    assert str(tmp_path / "file" / "context.db") in await failure(store)
    with pytest.raises(ContextStoreError):
        await store.__aenter__()
    (tmp_path / "file").unlink()
    await store.add_message("s", user("now"))
    await store.close()


async def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    store = SQLiteContextStore(tmp_path)
    assert str(tmp_path) in await failure(store)
    await store.close()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="modes don't bind root")
async def test_a_folder_that_can_t_be_written_is_named(path: Path) -> None:
    async with SQLiteContextStore(path):
        pass
    path.parent.chmod(0o500)
    try:
        store = SQLiteContextStore(path)
        with pytest.raises(ContextStoreError, match="must be"):
            await store.add_message("s", user("a"))
        await store.close()
    finally:
        path.parent.chmod(0o700)


async def test_a_file_that_others_keep_locked_is_an_error_for_all_who_wait(path: Path) -> None:
    async with SQLiteContextStore(path, busy_timeout=0.01) as store:
        await store.add_message("s", user("a"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(ContextStoreError, match=r"locked; .*context\.busy_timeout"):
                    await store.add_message("s", user("b"))
            assert await store.get_context("s") == [user("a")]
            other.execute("ROLLBACK")
        assert await store.add_messages("s", [user("c")]) == 2


async def test_a_full_file_refuses_whole_batches_and_goes_on_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = database.DatabaseFile.connect
    most = [20]

    def bounded(self: database.DatabaseFile) -> sqlite3.Connection:
        db = connect(self)
        db.execute(f"PRAGMA max_page_count = {most[0]}")
        return db

    monkeypatch.setattr(database.DatabaseFile, "connect", bounded)
    async with SQLiteContextStore(path) as store:
        batch = [user("x" * 1_000)] * 10
        kept = await fill(store, batch)
        assert 0 < kept < 1_000
        with pytest.raises(ContextStoreError, match="make room on the disk"):
            await store.add_messages("s", batch)
        assert len(await store.get_context("s")) == kept
        most[0] = 1_000
        assert await store.add_messages("s", batch, expected_version=kept) == kept + 10

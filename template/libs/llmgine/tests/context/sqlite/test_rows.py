"""Rows hold what the codec writes, and are read as it reads them, whichever way they took."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.contracts import ChatMessage, TextPart, ToolCall, ToolResult
from llmgine.contracts.codec import decode, encode, register
from llmgine.errors import CodecError, CorruptRowError

# One half of a surrogate pair has no UTF-8 form, and two in a row are refused by the codec.
TEXTS = st.text() | st.just('"') | st.just('","') | st.just("a\ud800") | st.just("[{" * 60)
PARTS = (
    st.builds(TextPart, text=TEXTS)
    | st.builds(TextPart, text=TEXTS, provider_data=st.just({"seal": "x"}))
    | st.builds(ToolCall, id=st.just("c"), name=st.just("look"))
    | st.builds(ToolResult, tool_call_id=st.just("c"), name=st.just("look"), content=TEXTS)
)
MESSAGES = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    parts=st.lists(PARTS, max_size=2).map(tuple),
    id=st.none() | st.just("m"),
    name=st.none() | st.just("Ada"),
    provider_data=st.none() | st.just({"seal": "x"}),
) | st.builds(ChatMessage.user, TEXTS)


class Desk:
    """A store, and its file beside it."""

    def __init__(self, runner: asyncio.Runner, path: Path) -> None:
        self._runner = runner
        self._path = path
        self._sessions = map(str, count())
        self.store = SQLiteContextStore(path, synchronous="normal")

    def bodies_of(self, messages: Sequence[ChatMessage]) -> list[bytes]:
        """Store messages; return what the file holds of them."""
        session = next(self._sessions)
        self._runner.run(self.store.add_messages(session, messages))
        select = "SELECT CAST(body AS BLOB) FROM messages WHERE session = ? ORDER BY number"
        with closing(sqlite3.connect(self._path)) as db:
            return [body for (body,) in db.execute(select, (session,))]

    def read(self, body: bytes) -> ChatMessage:
        """Return what the store makes of a row."""
        session = next(self._sessions)
        insert = "INSERT INTO messages VALUES ('', ?, 1, CAST(? AS TEXT), 0)"
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            db.execute(insert, (session, body))
        (message,) = self._runner.run(self.store.get_context(session))
        return message


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Generator[Desk]:
    with asyncio.Runner() as runner:
        desk = Desk(runner, tmp_path_factory.mktemp("rows") / "context.db")
        runner.run(desk.store.__aenter__())
        yield desk
        runner.run(desk.store.close())


@settings(max_examples=40, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=5))
def test_a_row_is_what_the_codec_writes(desk: Desk, messages: list[ChatMessage]) -> None:
    assert desk.bodies_of(messages) == [encode(message) for message in messages]


@register
@dataclass(frozen=True, kw_only=True)
class Timed(ChatMessage):
    """A class of its own, which holds more than its text."""

    at: float


@dataclass(frozen=True, kw_only=True)
class Unknown(ChatMessage):
    """One that the codec doesn't know."""


async def test_a_message_of_ones_own_class_is_kept_whole_or_refused(tmp_path: Path) -> None:
    async with SQLiteContextStore(tmp_path / "context.db") as store:
        timed = Timed(role="user", parts=(TextPart(text="now"),), at=1.5)
        await store.add_message("s", timed)
        with pytest.raises(CodecError, match="Unknown"):
            await store.add_message("s", Unknown(role="user", parts=timed.parts))
        assert await store.get_context("s") == [timed]


def oracle(body: bytes) -> ChatMessage | None:
    try:
        return decode(body, ChatMessage)
    except CodecError:
        return None


# Bytes that leave JSON, its texts or its objects where they don't belong.
ODD = st.sampled_from(
    [b'"', b"\\", b",", b" ", b"}", b"\\u0041", b"\\ud800", b"null", b"\xff", b""]
)


@settings(max_examples=60, deadline=None)
@given(message=MESSAGES, odd=ODD, share=st.floats(0, 1))
@example(message=ChatMessage.user("first", "second"), odd=b"", share=0)
@example(message=ChatMessage.user(""), odd=b"null", share=0.5)
def test_a_row_is_read_as_the_codec_reads_it(
    desk: Desk, message: ChatMessage, odd: bytes, share: float
) -> None:
    body = encode(message)
    at = round(share * len(body))
    body = body[:at] + odd + body[at:]
    expected = oracle(body)
    if expected is None:
        with pytest.raises(CorruptRowError):
            desk.read(body)
    else:
        assert desk.read(body) == expected


async def test_what_waits_together_is_done_in_turn(tmp_path: Path) -> None:
    async with SQLiteContextStore(tmp_path / "context.db") as store:
        said = [ChatMessage.user(text) for text in "abcdef"]
        await asyncio.gather(
            store.add_message("s", said[0]),
            store.add_message("gone", said[0]),
            store.fork("s", "t"),
            store.add_message("t", said[1]),
            store.add_message("s", said[2]),
            store.clear_context("gone"),
            store.add_messages("s", said[3:5], expected_version=2),
            store.add_message("gone", said[5]),
        )
        assert await store.get_context("s") == [said[0], *said[2:5]]
        assert await store.get_context("t") == said[:2]
        assert await store.get_context("gone") == said[5:]

"""What every context store promises, as tests that run against your own.

In a test module, with pytest-asyncio in its automatic mode:

    class TestMyStore(ContextStoreSuite):
        def make_store(self, publisher: Publisher) -> ContextStore:
            return MyStore(path, publisher=publisher)

Each test asks for a store of its own, empty, and hands it back to `close_store`. A store that keeps
its conversations somewhere takes `DurableContextStoreSuite`, which holds more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    ContextStore,
    Event,
    MediaPart,
    OpaquePart,
    Publisher,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.contracts.chat import JsonValue
from llmgine.errors import ContextStoreError, QueueFullError, VersionConflictError

__all__ = ["ContextStoreSuite", "DurableContextStore", "DurableContextStoreSuite"]

_WRITERS = 20
_BATCH = 5
_SESSIONS = ("plain", "", " ", "tab\tand\nline", "nul\0", "ünï", "a/../b", "'; --", "x" * 500)


class _Recorder:
    """A publisher that keeps what it is told; a full one refuses."""

    def __init__(self, *, full: bool = False) -> None:
        self.lengths: list[tuple[str | None, int]] = []
        self._full = full

    async def publish(self, event: Event) -> None:
        if self._full:
            raise QueueFullError("full")
        if isinstance(event, ChatHistoryUpdatedEvent):
            self.lengths.append((event.session_id, event.length))


def _tool_turn(number: int) -> list[ChatMessage]:
    """Return a turn with two calls, their results in two messages, and an answer."""
    calls = [ToolCall(id=f"{number}-{at}", name="look") for at in range(2)]
    results = [ToolResult(tool_call_id=call.id, name="look", content="seen") for call in calls]
    return [
        ChatMessage.user(f"question {number}"),
        ChatMessage.assistant(*calls),
        ChatMessage.tool(results[0]),
        ChatMessage.tool(results[1]),
        ChatMessage.assistant(f"answer {number}"),
    ]


class ContextStoreSuite(ABC):
    """The conformance tests of `ContextStore`: subclass it and say how to make one."""

    @abstractmethod
    def make_store(self, publisher: Publisher) -> ContextStore:
        """Return an empty store that tells `publisher` of its changes."""

    async def close_store(self, store: ContextStore) -> None:
        """Let go of a store; by default there is nothing to let go of."""
        del store

    @asynccontextmanager
    async def _store(
        self, publisher: Publisher | None = None
    ) -> AsyncGenerator[ContextStore, None]:
        store = self.make_store(publisher or _Recorder())
        try:
            yield store
        finally:
            await self.close_store(store)

    async def test_it_fits_the_protocol(self) -> None:
        """It has the methods that others rely on."""
        async with self._store() as store:
            assert isinstance(store, ContextStore)

    async def test_what_was_never_written_is_empty(self) -> None:
        """An unknown session is an empty conversation, also to `clear_context`."""
        async with self._store() as store:
            assert await store.get_context("nobody") == []
            await store.clear_context("nobody")
            assert await store.get_context("nobody", last=3) == []

    async def test_messages_come_back_whole_and_in_order(self) -> None:
        """Every kind of part survives, with all its fields."""
        message = ChatMessage(
            role="assistant",
            parts=(
                ThinkingPart(signature="sealed", provider="p"),
                TextPart(text="héllo \U0001f600", provider_data={"a": [1, None, 2.5]}),
                MediaPart(kind="image", data=b"\x00\xff", media_type="image/png"),
                RefusalPart(text="no"),
                ToolCall(id="1", name="look", arguments='{"a": 1,  "b"'),
                OpaquePart(provider="p", data={"type": "Odd", "deep": {"x": True}}),
            ),
            id="m1",
            provider_data={"k": "v"},
        )
        result = ToolResult(
            tool_call_id="1", name="look", content=(TextPart(text="x"),), is_error=True
        )
        async with self._store() as store:
            await store.add_message("s", message)
            await store.add_messages("s", [ChatMessage.tool(result), ChatMessage.user("", "b")])
            assert await store.get_context("s") == [
                message,
                ChatMessage.tool(result),
                ChatMessage.user("", "b"),
            ]

    async def test_sessions_are_kept_apart(self) -> None:
        """Whatever a session's id looks like, it names one conversation only."""
        async with self._store() as store:
            for session_id in _SESSIONS:
                await store.add_message(session_id, ChatMessage.user(repr(session_id)))
            await store.clear_context(_SESSIONS[0])
            for session_id in _SESSIONS[1:]:
                found = await store.get_context(session_id)
                assert found == [ChatMessage.user(repr(session_id))], repr(session_id)

    async def test_batches_of_writers_at_once_stay_whole(self) -> None:
        """No writer's messages are lost, and none stand between those of another's batch."""
        async with self._store() as store:

            async def write(writer: int) -> None:
                batch = [ChatMessage.user(f"{writer} {number}") for number in range(_BATCH)]
                await store.add_messages("s", batch)

            await asyncio.gather(*(write(writer) for writer in range(_WRITERS)))
            texts = [message.text for message in await store.get_context("s")]
            batches = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
            writers = sorted(int(batch[0].split()[0]) for batch in batches)
            assert writers == list(range(_WRITERS))
            for batch in batches:
                writer = batch[0].split()[0]
                assert batch == [f"{writer} {number}" for number in range(_BATCH)]

    async def test_versions_count_the_messages(self) -> None:
        """A version is the number of messages since the conversation was cleared."""
        async with self._store() as store:
            assert await store.add_messages("s", [ChatMessage.user("a")]) == 1
            assert await store.add_messages("s", []) == 1
            await store.add_message("s", ChatMessage.user("b"))
            version = await store.add_messages("s", [ChatMessage.user("c")], expected_version=2)
            assert version == len("abc")
            await store.clear_context("s")
            assert await store.add_messages("s", [ChatMessage.user("a")], expected_version=0) == 1

    async def test_of_writers_with_one_version_one_wins(self) -> None:
        """The others get `VersionConflictError`, and none of their messages is stored."""
        recorder = _Recorder()
        async with self._store(recorder) as store:

            async def write(writer: int) -> int:
                pair = [ChatMessage.user(str(writer)), ChatMessage.user(str(writer))]
                return await store.add_messages("s", pair, expected_version=0)

            writers = (write(writer) for writer in range(_WRITERS))
            outcomes = await asyncio.gather(*writers, return_exceptions=True)
            lost = [outcome for outcome in outcomes if isinstance(outcome, VersionConflictError)]
            assert len(lost) == _WRITERS - 1
            first, second = await store.get_context("s")
            assert first == second
            assert recorder.lengths == [("s", 2)]

    async def test_what_was_given_can_change_afterwards(self) -> None:
        """The store keeps a copy."""
        inner: list[JsonValue] = ["before"]
        data: dict[str, JsonValue] = {"inner": inner}
        message = ChatMessage(
            role="user", parts=(OpaquePart(provider="p", data=data),), provider_data=data
        )
        async with self._store() as store:
            await store.add_message("s", message)
            inner[0] = "after"
            (stored,) = await store.get_context("s")
            assert stored.provider_data == {"inner": ["before"]}
            assert stored.parts == (OpaquePart(provider="p", data={"inner": ["before"]}),)

    async def test_what_was_returned_can_change_afterwards(self) -> None:
        """The store returns copies."""
        async with self._store() as store:
            await store.add_message(
                "s", ChatMessage(role="user", provider_data={"inner": ["before"]})
            )
            found = await store.get_context("s")
            data = found[0].provider_data
            assert data is not None
            inner = data["inner"]
            assert isinstance(inner, list)
            inner[0] = "after"
            found.clear()
            (again,) = await store.get_context("s")
            assert again.provider_data == {"inner": ["before"]}

    async def test_a_window_never_parts_results_from_their_calls(self) -> None:
        """A window holds about as many messages as asked for, and a sound piece of history."""
        history = [message for number in range(3) for message in _tool_turn(number)]
        async with self._store() as store:
            await store.add_messages("s", history)
            for last in range(len(history) + 2):
                window = await store.get_context("s", last=last)
                assert window == history[len(history) - len(window) :]
                assert len(window) >= min(last, len(history))
                called: set[str] = set()
                for message in window:
                    called.update(call.id for call in message.tool_calls)
                    assert all(result.tool_call_id in called for result in message.tool_results)

    async def test_a_cleared_conversation_is_gone(self) -> None:
        """Only the one that was cleared, and it can start anew."""
        async with self._store() as store:
            await store.add_message("s", ChatMessage.user("a"))
            await store.add_message("t", ChatMessage.user("b"))
            await store.clear_context("s")
            assert await store.get_context("s") == []
            assert await store.get_context("t") == [ChatMessage.user("b")]

    async def test_every_change_is_told(self) -> None:
        """One event follows each successful change, with the length it led to."""
        recorder = _Recorder()
        async with self._store(recorder) as store:
            await store.add_message("s", ChatMessage.user("a"))
            await store.add_messages("s", [ChatMessage.user("b"), ChatMessage.user("c")])
            await store.clear_context("s")
            await store.get_context("s")
            assert recorder.lengths == [("s", 1), ("s", 3), ("s", 0)]

    async def test_a_change_stands_even_if_nobody_can_be_told(self) -> None:
        """A refused event must not make the writer believe that nothing was stored."""
        async with self._store(_Recorder(full=True)) as store:
            await store.add_message("s", ChatMessage.user("a"))
            assert await store.add_messages("s", [ChatMessage.user("b")]) == len("ab")
            await store.clear_context("s")
            assert await store.get_context("s") == []


async def _error(work: Awaitable[object]) -> Exception | None:
    """Return what the work raises of the errors that stores refuse with."""
    try:
        await work
    except (ContextStoreError, ValueError) as error:
        return error
    return None


@runtime_checkable
class DurableContextStore(ContextStore, Protocol):
    """A store whose conversations outlive it."""

    async def fork(self, session_id: str, new_session_id: str, *, at: int | None = None) -> int:
        """Copy a conversation, up to version `at` or whole, into a new one; return its version."""
        ...

    async def purge(self, older_than: datetime | timedelta) -> int:
        """Forget the conversations without a message since then; return how many messages."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, and let go of everything; closing twice is fine."""
        ...


class DurableContextStoreSuite(ContextStoreSuite):
    """What durable stores promise beyond the rest: subclass it and say how to open one."""

    @abstractmethod
    def open_store(
        self, *, tenant: str = "", publisher: Publisher | None = None
    ) -> DurableContextStore:
        """Return a store of a tenant, over what this very test has stored so far."""

    def make_store(self, publisher: Publisher) -> ContextStore:
        """Return an empty store that tells `publisher` of its changes."""
        return self.open_store(publisher=publisher)

    async def close_store(self, store: ContextStore) -> None:
        """Close a store."""
        assert isinstance(store, DurableContextStore)
        await store.close()

    @asynccontextmanager
    async def _opened(self, tenant: str = "") -> AsyncGenerator[DurableContextStore, None]:
        store = self.open_store(tenant=tenant)
        try:
            yield store
        finally:
            await store.close()

    async def test_conversations_outlive_the_store(self) -> None:
        """They are complete, and go on with the next number."""
        history = _tool_turn(1)
        async with self._opened() as store:
            await store.add_messages("s", history)
        async with self._opened() as store:
            assert await store.get_context("s") == history
            await store.add_messages("s", _tool_turn(2), expected_version=len(history))

    async def test_stores_in_one_place_see_each_other(self) -> None:
        """Many writers through two stores lose nothing, and each store reads all of it."""
        async with self._opened() as one, self._opened() as other:

            async def write(number: int) -> int:
                store = one if number % 2 else other
                return await store.add_messages("s", [ChatMessage.user(str(number))])

            versions = await asyncio.gather(*(write(number) for number in range(_WRITERS)))
            assert sorted(versions) == list(range(1, _WRITERS + 1))
            found = await one.get_context("s")
            assert {message.text for message in found} == set(map(str, range(_WRITERS)))
            assert await other.get_context("s") == found
            await other.clear_context("s")
            assert await one.add_messages("s", found, expected_version=0) == _WRITERS

    async def test_tenants_never_see_each_other(self) -> None:
        """Not in reading, writing, copying, clearing or purging."""
        async with self._opened("a") as store, self._opened("b") as other:
            await store.add_messages("s", [ChatMessage.user("a's")] * 2)
            assert await other.get_context("s") == []
            assert await other.fork("s", "copy") == 0
            assert await other.add_messages("s", [ChatMessage.user("b's")], expected_version=0)
            await other.clear_context("s")
            assert await other.purge(datetime.now(UTC) + timedelta(days=1)) == 0
            assert [each.text for each in await store.get_context("s")] == ["a's", "a's"]
        async with self._opened() as nobody:
            assert await nobody.get_context("s") == []

    async def test_a_fork_goes_its_own_way(self) -> None:
        """It has what the conversation had at that version; neither sees the other's future."""
        history = [ChatMessage.user(str(number)) for number in range(4)]
        async with self._opened() as store:
            await store.add_messages("s", history)
            assert await store.fork("s", "half", at=2) == len(history) // 2
            assert await store.fork("s", "whole") == len(history)
            await store.add_messages("half", history[:1], expected_version=2)
            await store.clear_context("s")
            assert await store.get_context("half") == [*history[:2], history[0]]
            assert await store.get_context("whole") == history
            for name, at in (("half", 1), ("new", 5), ("new", -1)):
                assert isinstance(await _error(store.fork("whole", name, at=at)), ContextStoreError)
            assert await store.get_context("new") == []

    async def test_purging_forgets_whole_conversations(self) -> None:
        """Those that nobody has added to since the given moment, and no others."""
        async with self._opened() as store:
            for session_id in _SESSIONS:
                await store.add_messages(session_id, [ChatMessage.user("old")] * 2)
            assert await store.purge(timedelta(hours=1)) == 0
            assert len(await store.get_context(_SESSIONS[0])) == len("ab")
            later = datetime.now(UTC) + timedelta(hours=1)
            assert await store.purge(later) == len("ab") * len(_SESSIONS)
            for session_id in _SESSIONS:
                assert await store.get_context(session_id) == []
            assert await store.add_messages("s", [ChatMessage.user("new")], expected_version=0)

    async def test_purging_takes_only_what_can_be_meant(self) -> None:
        """A moment without a time zone, or a negative age, is refused."""
        async with self._opened() as store:
            for wrong in (datetime(2000, 1, 1), timedelta(seconds=-1)):  # noqa: DTZ001
                assert "older_than" in str(await _error(store.purge(wrong)))

    async def test_closing_finishes_what_was_accepted(self) -> None:
        """Then the store refuses; closing it again is fine."""
        store = self.open_store()
        writes = [
            asyncio.create_task(store.add_message("s", ChatMessage.user(str(number))))
            for number in range(_WRITERS)
        ]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*writes)
        await store.close()
        for late in (store.get_context("s"), store.add_message("s", ChatMessage.user("late"))):
            assert isinstance(await _error(late), ContextStoreError)
        async with self._opened() as again:
            assert len(await again.get_context("s")) == _WRITERS

"""The store in memory keeps the promises of every store, and a few of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest
from llmgine.context import InMemoryContextStore
from llmgine.context.memory import build
from llmgine.contracts import ChatMessage, ContextStore, Event, Publisher
from llmgine.settings import ContextSettings
from llmgine.testing.context_suite import ContextStoreSuite


class TestInMemoryContextStore(ContextStoreSuite):
    def make_store(self, publisher: Publisher) -> ContextStore:
        return InMemoryContextStore(publisher)


async def test_it_needs_no_publisher() -> None:
    store = InMemoryContextStore()
    await store.add_message("s", ChatMessage.user("a"))
    assert await store.get_context("s") == [ChatMessage.user("a")]


async def test_the_factory_hands_the_publisher_on() -> None:
    told: list[Event] = []

    class Recorder:
        async def publish(self, event: Event) -> None:
            told.append(event)

    store = build(ContextSettings(), publisher=Recorder())
    await store.add_message("s", ChatMessage.user("a"))
    assert [event.session_id for event in told] == ["s"]


async def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, not -1"):
        await InMemoryContextStore().get_context("s", last=-1)


def test_loops_in_several_threads_share_a_store() -> None:
    store = InMemoryContextStore()
    ready = threading.Barrier(4)

    async def write(writer: int) -> None:
        for number in range(100):
            batch = [ChatMessage.user(f"{writer} {number}")] * 3
            await store.add_messages("s", batch)

    def run(writer: int) -> None:
        ready.wait()
        asyncio.run(write(writer))

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [message.text for message in asyncio.run(store.get_context("s"))]
    assert len(texts) == 1_200
    assert all(texts[at] == texts[at + 1] == texts[at + 2] for at in range(0, 1_200, 3))


async def test_a_failing_batch_stores_nothing() -> None:
    store = InMemoryContextStore()
    with pytest.raises(AttributeError):
        await store.add_messages("s", [ChatMessage.user("a"), "b"])  # type: ignore[list-item]
    assert await store.get_context("s") == []

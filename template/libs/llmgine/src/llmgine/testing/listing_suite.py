"""What stores promise that list their conversations, as tests that run against your own.

Take it beside the suite of your store, to which it adds:

    class TestMyStore(ListingSuite, ContextStoreSuite):
        def make_store(self, publisher: Publisher) -> ContextStore:
            return MyStore(path, publisher=publisher)
"""

from __future__ import annotations

import time

from llmgine.contracts import ChatMessage, ContextStore, ListsSessions
from llmgine.testing.context_suite import ContextStoreSuite

__all__ = ["ListingSuite"]

_NAMES = ("plain", "", " ", "tab\tand\nline", "nul\0", "ünï", "a/../b", "'; --", "x" * 500)
_MOST = 200


def _lists(store: ContextStore) -> ListsSessions:
    assert isinstance(store, ListsSessions)
    return store


class ListingSuite(ContextStoreSuite):
    """The conformance tests of `ListsSessions`."""

    async def test_a_list_tells_of_each_conversation(self) -> None:
        """How long it is, since when it exists, when it last changed, and how it began."""
        async with self._store() as store:
            began = time.time()
            await store.add_message("s", ChatMessage.user("How ", "it began"))
            middle = time.time()
            await store.add_messages("s", [ChatMessage.assistant("a"), ChatMessage.user("b")])
            (found,) = await _lists(store).list_sessions()
            assert (found.session_id, found.messages) == ("s", len("sab"))
            assert found.opening == "How it began"
            assert began - 1 <= found.created_at <= middle + 1
            assert found.created_at <= found.updated_at <= time.time() + 1
            assert await _lists(store).find_session("s") == found

    async def test_what_holds_nothing_is_in_no_list(self) -> None:
        """Neither what was never written to nor what was cleared."""
        async with self._store() as store:
            await store.add_message("s", ChatMessage.user("a"))
            await store.add_messages("nothing", [])
            await store.clear_context("s")
            assert await _lists(store).list_sessions() == []
            for session_id in ("s", "nothing", "nobody"):
                assert await _lists(store).find_session(session_id) is None

    async def test_a_conversation_that_starts_anew_is_a_new_one(self) -> None:
        """Nothing of the one that was cleared is told of it."""
        async with self._store() as store:
            await store.add_messages("s", [ChatMessage.user("old")] * 3)
            await store.clear_context("s")
            cleared = time.time()
            await store.add_message("s", ChatMessage.user("new"))
            (found,) = await _lists(store).list_sessions()
            assert (found.messages, found.opening) == (1, "new")
            assert found.created_at >= cleared - 1

    async def test_what_changed_last_comes_first(self) -> None:
        """Whichever was made first, and whatever its id looks like."""
        async with self._store() as store:
            for name in (*_NAMES, *reversed(_NAMES)):
                await store.add_message(name, ChatMessage.user(repr(name)))
                _wait()
            found = await _lists(store).list_sessions()
            assert [each.session_id for each in found] == list(_NAMES)
            assert [each.opening for each in found] == [repr(name)[:_MOST] for name in _NAMES]

    async def test_a_long_list_comes_in_pages(self) -> None:
        """Together they hold each conversation once, also those of the same moment."""
        async with self._store() as store:
            for name in _NAMES:
                await store.add_message(name, ChatMessage.user("a"))
            everything = await _lists(store).list_sessions()
            for limit in (1, 2, len(_NAMES), len(_NAMES) + 1):
                found = await _lists(store).list_sessions(limit=limit)
                while page := await _lists(store).list_sessions(limit=limit, after=found[-1]):
                    assert len(page) <= limit
                    found += page
                assert found == everything
            assert await _lists(store).list_sessions(limit=0) == []
            assert await _lists(store).list_sessions(limit=10**30) == everything

    async def test_a_limit_below_zero_is_refused(self) -> None:
        """It would mean everything to some databases."""
        async with self._store() as store:
            refused = False
            try:
                await _lists(store).list_sessions(limit=-1)
            except ValueError:
                refused = True
            assert refused

    async def test_the_opening_is_the_users(self) -> None:
        """It is the beginning of the first message of theirs among the first few."""
        async with self._store() as store:
            first = [ChatMessage.system("rules"), ChatMessage.assistant("Hello, what is it?")]
            await store.add_messages("s", [*first, ChatMessage.user("x" * 1000)])
            await store.add_messages("t", first * 10)
            found = {each.session_id: each for each in await _lists(store).list_sessions()}
            assert found["s"].opening == "x" * _MOST
            assert not found["t"].opening


def _wait() -> None:
    """Wait until the clock has moved on."""
    now = time.time()
    while time.time() == now:
        pass

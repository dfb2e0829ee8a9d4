"""The store in memory lists its conversations."""

from __future__ import annotations

from llmgine.context import InMemoryContextStore
from llmgine.contracts import ContextStore, Publisher
from llmgine.testing.listing_suite import ListingSuite


class TestListing(ListingSuite):
    def make_store(self, publisher: Publisher) -> ContextStore:
        return InMemoryContextStore(publisher)

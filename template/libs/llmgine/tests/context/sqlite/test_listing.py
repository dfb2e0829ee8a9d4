"""The store in a file lists its conversations."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.contracts import ContextStore, Publisher
from llmgine.testing.listing_suite import ListingSuite


class TestListing(ListingSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "context.db"

    def make_store(self, publisher: Publisher) -> ContextStore:
        return SQLiteContextStore(self.path, publisher=publisher, synchronous="normal")

    async def close_store(self, store: ContextStore) -> None:
        assert isinstance(store, SQLiteContextStore)
        await store.close()

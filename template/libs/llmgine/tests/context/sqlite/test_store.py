"""The store in a file keeps the promises of every store, and those of a durable one."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.contracts import ContextStore, Publisher
from llmgine.testing.context_suite import ContextStoreSuite


class TestSQLiteContextStore(ContextStoreSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self, publisher: Publisher) -> ContextStore:
        return SQLiteContextStore(self.folder / "context.db", publisher=publisher)

    async def close_store(self, store: ContextStore) -> None:
        assert isinstance(store, SQLiteContextStore)
        await store.close()

"""Conversations in a file: SQLite from the standard library, safe to share between processes.

One row holds one message, under its tenant, its session and its number in the conversation, which
starts at 1. Whoever writes waits in one queue for one thread, which stores all that waits in one
transaction and acknowledges it once that is on disk. Reads have a thread and a connection of their
own. Nothing is opened before it is needed, so a store can be made before a loop runs.
"""

from llmgine.context.sqlite.store import SQLiteContextStore, build

__all__ = ["SQLiteContextStore", "build"]

"""What was said before: one file for each kind of store.

Optional stores are imported by name from their own file.
"""

from llmgine.context.memory import InMemoryContextStore

__all__ = ["InMemoryContextStore"]

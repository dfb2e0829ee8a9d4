"""What was said before: one file for each kind of store.

Optional stores are imported by name from their own file.
"""

from llmgine.context.memory import InMemoryContextStore
from llmgine.context.window import estimated_tokens, summarised, token_window

__all__ = ["InMemoryContextStore", "estimated_tokens", "summarised", "token_window"]

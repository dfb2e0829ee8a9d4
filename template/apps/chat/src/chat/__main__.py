"""`python -m chat`, and what the console script `chat` calls."""

from __future__ import annotations

from chat.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()

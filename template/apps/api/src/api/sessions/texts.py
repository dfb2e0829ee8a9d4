"""Texts of models and users, as answers can carry them."""

from __future__ import annotations

__all__ = ["title", "written"]

_TITLE = 60


def written(text: str) -> str:
    """Return a text that UTF-8 has a form for: models may send half a character."""
    return text.encode("utf-8", "backslashreplace").decode()


def title(opening: str) -> str:
    """Return the title of a conversation that begins so: one line, not too long."""
    shown = "".join(each if each.isprintable() else " " for each in opening)
    line = " ".join(shown.split())
    return line if len(line) <= _TITLE else f"{line[: _TITLE - 1].rstrip()}\u2026"

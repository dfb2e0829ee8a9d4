"""Text that comes from elsewhere, made fit to be shown or sent."""

from __future__ import annotations

__all__ = ["decoded", "printable"]

_TAB, _NEWLINE, _RETURN, _DELETE = 0x09, 0x0A, 0x0D, 0x7F
_PICTURES = 0x2400

# What a terminal would obey becomes what it shows: the Unicode pictures of control characters.
_SHOWN: dict[int, int | None] = {
    **{code: _PICTURES + code for code in range(0x20) if code not in (_TAB, _NEWLINE)},
    _RETURN: None,
    _DELETE: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # Overrides of the writing direction can make a line read as another.
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], None),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}


def printable(text: str) -> str:
    """Return text that can do nothing to a terminal but fill it."""
    return text.translate(_SHOWN)


def decoded(text: str) -> str:
    """Return what was typed, with a mark in place of each byte that is no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

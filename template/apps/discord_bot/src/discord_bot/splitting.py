"""Texts cut into messages that Discord takes: short enough, and no code block broken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["LIMIT", "Piece", "sayable", "split"]

LIMIT = 2000
"""How long a message may be. Counted in UTF-16, it is short enough however Discord counts."""

_FENCE = "```"
# What Discord takes for a block's language, if a line's end follows.
_LANGUAGE = re.compile(r"[A-Za-z0-9_+\-.#]{0,32}\n")
# Where to cut, the best first: after a blank line, a line, a sentence, a word.
_BREAKS = tuple(re.compile(each) for each in (r"\n[^\S\n]*\n", r"\n", r"[.!?]\s", r"\s"))
_JOINER = "\u200d"
_JOINED = frozenset({"Mn", "Me", "Mc", "Cf"})


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of several.

    Attributes:
        text: its part of the text.
        opening: what opens the code block anew that the text before it had begun.
        closing: what closes the code block that goes on behind it.
    """

    text: str
    opening: str = ""
    closing: str = ""

    @property
    def content(self) -> str:
        """What is sent."""
        return f"{self.opening}{self.text}{self.closing}"


def sayable(text: str) -> str:
    """Return the text with what can't be sent, half a surrogate pair or a null, marked."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")


def split(text: str, limit: int = LIMIT) -> list[Piece]:
    """Cut a text into pieces whose texts, joined, are the text again.

    A code block that has to be cut is closed, and opened anew with its language; so is one at the
    text's end whose own end hasn't come yet. Where a text grows, all pieces but the last two stay
    what they were.

    Args:
        text: the text.
        limit: how long a message may be, in UTF-16; a hundred is the least that makes sense.
    """
    pieces: list[Piece] = []
    start, opening = 0, ""
    while start < len(text):
        end = _end(text, start, opening, limit)
        after = _open(text, start, end, opening)
        closing = _FENCE if text[end - 1] == "\n" else f"\n{_FENCE}"
        pieces.append(Piece(text[start:end], opening, closing if after else ""))
        start, opening = end, after
    return pieces


def _end(text: str, start: int, opening: str, limit: int) -> int:
    """Return where the piece ends that begins at `start`."""
    room = limit - len(opening)
    far = _reach(text, start, room)
    if far == len(text) and not _open(text, start, far, opening):
        return far
    far = _reach(text, start, room - len(_FENCE) - 1)
    return far if far == len(text) else _cut(text, start, far, opening)


def _reach(text: str, start: int, room: int) -> int:
    """Return how far so many UTF-16 units reach."""
    end = start
    while end < len(text):
        room -= 2 if text[end] > "\uffff" else 1
        if room < 0:
            break
        end += 1
    return end


def _fences(text: str, start: int, stop: int, opening: str) -> Iterator[tuple[int, int, str]]:
    """Yield each fence that begins in a stretch of text.

    That is where it begins, where it ends with the language behind it, and what opens its block
    anew, which is nothing where it closes one.
    """
    at = text.find(_FENCE, start)
    while 0 <= at < stop:
        end = at + len(_FENCE)
        if opening:
            opening = ""
        else:
            language = _LANGUAGE.match(text, end)
            opening = _FENCE + (language[0] if language else "\n")
            end = language.end() if language else end
        yield at, end, opening
        at = text.find(_FENCE, end)


def _open(text: str, start: int, end: int, opening: str) -> str:
    """Return what opens the block anew that is open at the end; empty if none is."""
    for _, _, each in _fences(text, start, end, opening):
        opening = each
    return opening


def _cut(text: str, start: int, far: int, opening: str) -> int:
    """Return the best place to cut, up to `far`."""
    barred = set(_barred(_fences(text, start, far + 1, opening)))
    least = start + (far - start) // 2
    for pattern in _BREAKS:
        for found in reversed(list(pattern.finditer(text, least, far))):
            if found.end() not in barred and not _joined(text, found.end(), start):
                return found.end()
    anywhere = [end for end in range(far, start, -1) if end not in barred]
    # A letter with a thousand accents has to be cut all the same.
    return next((end for end in anywhere if not _joined(text, end, start)), anywhere[0])


def _barred(fences: Iterable[tuple[int, int, str]]) -> Iterator[int]:
    """Yield the places inside a fence, and those that would leave a block empty."""
    for at, end, opening in fences:
        yield from range(at + 1, end + 1) if opening else range(at, end)


def _joined(text: str, index: int, start: int) -> bool:
    """Tell whether what stands before and behind is one sign to a reader.

    Args:
        text: the text.
        index: the place.
        start: a place before it where a sign begins.
    """
    before, after = text[index - 1], text[index]
    if _is_flag(before) and _is_flag(after):
        run = index
        while run > start and _is_flag(text[run - 1]):
            run -= 1
        return (index - run) % 2 == 1
    return (
        unicodedata.category(after) in _JOINED
        or before == _JOINER
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # a skin's colour
        or before + after == "\r\n"
    )


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"

"""Conflicts in TOML files, settled key by key and dependency by dependency.

Two sides that add to the same list, or other keys to the same table, meet on the same lines. Lines
are moved as they are, so that comments and order stay.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from itertools import pairwise
from typing import TypeAlias

__all__ = ["MARK", "settled"]

# As long as no mark in a file is: `git merge-file --marker-size`.
MARK = 31

_TABLE = re.compile(r"\[\[?[^\]]+\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=\s*(.*)$""")
_ELEMENT = re.compile(r"""["'{\d[]""")
_NAME = re.compile(r"""["']([A-Za-z0-9][\w.-]*)""")
_OPEN = re.compile(r"\[\s*(#.*)?$")
_LINE = re.compile(r"""=\s*\[((?:\s*(?:"[^"\\]*"|'[^'"]*')\s*,?)*)\]\s*$""")
_TEXT = re.compile(r""""([^"]*)"|'([^']*)'""")
_LAST = re.compile(r"""^(\s*(?:"[^"]*"|'[^']*'|\{[^#]*\}))(\s*(?:#.*)?\n?)$""")

Name = tuple[str, ...]
_Value: TypeAlias = "str | float | date | time | list[_Value] | dict[str, _Value] | None"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item:
    """One line that says something, with the comments and empty lines above it."""

    name: Name
    above: tuple[str, ...]
    line: str

    @property
    def code(self) -> str:
        """The line without what may differ: blanks around it and the comma of a last element."""
        return self.line.strip().rstrip(",")

    def lines(self) -> list[str]:
        return [*self.above, self.line]


class _UnclearError(Exception):
    """The lines can't be taken apart, or both sides changed the same."""


def _named(line: str, table: str, array: str) -> tuple[Name, str, str]:
    """A line's name, with the table and the list that the next line stands in."""
    text = line.strip()
    if text.startswith("]"):
        return (table, array, "]"), table, ""
    if array and _ELEMENT.match(text):
        found = _NAME.match(text)
        name = re.sub(r"[-_.]+", "-", found[1]).lower() if found else text.rstrip(",")
        return (table, array, "=", name), table, array
    if _TABLE.match(text):
        return (text.partition("#")[0].strip(),), text, ""
    found = _KEY.match(text)
    if found is None or array:
        raise _UnclearError
    return (table, found[1]), table, found[1] if _OPEN.match(found[2]) else ""


def _items(lines: Sequence[str], array: str) -> dict[Name, _Item]:
    """Lines by name; those that follow the last line with a name have an empty one."""
    items: dict[Name, _Item] = {}
    table, above = "", list[str]()
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            above.append(line)
            continue
        name, table, array = _named(line, table, array)
        if name in items:
            raise _UnclearError
        items[name] = _Item(name=name, above=tuple(above), line=line)
        above = []
    if above:
        items[()] = _Item(name=(), above=tuple(above[:-1]), line=above[-1])
    return items


def _both(base: _Item | None, ours: _Item, theirs: _Item) -> _Item:
    """One line of two that stand for the same."""
    if ours.code == theirs.code or (base and base.code == theirs.code):
        return ours
    if base and base.code == ours.code:
        return theirs
    old, mine, new = (_strings(item) for item in (base, ours, theirs))
    kept = [text for text in mine if text in new or text not in old]
    merged = kept + [text for text in new if text not in old and text not in kept]
    start, _, end = ours.line.partition("[")
    listed = ", ".join(f'"{text}"' for text in merged)
    return _Item(
        name=ours.name, above=ours.above, line=f"{start}[{listed}]{end.rpartition(']')[2]}"
    )


def _strings(item: _Item | None) -> list[str]:
    """The strings of a plain list that stands on one line."""
    found = _LINE.search(item.line) if item else None
    if found is None:
        raise _UnclearError
    return [text or other for text, other in _TEXT.findall(found[1])]


def _merged(
    base: dict[Name, _Item], ours: dict[Name, _Item], theirs: dict[Name, _Item]
) -> list[str]:
    """The lines of ours, with what theirs changed since base."""
    result: dict[Name, _Item] = {}
    for name, item in ours.items():
        if name in theirs:
            result[name] = _both(base.get(name), item, theirs[name])
        elif name not in base:
            result[name] = item
        elif base[name].code != item.code:
            raise _UnclearError
    order = list(result)
    for before, name in pairwise([None, *theirs]):
        if name is None or name in result:
            continue
        if name in base:
            if base[name].code != theirs[name].code:
                raise _UnclearError
            continue
        order.insert(order.index(before) + 1 if before in result else 0, name)
        result[name] = theirs[name]
    return list(_with_commas([result[name] for name in order]))


def _with_commas(items: Sequence[_Item]) -> Iterator[str]:
    """The lines, with a comma after every element that another one follows."""
    for at, item in enumerate(items):
        yield from item.above
        followed = at + 1 < len(items) and _is_element(item) and _is_element(items[at + 1])
        yield _LAST.sub(r"\1,\2", item.line) if followed else item.line


def _is_element(item: _Item) -> bool:
    return item.name[2:3] == ("=",)


def _array_after(line: str, array: str) -> str:
    """The list that stands open after a line."""
    text = line.strip()
    if array:
        return "" if text.startswith("]") else array
    found = _KEY.match(text)
    return found[1] if found and _OPEN.match(found[2]) else ""


def _hunk(lines: Iterator[str]) -> tuple[list[str], list[str], list[str]]:
    """The three sides of a conflict, of which the first mark has been read."""
    sides: tuple[list[str], list[str], list[str]] = ([], [], [])
    at = 0
    for line in lines:
        if line.startswith(">" * MARK):
            break
        if line.startswith(("|" * MARK, "=" * MARK)):
            at += 1
        else:
            sides[at].append(line)
    return sides


def _remarks(text: str) -> Counter[str]:
    """What stands after number signs."""
    found = (line.partition("#")[2].strip().rstrip(",") for line in text.splitlines())
    return Counter(remark for remark in found if remark)


def _keeps(result: _Value, base: _Value, ours: _Value, theirs: _Value) -> bool:
    """Whether a value, none where there is none, holds what both sides changed since base."""
    if theirs in (ours, base):
        return result == ours
    if ours == base:
        return result == theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        before, after = base, result
        if not isinstance(before, dict):
            before = {}
        if not isinstance(after, dict):
            return False
        return all(
            _keeps(after.get(key), before.get(key), ours.get(key), theirs.get(key))
            for key in {*before, *after, *ours, *theirs}
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        before = base if isinstance(base, list) else list[_Value]()
        kept = [item for item in ours if item in theirs or item not in before]
        kept += [item for item in theirs if item not in before and item not in kept]
        return isinstance(result, list) and sorted(map(repr, result)) == sorted(map(repr, kept))
    return False


def _is_both(result: str, base: str, ours: str, theirs: str) -> bool:
    """Whether a text means what both sides mean, and has the comments that each has added."""
    if not _keeps(*(tomllib.loads(text) for text in (result, base, ours, theirs))):
        return False
    added = (_remarks(ours) - _remarks(base)) | (_remarks(theirs) - _remarks(base))
    return added <= _remarks(result)


def settled(marked: str, *, base: str, ours: str, theirs: str) -> str | None:
    """A TOML file without its conflicts.

    Args:
        marked: the file as `git merge-file --diff3` leaves it, with marks of `MARK` characters.
        base: what both sides began from.
        ours: one side.
        theirs: the other.

    Returns:
        The file with both sides' lines, none where both changed the same, or it can't be told.
    """
    result: list[str] = []
    array = ""
    lines = iter(marked.splitlines(keepends=True))
    try:
        for line in lines:
            if line.startswith("<" * MARK):
                mine, first, new = (_items(side, array) for side in _hunk(lines))
                added = _merged(first, mine, new)
            else:
                added = [line]
            for text in added:
                array = _array_after(text, array)
            result += added
        text = "".join(result)
        return text if _is_both(text, base, ours, theirs) else None
    except (_UnclearError, tomllib.TOMLDecodeError):
        return None

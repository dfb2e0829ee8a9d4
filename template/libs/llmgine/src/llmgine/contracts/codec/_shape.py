"""What every declared type becomes: a shape, which turns values into JSON and back.

JSON has fewer types than Python. Where the declared type leaves no doubt, a value is written in
its natural form (a tuple as an array); elsewhere in a marked one, `{"type": "$tuple", "value":
[...]}`. Classes are written as `{"type": "Name", ...fields}`; their names start with a capital
letter, so that neither kind is mistaken for an ordinary object such as a JSON Schema.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from llmgine.contracts.chat import JsonValue

__all__ = [
    "ERROR",
    "MAX_DEPTH",
    "TAG",
    "Misfit",
    "Shape",
    "escaped",
    "is_deep",
    "is_dict",
    "is_iterable",
    "is_list",
    "is_mapping",
    "is_tag",
    "is_tuple",
    "marked",
    "type_name",
]

TAG = "type"
ERROR = "ErrorInfo"
MAX_DEPTH = 100


class Misfit(Exception):  # noqa: N818 - it is turned into a CodecError at the codec's edge
    """A value and a shape that don't go together; collects the way to it while it rises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.path: list[str] = []

    def at(self, step: str) -> Misfit:
        """Note one more step of the way, seen from inside."""
        self.path.append(step)
        return self

    def __str__(self) -> str:
        way = "".join(reversed(self.path)).lstrip(".")
        return f"{way}: {self.text}" if way else self.text


def type_name(value: object) -> str:
    """Return how a value's type is called in an error's text."""
    return "null" if value is None else type(value).__qualname__


def is_tag(value: object) -> bool:
    """Return whether an object's `type` names a class or a mark rather than anything else."""
    return isinstance(value, str) and (value[:1] == "$" or "A" <= value[:1] <= "Z")


def marked(mark: str, value: JsonValue) -> JsonValue:
    """Return a value in its marked form."""
    return {TAG: mark, "value": value}


def escaped(data: JsonValue) -> JsonValue:
    """Return an ordinary object such that it can't be mistaken for a class or a mark."""
    if isinstance(data, dict) and is_tag(data.get(TAG)):
        return marked("$dict", data)
    return data


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Return whether a value is a mapping, of whatever."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Return whether a value is a list, of whatever."""
    return isinstance(value, list)


def is_dict(value: object) -> TypeGuard[dict[object, object]]:
    """Return whether a value is a dictionary, of whatever."""
    return isinstance(value, dict)


def is_tuple(value: object) -> TypeGuard[tuple[object, ...]]:
    """Return whether a value is a tuple, of whatever."""
    return isinstance(value, tuple)


def is_iterable(value: object) -> TypeGuard[Iterable[object]]:
    """Return whether a value can be gone through."""
    return isinstance(value, Iterable)


def is_deep(data: JsonValue) -> bool:
    """Return whether JSON is nested deeper than allowed."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _inside(outer)]
        if not level:
            return False
    return True


def _inside(data: JsonValue) -> Iterable[JsonValue]:
    if isinstance(data, dict):
        return data.values()
    return data if isinstance(data, list) else ()


class Shape(ABC):
    """How values of one declared type are written and read.

    Attributes:
        mark: names the shape where several are possible; with a `$` it is also written down.
        expected: what is expected, for an error's text.
    """

    mark: str
    expected: str

    @abstractmethod
    def fits(self, value: object) -> bool:
        """Return whether a Python value is of this shape, as far as its outside shows."""

    @abstractmethod
    def write(self, value: object) -> JsonValue:
        """Return a value in its natural form."""

    @abstractmethod
    def read(self, data: JsonValue) -> object:
        """Return the value of a natural form."""

    def misfit(self, found: object) -> Misfit:
        """Return the error for something else than expected."""
        return Misfit(f"expected {self.expected}, found {type_name(found)}")

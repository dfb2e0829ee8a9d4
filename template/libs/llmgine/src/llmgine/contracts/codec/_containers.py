"""Shapes with parts: lists, tuples, sets, mappings, typed dictionaries, unions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.codec._scalars import LiteralShape, StrShape, checked_key
from llmgine.contracts.codec._shape import (
    ERROR,
    TAG,
    Misfit,
    Shape,
    escaped,
    is_dict,
    is_iterable,
    is_mapping,
    is_tag,
    is_tuple,
    marked,
)

__all__ = [
    "DictShape",
    "ListShape",
    "TupleShape",
    "TypedDictShape",
    "TypedKeys",
    "UnionShape",
]

ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT")
ResultT = TypeVar("ResultT")

TypedKeys: TypeAlias = tuple[Mapping[str, Shape], frozenset[str]]
"""The shape of each key of a typed dictionary, and the keys that must be there."""


def _items(data: JsonValue, shape: Shape) -> list[JsonValue]:
    if not isinstance(data, list):
        raise shape.misfit(data)
    return data


class ListShape(Shape):
    """Any number of items of one shape: a list, a tuple, a set or a frozenset."""

    def __init__(
        self, kind: type[object], make: Callable[[list[object]], object], item: Shape
    ) -> None:
        self.mark = "list" if kind is list else f"${kind.__name__}"
        self.expected = f"a {kind.__name__}"
        self._kind = kind
        self._make = make
        self._item = item

    def fits(self, value: object) -> bool:
        return isinstance(value, self._kind)

    def write(self, value: object) -> JsonValue:
        if not is_iterable(value) or not isinstance(value, self._kind):
            raise self.misfit(value)
        written: list[JsonValue] = []
        for item in value:
            try:
                written.append(self._item.write(item))
            except Misfit as error:
                raise error.at(f"[{len(written)}]") from None
        return written

    def read(self, data: JsonValue) -> object:
        values: list[object] = []
        for item in _items(data, self):
            try:
                values.append(self._item.read(item))
            except Misfit as error:
                raise error.at(f"[{len(values)}]") from None
        try:
            return self._make(values)
        except TypeError:
            raise Misfit(f"{self.expected} can't hold these items") from None


class TupleShape(Shape):
    """A tuple with a shape for each of its places."""

    mark = "$tuple"

    def __init__(self, items: Sequence[Shape]) -> None:
        self.expected = f"a tuple of {len(items)}"
        self._items = tuple(items)

    def fits(self, value: object) -> bool:
        return isinstance(value, tuple)

    def write(self, value: object) -> JsonValue:
        if not is_tuple(value):
            raise self.misfit(value)
        return [shape.write(item) for shape, item in self._paired(value)]

    def read(self, data: JsonValue) -> object:
        paired = self._paired(_items(data, self))
        return tuple(shape.read(item) for shape, item in paired)

    def _paired(self, items: Sequence[ItemT]) -> list[tuple[Shape, ItemT]]:
        if len(items) != len(self._items):
            raise Misfit(f"expected {self.expected}, found {len(items)}")
        return list(zip(self._items, items, strict=True))


class DictShape(Shape):
    """A mapping. With texts as keys it is a JSON object, with others an array of pairs."""

    def __init__(self, key: Shape, value: Shape) -> None:
        self._texts = isinstance(key, StrShape)
        self.mark = "dict" if self._texts else "$map"
        self.expected = "an object" if self._texts else "pairs of keys and values"
        self._key = key
        self._value = value

    def fits(self, value: object) -> bool:
        # Keys are looked at, since a union may hold mappings of several kinds of keys.
        return is_mapping(value) and all(self._key.fits(key) for key in value)

    def write(self, value: object) -> JsonValue:
        if not is_mapping(value):
            raise self.misfit(value)
        if not self._texts:
            return [[self._key.write(k), _at(k, self._value.write, v)] for k, v in value.items()]
        return {checked_key(k): _at(k, self._value.write, v) for k, v in value.items()}

    def read(self, data: JsonValue) -> object:
        if self._texts:
            if not isinstance(data, dict):
                raise self.misfit(data)
            return {key: _at(key, self._value.read, item) for key, item in data.items()}
        values: dict[object, object] = {}
        for pair in _items(data, self):
            if not isinstance(pair, list) or len(pair) != len(("key", "value")):
                raise self.misfit(pair)
            key = self._key.read(pair[0])
            try:
                values[key] = _at(key, self._value.read, pair[1])
            except TypeError:
                raise Misfit("a key can't be one") from None
        return values


class TypedDictShape(Shape):
    """A dictionary with known keys, each with a shape.

    Args:
        name: the class's name.
        keys: gives the shapes, and the keys that must be there, when first needed: a class may
            refer to itself.
    """

    mark = "dict"

    def __init__(self, name: str, keys: Callable[[], TypedKeys]) -> None:
        self.expected = f"a {name}"
        self._keys = keys

    def fits(self, value: object) -> bool:
        return isinstance(value, dict)

    def write(self, value: object) -> JsonValue:
        if not is_dict(value):
            raise self.misfit(value)
        shapes = self._checked(value)
        return {str(key): _at(key, shapes[str(key)].write, item) for key, item in value.items()}

    def read(self, data: JsonValue) -> object:
        if not isinstance(data, dict):
            raise self.misfit(data)
        shapes = self._checked(data)
        return {key: _at(key, shapes[key].read, item) for key, item in data.items()}

    def _checked(self, given: Mapping[KeyT, object]) -> Mapping[str, Shape]:
        shapes, required = self._keys()
        if missing := sorted(required - given.keys()):
            raise Misfit(f"expected {self.expected}, which lacks {missing[0]!r}")
        if extra := sorted(str(key) for key in given.keys() - shapes.keys()):
            raise Misfit(f"expected {self.expected}, which has no {extra[0]!r}")
        return shapes


def _at(key: object, turn: Callable[[ItemT], ResultT], item: ItemT) -> ResultT:
    try:
        return turn(item)
    except Misfit as error:
        raise error.at(f"[{key!r}]") from None


class UnionShape(Shape):
    """One of several shapes. Where JSON couldn't tell them apart, values are marked.

    Raises:
        Misfit: two of the shapes couldn't be told apart even so.
    """

    mark = "union"

    def __init__(self, members: Sequence[Shape]) -> None:
        self.members = tuple(members)
        self.expected = " or ".join(member.expected for member in members)
        self._by_mark: dict[str, Shape] = {}
        for member in members:
            other = self._by_mark.setdefault(member.mark, member)
            if other is not member:
                raise Misfit(
                    f"JSON can't tell {other.expected} from {member.expected}; "
                    "use registered dataclasses for them"
                )
        self._ordered = sorted(members, key=lambda member: _precedence(member.mark))
        others = [member for member in members if member.mark != "null"]
        # Beside `None` alone, a value needs no mark.
        self._only = others[0] if len(others) == 1 < len(members) else None

    def fits(self, value: object) -> bool:
        return any(member.fits(value) for member in self._ordered)

    def write(self, value: object) -> JsonValue:
        if self._only is not None:
            return None if value is None else self._only.write(value)
        for member in self._ordered:
            if member.fits(value):
                written = member.write(value)
                if member.mark == "dict":
                    return escaped(written)
                return marked(member.mark, written) if member.mark[0] == "$" else written
        raise self.misfit(value)

    def read(self, data: JsonValue) -> object:
        if self._only is not None:
            return None if data is None else self._only.read(data)
        literal = self._by_mark.get("literal")
        if isinstance(literal, LiteralShape) and literal.reads(data):
            return literal.read(data)
        mark, inner = _mark_of(data)
        if mark not in self._by_mark:
            mark = {"int": "float", "dict": "class"}.get(mark, mark)
        member = self._by_mark.get(mark)
        if member is None:
            raise self.misfit(data)
        return member.read(inner)


_PRECEDENCE = ("null", "literal", "error", "$", "class", "bool", "int", "float")


def _precedence(mark: str) -> int:
    """Return how early to try a shape: a truth value is an int to Python, a `StrEnum` a text."""
    kind = "$" if mark[0] == "$" else mark
    return _PRECEDENCE.index(kind) if kind in _PRECEDENCE else len(_PRECEDENCE)


_MARKS: Mapping[type, str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "list",
}
_NATURAL_MARKS = {"$float": "float", "$str": "str"}


def _mark_of(data: JsonValue) -> tuple[str, JsonValue]:
    """Return which shape wrote this, and its natural form."""
    if not isinstance(data, dict):
        return _MARKS[type(data)], data
    tag = data.get(TAG)
    if not isinstance(tag, str) or not is_tag(tag):
        return "dict", data
    if tag[0] != "$":
        return ("error" if tag == ERROR else "class"), data
    if tag in _NATURAL_MARKS:
        return _NATURAL_MARKS[tag], data
    if data.keys() != {TAG, "value"}:
        raise Misfit(f"expected {TAG!r} and 'value' in a marked value")
    return ("dict" if tag == "$dict" else tag), data["value"]

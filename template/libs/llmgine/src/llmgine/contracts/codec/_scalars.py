"""Shapes without parts: numbers, texts, and what is written as a text."""

from __future__ import annotations

import base64
import enum
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, Generic, TypeVar
from uuid import UUID

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.codec._shape import TAG, Misfit, Shape, marked

__all__ = [
    "SCALARS",
    "BoolShape",
    "EnumShape",
    "FloatShape",
    "IntShape",
    "LiteralShape",
    "NoneShape",
    "StrShape",
    "TextShape",
    "checked_key",
]

# Two halves of one character, each for itself: JSON would put them together.
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class NoneShape(Shape):
    """`None`."""

    mark = "null"
    expected = "null"

    def fits(self, value: object) -> bool:
        return value is None

    def write(self, value: object) -> JsonValue:
        if value is not None:
            raise self.misfit(value)
        return None

    def read(self, data: JsonValue) -> object:
        return self.write(data)


class BoolShape(Shape):
    """`True` and `False`."""

    mark = "bool"
    expected = "true or false"

    def fits(self, value: object) -> bool:
        return isinstance(value, bool)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, bool):
            raise self.misfit(value)
        return value

    def read(self, data: JsonValue) -> object:
        return self.write(data)


class IntShape(Shape):
    """Whole numbers of any size that Python writes down (4,300 digits unless set otherwise)."""

    mark = "int"
    expected = "a whole number"

    def fits(self, value: object) -> bool:
        return isinstance(value, int)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, int):
            raise self.misfit(value)
        return int(value)

    def read(self, data: JsonValue) -> object:
        if not isinstance(data, int) or isinstance(data, bool):
            raise self.misfit(data)
        return data


class FloatShape(Shape):
    """Numbers. Infinities and not-a-number, which JSON lacks, are written in a marked form."""

    mark = "float"
    expected = "a number"
    _named: ClassVar[Mapping[str, float]] = {
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
    }

    def fits(self, value: object) -> bool:
        return isinstance(value, float | int) and not isinstance(value, bool)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, float | int):
            raise self.misfit(value)
        number = self._float(value)
        return number if math.isfinite(number) else marked("$float", repr(number))

    def read(self, data: JsonValue) -> object:
        if isinstance(data, float | int) and not isinstance(data, bool):
            number = self._float(data)
            # A number with too large an exponent is read as infinity, which it isn't.
            if math.isfinite(number):
                return number
        elif isinstance(data, dict) and data.keys() == {TAG, "value"} and data[TAG] == "$float":
            name = data["value"]
            if isinstance(name, str) and name in self._named:
                return self._named[name]
        raise self.misfit(data)

    def _float(self, number: float) -> float:
        try:
            return float(number)
        except OverflowError:
            raise Misfit("expected a number that fits a float, found a larger one") from None


class StrShape(Shape):
    """Texts, lone surrogates included."""

    mark = "str"
    expected = "a text"

    def fits(self, value: object) -> bool:
        return isinstance(value, str)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, str):
            raise self.misfit(value)
        if not value.isascii() and _HALVES.search(value):
            raw = value.encode("utf-32-le", "surrogatepass")
            return marked("$str", base64.b64encode(raw).decode())
        return str(value)

    def read(self, data: JsonValue) -> object:
        if isinstance(data, str):
            return data
        if isinstance(data, dict) and data.keys() == {TAG, "value"} and data[TAG] == "$str":
            raw = data["value"]
            if isinstance(raw, str):
                try:
                    return base64.b64decode(raw, validate=True).decode("utf-32-le", "surrogatepass")
                except ValueError:
                    raise Misfit("expected a text's characters in base64") from None
        raise self.misfit(data)


def checked_key(key: object) -> str:
    """Return an object's key.

    Raises:
        Misfit: it is no text, or one that JSON can't keep.
    """
    if not isinstance(key, str):
        raise Misfit(f"expected texts as keys, found {type(key).__qualname__}")
    if not key.isascii() and _HALVES.search(key):
        raise Misfit("a key holds two surrogates in a row, which JSON would join")
    return str(key)


ValueT = TypeVar("ValueT")


class TextShape(Shape, Generic[ValueT]):
    """Values that are written as one text, or one whole number.

    Args:
        mark: with a `$`.
        expected: for an error's text.
        kind: the class.
        to_json: writes a value.
        from_json: reads what was written; raises `ValueError` or `ArithmeticError` otherwise.
        natural: the type of what was written.
        but_not: a subclass that has a shape of its own.
    """

    def __init__(
        self,
        mark: str,
        expected: str,
        kind: type[ValueT],
        to_json: Callable[[ValueT], str | int],
        from_json: Callable[..., ValueT],
        *,
        natural: type[str | int] = str,
        but_not: tuple[type, ...] = (),
    ) -> None:
        self.mark = mark
        self.expected = expected
        self._kind = kind
        self._to_json = to_json
        self._from_json = from_json
        self._natural = natural
        self._but_not = but_not

    def fits(self, value: object) -> bool:
        return isinstance(value, self._kind) and not isinstance(value, self._but_not)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, self._kind) or isinstance(value, self._but_not):
            raise self.misfit(value)
        return self._to_json(value)

    def read(self, data: JsonValue) -> object:
        if type(data) is not self._natural:
            raise self.misfit(data)
        try:
            return self._from_json(data)
        except (ValueError, ArithmeticError):
            raise self.misfit(data) from None


def _microseconds(value: timedelta) -> int:
    return value // timedelta(microseconds=1)


def _timedelta(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


SCALARS: Mapping[type, Shape] = {
    type(None): NoneShape(),
    bool: BoolShape(),
    int: IntShape(),
    float: FloatShape(),
    str: StrShape(),
    bytes: TextShape("$bytes", "bytes in base64", bytes, _base64, _bytes),
    datetime: TextShape(
        "$datetime",
        "a date and time in ISO 8601",
        datetime,
        datetime.isoformat,
        datetime.fromisoformat,
    ),
    date: TextShape(
        "$date",
        "a date in ISO 8601",
        date,
        date.isoformat,
        date.fromisoformat,
        but_not=(datetime,),
    ),
    time: TextShape("$time", "a time of day in ISO 8601", time, time.isoformat, time.fromisoformat),
    timedelta: TextShape(
        "$timedelta",
        "a duration in microseconds",
        timedelta,
        _microseconds,
        _timedelta,
        natural=int,
    ),
    Decimal: TextShape("$decimal", "a decimal number in a text", Decimal, str, Decimal),
    UUID: TextShape("$uuid", "a UUID", UUID, str, UUID),
    Path: TextShape("$path", "a path", Path, str, Path),
}
"""The shapes of classes that have one of their own."""


class EnumShape(Shape):
    """Members of an enumeration, by name; combined flags by number."""

    mark = "$enum"

    def __init__(self, kind: type[enum.Enum]) -> None:
        self.expected = f"a member of {kind.__qualname__}"
        self._kind = kind

    def fits(self, value: object) -> bool:
        return isinstance(value, self._kind)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, self._kind):
            raise self.misfit(value)
        if isinstance(value, enum.Flag):
            number: int = value.value
            return number
        return value.name

    def read(self, data: JsonValue) -> object:
        try:
            if issubclass(self._kind, enum.Flag):
                if type(data) is int:
                    return self._kind(data)
            elif isinstance(data, str):
                return self._kind[data]
        except (ValueError, KeyError):
            pass
        raise self.misfit(data)


class LiteralShape(Shape):
    """One of a few given values: texts, whole numbers, truth values, members of enumerations.

    Raises:
        Misfit: a value of another kind is among them.
    """

    mark = "literal"

    def __init__(self, values: tuple[object, ...]) -> None:
        self.expected = "one of " + ", ".join(repr(value) for value in values)
        self._values: dict[tuple[type, JsonValue], object] = {}
        for value in values:
            self._values[self._key(value)] = value

    def fits(self, value: object) -> bool:
        try:
            return self._key(value) in self._values
        except Misfit:
            return False

    def write(self, value: object) -> JsonValue:
        if not self.fits(value):
            raise self.misfit(value)
        return self._key(value)[1]

    def reads(self, data: JsonValue) -> bool:
        """Return whether a natural form is that of one of the values."""
        return not isinstance(data, list | dict) and (type(data), data) in self._values

    def read(self, data: JsonValue) -> object:
        if not self.reads(data):
            raise self.misfit(data)
        return self._values[type(data), data]

    def _key(self, value: object) -> tuple[type, JsonValue]:
        if isinstance(value, enum.Enum):
            return str, value.name
        if value is None or isinstance(value, str | int):
            return type(value), value
        raise Misfit(f"a {type(value).__qualname__} can't stand in a Literal here")

r"""Events as plain data: whatever an event holds becomes JSON, and no event is lost over it.

Nested dataclasses carry their class as `$type`, exceptions become type, message and traceback,
and what JSON has no form for is kept in a marked one:

    {"$float": "nan"}  {"$int": "0x1..."}  {"$bytes": "<base64>"}  {"$surrogates": "\ud800"}
    {"$cycle": "dict"}  {"$depth": "list"}  {"$truncated": "<beginning>", "length": 2000000}
    {"$unserialisable": "<class>", "text": "<what repr says>"}
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import floor, isfinite
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.messages import ErrorInfo, Event, Message
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.content import Treatment, says_nothing, treatment, withheld
from llmgine.observability.redaction import (
    hidden,
    is_secret_key,
    is_secret_pair,
    may_hold_secret,
    redact_text,
)

__all__ = ["GREATEST_INT", "LATEST", "LEAST_INT", "Record", "iso_time", "stub", "to_record"]

T = TypeVar("T")
Record: TypeAlias = dict[str, JsonValue]

_MAX_TEXT = 1024 * 1024
_MAX_REPR = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DEPTH = 64
_MAX_NODES = 200_000
_MAX_CLASSES = 2000
LEAST_INT, GREATEST_INT = -(2**63), 2**64 - 1  # what common readers take exactly
_EARLIEST, LATEST = -62_135_596_800, 253_402_300_800  # the years that have four digits


def to_record(event: Event, *, content: bool = True) -> Record:
    """Return an event as plain data, without secrets, and without content if that is off.

    `event_type`, `timestamp` (ISO 8601, UTC) and `session_id` come first, the other fields under
    their own names. It never raises, whatever the event holds.
    """
    outcome = attempt(_Walk(content=content).event, event)
    if isinstance(outcome, Caught):
        return stub(event, outcome.error)
    return outcome


def stub(event: Event, error: BaseException) -> Record:
    """Return what is left of an event where even that much can't be written."""
    return {
        "event_type": type(event).__name__,
        "timestamp": None,
        "session_id": None,
        "$unserialisable": type(event).__qualname__,
        "error": type(error).__qualname__,
    }


class _Walk:
    """One pass over one event: each step is guarded, each text redacted."""

    __slots__ = ("_content", "_nodes", "_path")

    def __init__(self, *, content: bool) -> None:
        self._content = content
        self._nodes = 0
        self._path: set[int] = set()

    def event(self, event: Event) -> Record:
        """Return the record of an event."""
        record: Record = {"event_type": type(event).__name__, "timestamp": None, "session_id": None}
        self._fill(record, event, clash="event_type")
        return record

    def value(self, value: object) -> JsonValue:
        """Return a value as plain data."""
        if value is None or type(value) is bool:
            return value
        kind = type(value)
        step = _STEPS.get(kind) or _step_for(kind)
        outcome = attempt(step, self, value)
        return _lost(_name_of(kind), outcome.error) if isinstance(outcome, Caught) else outcome

    def text(self, value: str) -> JsonValue:
        """Return a text without its secrets."""
        text = redact_text(str.__str__(value))
        if not _is_encodable(text):
            return {"$surrogates": _escaped(text[:_MAX_TEXT])}
        if len(text) > _MAX_TEXT:
            return {"$truncated": text[:_MAX_TEXT], "length": len(text)}
        return text

    def integer(self, value: int) -> JsonValue:
        """Return a number that 64 bits hold as it is, others in hexadecimal digits."""
        value = int.__index__(value)
        if LEAST_INT <= value <= GREATEST_INT:
            return value
        return {"$int": f"{value:#x}"[:_MAX_TEXT]}

    def number(self, value: float) -> JsonValue:
        """Return a number, or the name of what is none."""
        value = float.__float__(value)
        return value if isfinite(value) else {"$float": str(value)}

    def binary(self, value: bytes | bytearray | memoryview) -> JsonValue:
        """Return bytes as base64."""
        data = bytes(value)
        text = data.decode("latin-1")
        if may_hold_secret(text):
            data = redact_text(text).encode("latin-1")
        encoded = b64encode(data[:_MAX_TEXT]).decode()
        if len(data) > _MAX_TEXT:
            return {"$bytes": encoded, "length": len(data)}
        return {"$bytes": encoded}

    def mapping(self, value: Mapping[object, object]) -> JsonValue:
        """Return a mapping with texts for keys, and without what goes under a secret's name."""
        # One go, so that a thread which writes to it at the same time can't get in between.
        items = list(value.items())
        return self._inside(value, len(items), self._entries, items) if items else {}

    def sequence(self, value: Iterable[object]) -> JsonValue:
        """Return a list, a tuple or a set as a list."""
        items = tuple(value)
        return self._inside(value, len(items), self._items, items) if items else []

    def dataclass(self, value: object) -> JsonValue:
        """Return a dataclass's fields with the name of its class."""
        return self._inside(value, 1, self._fields, value)

    def error(self, value: BaseException) -> JsonValue:
        """Return what can be kept of an exception."""
        parts = zip(("type", "message", "traceback"), ErrorInfo.of(value).args, strict=True)
        return {name: self.value(text) for name, text in parts}

    def unknown(self, value: object) -> JsonValue:
        """Return what an object of an unknown class says of itself."""
        return {"$unserialisable": _name_of(type(value)), "text": self.value(_shown(value))}

    def secret(self, value: object) -> JsonValue:
        """Return what stands for a value under a secret's name."""
        return hidden(value)

    def content(self, value: object) -> JsonValue:
        """Return what stands for content."""
        return self.value(value) if says_nothing(value) else withheld(value)

    def moment(self, value: object) -> JsonValue:
        """Return Unix seconds in ISO 8601, UTC."""
        if isinstance(value, int | float) and _EARLIEST <= value < LATEST:
            return iso_time(value)
        return self.value(value)

    def _fill(self, record: Record, value: object, clash: str = "") -> None:
        for name, rule in _plan(type(value), self._content):
            item = attempt(getattr, value, name)
            shown = _lost(name, item.error) if isinstance(item, Caught) else rule(self, item)
            record[f"${name}" if name == clash else name] = shown

    def _entries(self, items: list[tuple[object, object]]) -> JsonValue:
        record: Record = {}
        for key, item in items:
            name = self._key(key, record)
            record[name] = self.secret(item) if is_secret_key(name) else self.value(item)
        return record

    def _items(self, items: tuple[object, ...]) -> JsonValue:
        if is_secret_pair(items):
            return [self.value(items[0]), self.secret(items[1])]
        return [self.value(item) for item in items]

    def _fields(self, value: object) -> JsonValue:
        record: Record = {"$type": type(value).__name__}
        self._fill(record, value)
        return record

    def _inside(
        self, value: object, nodes: int, step: Callable[[T], JsonValue], held: T
    ) -> JsonValue:
        """Return what a step makes of what a container holds, or stands for one too deep or big."""
        if id(value) in self._path:
            return {"$cycle": type(value).__name__}
        if len(self._path) >= _MAX_DEPTH:
            return {"$depth": type(value).__name__}
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            return {"$truncated": [], "length": nodes}
        self._path.add(id(value))
        try:
            return step(held)
        finally:
            self._path.discard(id(value))

    def _key(self, key: object, record: Record) -> str:
        if type(key) is str:
            name = key
        elif isinstance(key, str | int | float | Enum | UUID | Decimal | PurePath | date | None):
            name = str(self.value(key))
        else:
            name = _shown(key)
        name = redact_text(name)[:_MAX_TEXT]
        name = name if _is_encodable(name) else _escaped(name)
        unique, number = name, 1
        while unique in record:
            number += 1
            unique = f"{name}#{number}"
        return unique


def _lost(what: str, error: BaseException) -> JsonValue:
    return {"$unserialisable": what, "error": type(error).__name__}


def _shown(value: object) -> str:
    text = attempt(repr, value)
    if isinstance(text, Caught):
        return f"<repr of {_name_of(type(value))} raised {type(text.error).__name__}>"
    # Redacted first: half a secret may not look like one any more.
    return redact_text(text[:_MAX_TEXT])[:_MAX_REPR]


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _name_of(kind: type | FunctionType | MethodType | BuiltinFunctionType) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def iso_time(value: float) -> str:
    """Return Unix seconds in ISO 8601, UTC, to the microsecond."""
    seconds = floor(value)
    return f"{_second(seconds)}.{int((value - seconds) * 1_000_000):06}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


# The steps take different types, each the one that it stands under below.
_Step: TypeAlias = Callable[[_Walk, Any], JsonValue]


def _each(step: _Step, *kinds: type) -> dict[type, _Step]:
    return dict.fromkeys(kinds, step)


def _as(plainer: Callable[[Any], object]) -> _Step:
    return lambda walk, value: walk.value(plainer(value))


_STEPS: Final[Mapping[type, _Step]] = {
    str: _Walk.text,
    int: _Walk.integer,
    float: _Walk.number,
    **_each(_Walk.binary, bytes, bytearray, memoryview),
    **_each(_Walk.mapping, dict, MappingProxyType, Mapping),
    **_each(_Walk.sequence, list, tuple, set, frozenset, deque),
    **_each(_as(lambda value: value.isoformat()), datetime, date, time),
    timedelta: lambda _, value: value.total_seconds(),
    **_each(_as(str), Decimal, UUID, PurePath),
    **_each(_as(_name_of), type, FunctionType, MethodType, BuiltinFunctionType),
    Enum: _as(lambda value: value.value),
    BaseException: _Walk.error,
}
_TREATMENTS: Final[Mapping[Treatment, _Step]] = {
    "shown": _Walk.value,
    "withheld": _Walk.content,
    "hidden": _Walk.secret,
}
_BEFORE_OTHERS = (Enum, BaseException)


@lru_cache(maxsize=_MAX_CLASSES)
def _step_for(kind: type) -> _Step:
    bases = kind.__mro__
    for base in _BEFORE_OTHERS:  # an enum may be a str as well, an exception a dataclass
        if base in bases:
            return _STEPS[base]
    if is_dataclass(kind):
        return _Walk.dataclass
    return next((_STEPS[base] for base in bases if base in _STEPS), _Walk.unknown)


@lru_cache(maxsize=_MAX_CLASSES)
def _plan(kind: type, content: bool) -> tuple[tuple[str, _Step], ...]:
    """Return what to do with each field of a dataclass."""
    plan = {each.name: _TREATMENTS[treatment(kind, each, content)] for each in fields(kind)}
    if Message in kind.__mro__:
        plan["timestamp"] = _Walk.moment
    return tuple(plan.items())

"""Events as single lines of strict JSON, quickly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from operator import attrgetter
from typing import Any, NamedTuple

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.messages import Event, Message
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.content import Treatment, says_nothing, treatment, withheld
from llmgine.observability.record import (
    GREATEST_INT,
    LATEST,
    LEAST_INT,
    Record,
    iso_time,
    stub,
    to_record,
)
from llmgine.observability.redaction import (
    hidden,
    is_secret_key,
    is_secret_pair,
    may_hold_secret,
    redact_text,
)

__all__ = ["EventEncoder"]

_LONGEST_LINE = 1024 * 1024
_LINE_BREAKS = (("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"), ("\x85", b"\\u0085"))
_SHORTEST_SECRET = 8
_ID_LENGTH = 32
_MAX_HARMLESS = 2000
_LONGEST_HARMLESS = 64
_MAX_CLASSES = 2000
_MAX_CONTAINERS = 10_000


class _UnusualError(Exception):
    """The quick pass met something that the careful one has to look at."""


_Rule = Callable[["_QuickWalk", object], JsonValue]


class _Plan(NamedTuple):
    """How to take an ordinary dataclass apart.

    Attributes:
        names: the fields that are taken as they are.
        values: takes the values of all of these from an object at once.
        rules: what to do with each of the others.
    """

    names: tuple[str, ...]
    values: Callable[[object], tuple[object, ...]]
    rules: tuple[tuple[str, _Rule], ...]


class _QuickWalk:
    """Makes the same record as `to_record`, or raises; `found_secret` is still to be asked."""

    __slots__ = (
        "_content", "_dumps", "_harmless", "_left", "_plans", "_prefix", "_second", "_texts"
    )  # fmt: skip

    def __init__(self, dumps: Callable[[object], bytes], *, content: bool) -> None:
        self._dumps = dumps
        self._content = content
        self._left = 0
        self._texts: list[str] = []
        self._harmless: set[str] = set()
        self._plans: dict[type, _Plan] = {}
        self._second, self._prefix = -1, ""

    def line(self, event: Event) -> bytes:
        """Return an event as one line."""
        self._left = _MAX_CONTAINERS
        self._texts.clear()
        return self._dumps(self._message({"event_type": type(event).__name__}, event))

    def found_secret(self) -> bool:
        """Tell whether one of the last event's texts must not be written as it is."""
        if not self._texts:
            return False
        texts = "\n".join(self._texts)
        if may_hold_secret(texts) and redact_text(texts) != texts:
            return True
        self._remember_harmless()
        return False

    def _remember_harmless(self) -> None:
        # Names of models, tools, handlers and paths come again and again.
        if len(self._harmless) >= _MAX_HARMLESS:
            self._harmless.clear()
        self._harmless.update(text for text in self._texts if len(text) <= _LONGEST_HARMLESS)

    def _message(self, record: Record, message: Message) -> Record:
        session_id, own_id, parent_id = message.session_id, message.id, message.parent_id
        metadata = message.metadata
        record["timestamp"] = self._moment(message.timestamp)
        record["session_id"] = session_id if session_id is None else self._id(session_id)
        record["id"] = self._id(own_id)
        record["parent_id"] = parent_id if parent_id is None else self._id(parent_id)
        record["metadata"] = {} if metadata == {} else self.value(metadata)
        self._fill(record, message)
        return record

    def _moment(self, value: object) -> str:
        if type(value) is not float or not 0.0 <= value < LATEST:
            raise _UnusualError
        second = int(value)
        if second != self._second:
            self._second, self._prefix = second, iso_time(second)[:-7]
        return f"{self._prefix}{int((value - second) * 1_000_000):06}Z"

    def _id(self, value: object) -> JsonValue:
        # One of our own making needs no closer look.
        if type(value) is str and len(value) == _ID_LENGTH and value.isalnum():
            return value
        return self.value(value)

    def _fill(self, record: dict[str, Any], value: object) -> None:
        plan = self._plans.get(type(value)) or self._plan(type(value))
        texts, harmless = self._texts, self._harmless
        for name, item in zip(plan.names, plan.values(value), strict=True):
            if type(item) is str:
                if len(item) >= _SHORTEST_SECRET and item not in harmless:
                    texts.append(item)
                record[name] = item
            elif item is None or type(item) is bool:
                record[name] = item
            else:
                record[name] = self.value(item)
        for name, rule in plan.rules:
            record[name] = rule(self, getattr(value, name))

    def _plan(self, kind: type) -> _Plan:
        if not _is_ordinary(kind):
            raise _UnusualError
        plan = _plan(kind, content=self._content)
        if len(self._plans) >= _MAX_CLASSES:  # classes made at run time aren't kept for ever
            self._plans.clear()
        self._plans[kind] = plan
        return plan

    def value(self, value: object) -> JsonValue:
        """Return a value that is nothing unusual."""
        if type(value) is int and LEAST_INT <= value <= GREATEST_INT:
            return value
        if type(value) is str:
            if len(value) >= _SHORTEST_SECRET:
                self._texts.append(value)
            return value
        if value is None or type(value) is bool:
            return value
        return value if type(value) is float and isfinite(value) else self._container(value)

    def _container(self, value: object) -> JsonValue:
        self._left -= 1
        if self._left < 0:
            raise _UnusualError
        step = _CONTAINERS.get(type(value))
        if step is not None:
            return step(self, value)
        record: Record = {"$type": type(value).__name__}
        if isinstance(value, Message):
            return self._message(record, value)
        self._fill(record, value)
        return record

    def mapping(self, value: dict[object, object]) -> JsonValue:
        """Return a mapping whose keys are texts."""
        record: Record = {}
        for name, item in value.items():
            if type(name) is not str:
                raise _UnusualError
            if len(name) >= _SHORTEST_SECRET:
                self._texts.append(name)
            record[name] = hidden(item) if is_secret_key(name) else self.value(item)
        return record

    def sequence(self, value: list[object] | tuple[object, ...]) -> JsonValue:
        """Return a list or a tuple as a list."""
        if is_secret_pair(value):
            raise _UnusualError
        return [self.value(item) for item in value]


_CONTAINERS: dict[type, Callable[..., JsonValue]] = {
    dict: _QuickWalk.mapping,
    list: _QuickWalk.sequence,
    tuple: _QuickWalk.sequence,
}


def _withheld(walk: _QuickWalk, value: object) -> JsonValue:
    return walk.value(value) if says_nothing(value) else withheld(value)


_RULES: dict[Treatment, _Rule] = {"hidden": lambda _, value: hidden(value), "withheld": _withheld}
_ENVELOPE = frozenset({"id", "metadata", "parent_id", "session_id", "timestamp"})


def _is_ordinary(kind: type) -> bool:
    if not is_dataclass(kind) or not {Enum, BaseException}.isdisjoint(kind.__mro__):
        return False
    return Message not in kind.__mro__ or all(each.name != "event_type" for each in fields(kind))


def _plan(kind: type, *, content: bool) -> _Plan:
    """Return how to take an ordinary dataclass apart."""
    done = _ENVELOPE if Message in kind.__mro__ else ()
    names: list[str] = []
    rules: list[tuple[str, _Rule]] = []
    for each in fields(kind):
        rule = _RULES.get(treatment(kind, each, content))
        if rule is not None:
            rules.append((each.name, rule))
        elif each.name not in done:
            names.append(each.name)
    return _Plan(tuple(names), _getter(names), tuple(rules))


def _getter(names: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
    if not names:
        return lambda _value: ()
    getter = attrgetter(*names)
    return getter if len(names) > 1 else lambda value: (getter(value),)


class EventEncoder:
    """Turns events into lines.

    Most events hold nothing unusual. They take one quick pass, one search for what secrets begin
    with, and the encoder; only where that fails or finds something does `to_record` do the work.

    Args:
        dumps: the encoder; refuses what isn't strict JSON.
        content: whether content is written.
    """

    def __init__(self, dumps: Callable[[object], bytes], *, content: bool) -> None:
        self._dumps = dumps
        self._content = content
        self._walk = _QuickWalk(dumps, content=content)

    def encode(self, event: Event) -> bytes:
        """Return an event as one line, without its end. It never raises.

        One thread at a time may call it.
        """
        line = attempt(self._walk.line, event)
        if isinstance(line, Caught) or len(line) > _LONGEST_LINE or self._walk.found_secret():
            line = self._encode_carefully(event)
        return line if line.isascii() else _one_line(line)

    def _encode_carefully(self, event: Event) -> bytes:
        line = attempt(self._dumps, to_record(event, content=self._content))
        return self._dumps(stub(event, line.error)) if isinstance(line, Caught) else line


def _one_line(line: bytes) -> bytes:
    # Many readers split at these as well.
    for character, escape in _LINE_BREAKS:
        line = line.replace(character.encode(), escape)
    return line

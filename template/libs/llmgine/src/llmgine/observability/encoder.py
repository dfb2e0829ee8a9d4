"""Events as single lines of strict JSON, quickly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from math import isfinite

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.messages import Event, Message
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.content import is_content, withheld
from llmgine.observability.record import Record, is_time, iso_time, stub, to_record
from llmgine.observability.redaction import hidden, is_secret_key, may_hold_secret

__all__ = ["EventEncoder"]

_LONGEST_LINE = 1024 * 1024
_SHORTEST_SECRET = 8
_ID_LENGTH = 32
_MAX_CLASSES = 2000
_MAX_CONTAINERS = 10_000
_LINE_BREAKS = (("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"), ("\x85", b"\\u0085"))


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

    def encode(self, event: Event) -> bytes:
        """Return an event as one line, without its end. It never raises."""
        walk = _QuickWalk(content=self._content)
        line = attempt(self._encode_quickly, walk, event)
        if (
            isinstance(line, Caught)
            or len(line) > _LONGEST_LINE
            or (walk.texts and may_hold_secret("\n".join(walk.texts)))
        ):
            line = self._encode_carefully(event)
        return line if line.isascii() else _one_line(line)

    def _encode_quickly(self, walk: _QuickWalk, event: Event) -> bytes:
        return self._dumps(walk.event(event))

    def _encode_carefully(self, event: Event) -> bytes:
        line = attempt(self._dumps, to_record(event, content=self._content))
        return self._dumps(stub(event, line.error)) if isinstance(line, Caught) else line


def _one_line(line: bytes) -> bytes:
    # Many readers split at these as well.
    for character, escape in _LINE_BREAKS:
        line = line.replace(character.encode(), escape)
    return line


class _UnusualError(Exception):
    """The quick pass met something that the careful one has to look at."""


_Plan = tuple[tuple[str, int], ...]
_AS_IT_IS, _IDENTIFIER, _MOMENT, _SECRET, _CONTENT = range(5)


class _QuickWalk:
    """Makes the same record as `to_record`, or raises; the texts in it are still to be searched."""

    __slots__ = ("_content", "_left", "texts")

    def __init__(self, *, content: bool) -> None:
        self._content = content
        self._left = _MAX_CONTAINERS
        self.texts: list[str] = []

    def event(self, event: Event) -> Record:
        """Return the record of an event."""
        kind = type(event)
        plan = _plan(kind, self._content)
        if plan is None:
            raise _UnusualError
        record: Record = {"event_type": kind.__name__, "timestamp": None, "session_id": None}
        self._fill(record, event, plan)
        return record

    def _fill(self, record: Record, value: object, plan: _Plan) -> None:
        for name, rule in plan:
            item = getattr(value, name)
            if item is None:
                record[name] = None
            elif rule == _AS_IT_IS:
                record[name] = self._value(item)
            elif rule == _IDENTIFIER:
                known = type(item) is str and len(item) == _ID_LENGTH and item.isalnum()
                record[name] = item if known else self._value(item)
            elif rule == _MOMENT:
                if not is_time(item):
                    raise _UnusualError
                record[name] = iso_time(item)
            else:
                record[name] = hidden(item) if rule == _SECRET else withheld(item)

    def _value(self, value: object) -> JsonValue:
        if type(value) is str:
            if len(value) >= _SHORTEST_SECRET:
                self.texts.append(value)
            return value
        if type(value) is int or type(value) is bool or value is None:
            return value
        if type(value) is float and isfinite(value):
            return value
        return self._container(value)

    def _container(self, value: object) -> JsonValue:
        self._left -= 1
        if self._left < 0:
            raise _UnusualError
        kind = type(value)
        step = _CONTAINERS.get(kind)
        if step is not None:
            return step(self, value)
        plan = _plan(kind, self._content)
        if plan is None:
            raise _UnusualError
        record: Record = {"$type": kind.__name__}
        self._fill(record, value, plan)
        return record

    def mapping(self, value: dict[object, object]) -> JsonValue:
        """Return a mapping whose keys are texts."""
        record: Record = {}
        for name, item in value.items():
            if type(name) is not str:
                raise _UnusualError
            if len(name) >= _SHORTEST_SECRET:
                self.texts.append(name)
            record[name] = hidden(item) if is_secret_key(name) else self._value(item)
        return record

    def sequence(self, value: list[object] | tuple[object, ...]) -> JsonValue:
        """Return a list or a tuple as a list."""
        first = value[0] if value else None
        if len(value) == 2 and type(first) is str and is_secret_key(first):  # noqa: PLR2004
            raise _UnusualError  # a pair of name and value, as in headers
        return [self._value(item) for item in value]


_CONTAINERS: dict[type, Callable[..., JsonValue]] = {
    dict: _QuickWalk.mapping,
    list: _QuickWalk.sequence,
    tuple: _QuickWalk.sequence,
}


@lru_cache(maxsize=_MAX_CLASSES)
def _plan(kind: type, content: bool) -> _Plan | None:
    """Return what to do with each field of an ordinary dataclass; None for another class."""
    if not is_dataclass(kind) or not {Enum, BaseException}.isdisjoint(kind.__mro__):
        return None
    rules = {"id": _IDENTIFIER, "session_id": _IDENTIFIER, "parent_id": _IDENTIFIER}
    rules["timestamp"] = _MOMENT
    is_message = Message in kind.__mro__
    plan: list[tuple[str, int]] = []
    for each in fields(kind):
        rule = rules.get(each.name, _AS_IT_IS) if is_message else _AS_IT_IS
        if is_secret_key(each.name):
            rule = _SECRET
        elif not content and is_content(kind, each):
            rule = _CONTENT
        plan.append((each.name, rule))
    return None if is_message and "event_type" in dict(plan) else tuple(plan)

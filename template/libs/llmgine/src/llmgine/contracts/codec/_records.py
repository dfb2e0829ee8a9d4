"""Shapes of dataclasses and exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum

from llmgine.contracts.chat import JsonValue, OpaquePart
from llmgine.contracts.codec._registry import Registry
from llmgine.contracts.codec._scalars import SCALARS
from llmgine.contracts.codec._shape import (
    ERROR,
    TAG,
    Misfit,
    Shape,
    is_tag,
)
from llmgine.contracts.error_info import ErrorInfo
from llmgine.contracts.messages import Message

__all__ = ["NEWER", "ClassShape", "ErrorShape", "Record"]

NEWER = "llmgine.newer"
"""The `provider` of an `OpaquePart` that stands for a part which this version doesn't know."""

# An ambient default would put a decoded message into the session that happens to decode it.
_OWN = frozenset({"id", "timestamp", "session_id", "parent_id"})


def _key(field: str) -> str:
    """Return a field's name in JSON, where `type` is taken."""
    return f"{field}_" if field.rstrip("_") == TAG else field


class Record:
    """The fields of one dataclass.

    Args:
        kind: the class.
        shapes: gives the shape of each field.
    """

    def __init__(self, kind: type[object], shapes: Mapping[str, Shape]) -> None:
        self._kind = kind
        known = fields(kind) if is_dataclass(kind) else ()
        self._shapes = {field.name: shapes[field.name] for field in known if field.init}
        self._names = {_key(name): name for name in self._shapes}
        self._required = {
            _key(field.name) for field in known if field.init and _is_required(kind, field)
        }

    def write(self, value: object) -> dict[str, JsonValue]:
        """Return the fields of a value."""
        written: dict[str, JsonValue] = {}
        for key, name in self._names.items():
            try:
                written[key] = self._shapes[name].write(getattr(value, name))
            except Misfit as error:
                raise error.at(f".{name}") from None
        return written

    def read(self, data: Mapping[str, JsonValue]) -> object:
        """Return the value that the fields make up; a `type` among them is no field."""
        name = self._kind.__qualname__
        given = {key: item for key, item in data.items() if key != TAG}
        if missing := sorted(self._required - given.keys()):
            raise Misfit(f"expected {name} with the field {missing[0]!r}, which is missing")
        if extra := sorted(given.keys() - self._names.keys()):
            raise Misfit(f"expected {name}, which has no field {extra[0]!r}")
        values: dict[str, object] = {}
        for key, item in given.items():
            field = self._names[key]
            try:
                values[field] = self._shapes[field].read(item)
            except Misfit as error:
                raise error.at(f".{field}") from None
        try:
            return self._kind(**values)
        except Exception as error:
            raise Misfit(f"{name} refuses these fields: {error}") from error


def _is_required(kind: type[object], field: Field[object]) -> bool:
    if issubclass(kind, Message) and field.name in _OWN:
        return True
    return field.default is MISSING and field.default_factory is MISSING


def _is_newer(part: OpaquePart) -> bool:
    return part.provider == NEWER and is_tag(part.data.get(TAG))


class ClassShape(Shape):
    """A value of one of some dataclasses or of their subclasses, by its registered name.

    A class that isn't registered can be written where it alone is declared, without a name.

    Args:
        kinds: the declared classes.
        registry: knows the names.
        record: gives the fields of a class.
    """

    mark = "class"

    def __init__(
        self,
        kinds: tuple[type[object], ...],
        registry: Registry,
        record: Callable[[type[object]], Record],
    ) -> None:
        self.kinds = kinds
        self.expected = " or ".join(kind.__qualname__ for kind in kinds)
        self._registry = registry
        self._record = record

    def fits(self, value: object) -> bool:
        return isinstance(value, self.kinds)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, self.kinds):
            raise self.misfit(value)
        kind = type(value)
        if isinstance(value, OpaquePart) and _is_newer(value):
            return dict(value.data)
        name = self._registry.name_of(kind)
        if name is not None:
            return {TAG: name, **self._record(kind).write(value)}
        if self.kinds != (kind,):
            raise Misfit(f"{kind.__qualname__} is not registered: register({kind.__qualname__})")
        return self._record(kind).write(value)

    def read(self, data: JsonValue) -> object:
        if not isinstance(data, dict):
            raise self.misfit(data)
        tag = data.get(TAG)
        if isinstance(tag, str):
            return self._named(tag, data)
        alone = self.kinds[0] if len(self.kinds) == 1 else None
        if TAG in data or alone is None or self._registry.name_of(alone) is not None:
            raise Misfit(f"expected {self.expected}, found an object without a name in {TAG!r}")
        return self._record(alone).read(data)

    def _named(self, tag: str, data: dict[str, JsonValue]) -> object:
        kind = self._registry.type_of(tag)
        if kind is None or issubclass(kind, Enum):
            if OpaquePart in self.kinds and len(self.kinds) > 1 and is_tag(tag):
                return OpaquePart(provider=NEWER, data=data)
            raise Misfit(f"expected {self.expected}, found the unknown type {tag[:80]!r}")
        if not issubclass(kind, self.kinds):
            raise Misfit(f"expected {self.expected}, found {tag}")
        return self._record(kind).read(data)


class ErrorShape(Shape):
    """An exception: live ones are written, and read, as an `ErrorInfo`."""

    mark = "error"
    expected = "an error"

    def fits(self, value: object) -> bool:
        return isinstance(value, BaseException)

    def write(self, value: object) -> JsonValue:
        if not isinstance(value, BaseException):
            raise self.misfit(value)
        info = ErrorInfo.of(value)
        text = SCALARS[str]
        return {
            TAG: ERROR,
            "type_": text.write(info.type),
            "message": text.write(info.message),
            "traceback": text.write(info.traceback),
        }

    def read(self, data: JsonValue) -> object:
        if not isinstance(data, dict) or data.get(TAG) != ERROR:
            raise self.misfit(data)
        if data.keys() != {TAG, "type_", "message", "traceback"}:
            raise Misfit(f"expected {ERROR} with the fields 'type_', 'message' and 'traceback'")
        name, message, traceback = (
            str(SCALARS[str].read(data[field])) for field in ("type_", "message", "traceback")
        )
        return ErrorInfo(name, message, traceback)

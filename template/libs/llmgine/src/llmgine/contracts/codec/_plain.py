"""Shapes of values whose field doesn't declare what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.codec._containers import DictShape, ListShape
from llmgine.contracts.codec._records import ClassShape, ErrorShape, Record
from llmgine.contracts.codec._registry import Registry
from llmgine.contracts.codec._scalars import SCALARS, EnumShape, checked_key
from llmgine.contracts.codec._shape import (
    ERROR,
    TAG,
    Misfit,
    Shape,
    escaped,
    is_list,
    is_mapping,
    is_tag,
    marked,
)

__all__ = ["AnyShape", "JsonShape"]


class JsonShape(Shape):
    """What JSON itself can say: nothing else is written, nor read."""

    mark = "json"
    expected = "a JSON value"

    def fits(self, value: object) -> bool:
        return value is None or isinstance(value, bool | int | float | str | list | Mapping)

    def write(self, value: object) -> JsonValue:
        if is_mapping(value):
            return escaped({checked_key(k): self._at(k, v) for k, v in value.items()})
        if is_list(value):
            return [self._at(at, item) for at, item in enumerate(value)]
        shape = SCALARS.get(type(value)) if self.fits(value) else None
        if shape is None:
            raise self.misfit(value)
        return shape.write(value)

    def _at(self, step: object, value: object) -> JsonValue:
        try:
            return self.write(value)
        except Misfit as error:
            raise error.at(f"[{step!r}]") from None

    def read(self, data: JsonValue) -> object:
        if isinstance(data, dict):
            return self._read_object(data)
        if isinstance(data, list):
            return [self.read(item) for item in data]
        return SCALARS[type(data)].read(data)

    def _read_object(self, data: dict[str, JsonValue]) -> object:
        tag = data.get(TAG)
        if isinstance(tag, str) and is_tag(tag):
            return self._read_tagged(tag, data)
        return {key: self.read(item) for key, item in data.items()}

    def _read_tagged(self, tag: str, data: dict[str, JsonValue]) -> object:
        if tag in {"$float", "$str"}:
            return SCALARS[float if tag == "$float" else str].read(data)
        if tag == "$dict" and data.keys() == {TAG, "value"} and isinstance(data["value"], dict):
            return {key: self.read(item) for key, item in data["value"].items()}
        raise Misfit(f"expected {self.expected}, found the type {tag[:80]!r}")


class AnyShape(JsonShape):
    """Whatever can be told from its own type: for fields that declare `object`."""

    mark = "any"
    expected = "a value of a known type"

    def __init__(self, registry: Registry, record: Callable[[type], Record]) -> None:
        self._registry = registry
        self._class = ClassShape((object,), registry, record)
        self._error = ErrorShape()
        self._map = DictShape(self, self)
        self._by_type: dict[type, Shape] = {
            kind: shape for kind, shape in SCALARS.items() if shape.mark[0] == "$"
        }
        self._by_type[type(Path())] = SCALARS[Path]
        self._by_type[tuple] = ListShape(tuple, tuple, self)
        self._by_type[set] = ListShape(set, set, self)
        self._by_type[frozenset] = ListShape(frozenset, frozenset, self)
        self._by_mark = {shape.mark: shape for shape in (*self._by_type.values(), self._map)}

    def write(self, value: object) -> JsonValue:
        shape = self._by_type.get(type(value))
        if shape is not None:
            return marked(shape.mark, shape.write(value))
        if isinstance(value, BaseException):
            return self._error.write(value)
        if isinstance(value, Enum):
            return self._write_member(value)
        if is_dataclass(value):
            return self._class.write(value)
        if is_mapping(value) and not all(isinstance(key, str) for key in value):
            return marked("$map", self._map.write(value))
        return super().write(value)

    def _write_member(self, member: Enum) -> JsonValue:
        kind = type(member)
        name = self._registry.name_of(kind)
        if name is None:
            raise Misfit(f"{kind.__qualname__} is not registered: register({kind.__qualname__})")
        return {TAG: name, "value": EnumShape(kind).write(member)}

    def _read_tagged(self, tag: str, data: dict[str, JsonValue]) -> object:
        if tag == ERROR:
            return self._error.read(data)
        kind = self._registry.type_of(tag)
        shape = self._by_mark.get(tag)
        if kind is not None and issubclass(kind, Enum):
            shape = EnumShape(kind)
        if shape is not None:
            if data.keys() != {TAG, "value"}:
                raise Misfit(f"expected {TAG!r} and 'value' in a marked value")
            return shape.read(data["value"])
        if tag[0] == "$":
            return super()._read_tagged(tag, data)
        return self._class.read(data)

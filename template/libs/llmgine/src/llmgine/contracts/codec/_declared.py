"""What the fields of a dataclass declare, checked by pydantic without converting anything."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from types import GenericAlias, NoneType, UnionType
from typing import (
    Annotated,
    Final,
    NewType,
    NotRequired,
    Required,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from pydantic import (
    ConfigDict,
    FailFast,
    GetCoreSchemaHandler,
    JsonValue,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import PydanticUserError
from pydantic_core import CoreSchema, core_schema

from llmgine.contracts.chat import OpaquePart
from llmgine.contracts.messages import Message

if sys.version_info >= (3, 12):
    from typing import TypeAliasType

    def _unaliased(hint: object) -> object:
        return hint.__value__ if isinstance(hint, TypeAliasType) else hint
else:

    def _unaliased(hint: object) -> object:
        return hint


__all__ = [
    "ARRAYS",
    "TAG",
    "TEXTS",
    "TEXT_FORMS",
    "Declared",
    "DeclaredField",
    "Form",
    "Misfit",
    "check_depth",
    "declared",
    "is_mapping",
    "is_tag",
]

TAG = "type"
TEXTS: Mapping[object, str] = {
    bytes: "$bytes",
    date: "$date",
    datetime: "$datetime",
    Decimal: "$decimal",
    Path: "$path",
    time: "$time",
    timedelta: "$timedelta",
    UUID: "$uuid",
}
"""The marks of classes that are written as one text."""
ARRAYS: Mapping[object, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
"""The marks of classes that are written as an array."""

_WRAPPERS = (Annotated, Final, Required, NotRequired)
# The alias refers to itself by a string, which pydantic would follow forever.
_NAMES = {"JsonValue": JsonValue}
# An ambient default would put a decoded message into the session that happens to decode it.
_OWN = frozenset({"id", "timestamp", "session_id", "parent_id"})
_LONGEST = 500
_MAX_DEPTH = 100
_MOST_ERRORS = 50
_UNCHECKABLE = (PydanticUserError, NameError, TypeError, AttributeError, RecursionError)


class Misfit(Exception):  # noqa: N818 - it is turned into a CodecError at the codec's edge
    """A value that doesn't go with its type; says the way to it."""

    def at(self, step: str) -> Misfit:
        """Return the same error, seen from one step further out."""
        return Misfit(f"{step}: {self}")


def is_tag(value: object) -> TypeGuard[str]:
    """Return whether an object's `type` names a class or a form rather than anything else."""
    return isinstance(value, str) and (value[:1] == "$" or "A" <= value[:1] <= "Z")


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Return whether a value is a mapping."""
    return isinstance(value, Mapping)


def check_depth(data: JsonValue, brackets: int) -> None:
    """Refuse what is nested too deeply; its text has this many opening brackets.

    Raises:
        Misfit: it is.
    """
    if brackets < _MAX_DEPTH:
        return  # as nearly always: so few can't be nested too deeply
    level = [data]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Misfit(f"nested deeper than {_MAX_DEPTH} levels")


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """One field.

    Attributes:
        name: in Python.
        required: whether data must have it.
        bare: the mark that its values go without, since nothing else can be meant.
        newer: whether it takes parts that only a newer version knows.
    """

    name: str
    required: bool
    bare: str | None
    newer: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How values of a class that JSON lacks are written and read; `natural` is what stands there.

    `read` raises `TypeError`, `ValueError`, `LookupError` or `ArithmeticError` for anything else.
    """

    natural: type
    write: Callable[..., JsonValue]
    read: Callable[..., object]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _microseconds(value: timedelta) -> int:
    return value // timedelta(microseconds=1)


_ODD_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


TEXT_FORMS: Mapping[str, Form] = {
    "$bytes": Form(str, _base64, partial(base64.b64decode, validate=True)),
    "$date": Form(str, date.isoformat, date.fromisoformat),
    "$datetime": Form(str, datetime.isoformat, datetime.fromisoformat),
    "$decimal": Form(str, str, Decimal),
    "$float": Form(str, repr, _ODD_FLOATS.__getitem__),
    "$path": Form(str, str, Path),
    "$time": Form(str, time.isoformat, time.fromisoformat),
    "$timedelta": Form(int, _microseconds, partial(timedelta, 0, 0)),
    "$uuid": Form(str, str, UUID),
}
"""The forms that take no other value in."""


@dataclass(frozen=True, slots=True)
class _Made:
    """In an annotation: asks a function for what pydantic shall check."""

    make: Callable[[GetCoreSchemaHandler], CoreSchema]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return self.make(handler)


def _instance(kinds: tuple[type, ...], _: GetCoreSchemaHandler) -> CoreSchema:
    names = " or ".join(kind.__qualname__ for kind in kinds)
    return core_schema.is_instance_schema(kinds, cls_repr=names)


def _either(hints: Sequence[object], handler: GetCoreSchemaHandler) -> CoreSchema:
    found: list[CoreSchema | tuple[CoreSchema, str]] = []
    found.extend(handler.generate_schema(hint) for hint in hints if hint is not NoneType)
    union = core_schema.union_schema(found)
    return core_schema.nullable_schema(union) if NoneType in hints else union


def _keys(kind: type[object], handler: GetCoreSchemaHandler) -> CoreSchema:
    # Where annotations are texts, `NotRequired` shows only once they are resolved.
    named: frozenset[str] = vars(kind)["__required_keys__"]
    found: dict[str, core_schema.TypedDictField] = {}
    for name, hint in get_type_hints(kind, localns=_NAMES, include_extras=True).items():
        wrapper = get_origin(hint)
        found[name] = core_schema.typed_dict_field(
            handler.generate_schema(_for_pydantic(hint)),
            required=wrapper is Required or (name in named and wrapper is not NotRequired),
        )
    return core_schema.typed_dict_schema(found, extra_behavior="forbid")


def _unwrapped(hint: object) -> object:
    """Return what stands behind an alias or a name."""
    if hint is JsonValue:
        return hint
    if isinstance(hint, NewType):
        return _unwrapped(hint.__supertype__)
    if get_origin(hint) in _WRAPPERS:
        return _unwrapped(get_args(hint)[0])
    plain = _unaliased(hint)
    return plain if plain is hint else _unwrapped(plain)


def _members(hint: object) -> Iterator[object]:
    """Go through the members of a union, or give the hint itself."""
    hint = _unwrapped(hint)
    if list[JsonValue] in get_args(hint):
        yield JsonValue
    elif get_origin(hint) in {Union, UnionType}:
        for member in get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _for_pydantic(hint: object) -> object:
    """Return a hint in which classes with a name in the data are only looked at from outside."""
    kinds: list[type] = []
    others: list[object] = []
    for member in _members(hint):
        plain = get_origin(member) or member
        if isinstance(plain, type) and is_dataclass(plain):
            kinds.append(plain)
        elif isinstance(plain, type) and issubclass(plain, BaseException):
            kinds.append(BaseException)
        elif isinstance(plain, type) and is_typeddict(plain):
            others.append(Annotated[object, _Made(partial(_keys, plain))])
        else:
            others.append(_part_for_pydantic(member))
    if kinds:
        others.append(Annotated[object, _Made(partial(_instance, tuple(kinds)))])
    return others[0] if len(others) == 1 else Annotated[object, _Made(partial(_either, others))]


def _part_for_pydantic(hint: object) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if not isinstance(origin, type) or not arguments:
        return hint
    again = GenericAlias(origin, tuple(_for_pydantic(item) for item in arguments))
    endless = origin is not tuple or arguments[-1] is Ellipsis
    # Data may hold millions of wrong items: the first is enough.
    return Annotated[again, FailFast()] if endless and origin in {list, *ARRAYS} else again


def _bare(hint: object) -> str | None:
    members = [get_origin(member) or member for member in _members(hint)]
    members = [member for member in members if member is not NoneType]
    arrays = [member for member in members if member in ARRAYS]
    if len(arrays) == 1 and all(member is str or member in ARRAYS for member in members):
        return ARRAYS[arrays[0]]
    return TEXTS.get(members[0]) if len(members) == 1 else None


def _takes_newer(hint: object) -> bool:
    members = tuple(_members(hint))
    if OpaquePart in members and len(members) > 1:
        return True
    return any(_takes_newer(item) for member in members for item in get_args(member))


def _is_required(kind: type[object], field: Field[object]) -> bool:
    if issubclass(kind, Message) and field.name in _OWN:
        return True
    return field.default is MISSING and field.default_factory is MISSING


def _text(error: ValidationError, kind: str) -> str:
    if error.error_count() > _MOST_ERRORS:
        return f"expected what {kind} declares, found {error.error_count()} other values"
    texts: list[str] = []
    for line in error.errors(include_url=False, include_context=False):
        way = ".".join(str(step) for step in line["loc"])
        if line["type"] == "missing":
            texts.append(f"{way}: expected a value, which is missing")
            continue
        found = "null" if line["input"] is None else type(line["input"]).__qualname__
        expected = line["msg"].replace("Input should be", "expected", 1)
        expected = expected.replace("input was not", "expected", 1)
        texts.append(f"{way}: {expected}, found {found}")
    return "; or ".join(texts)[:_LONGEST]


class Declared:
    """The fields of one dataclass.

    Args:
        kind: the class.

    Raises:
        Misfit: an annotation doesn't resolve, or means nothing that can be checked.
    """

    def __init__(self, kind: type[object]) -> None:
        self._name = kind.__qualname__
        try:
            hints = get_type_hints(kind, localns=_NAMES)
        except (NameError, TypeError) as error:
            raise Misfit(f"the annotations of {kind.__qualname__} don't resolve: {error}") from None
        known = [field for field in fields(kind) if field.init] if is_dataclass(kind) else []
        self._hints = {field.name: hints[field.name] for field in known}
        self.by_key = {
            f"{field.name}_" if field.name.rstrip("_") == TAG else field.name: DeclaredField(
                field.name,
                _is_required(kind, field),
                _bare(hints[field.name]),
                _takes_newer(hints[field.name]),
            )
            for field in known
        }
        adapter = TypeAdapter[object](
            Annotated[object, _Made(self._schema)], config=ConfigDict(arbitrary_types_allowed=True)
        )
        self._validate = adapter.validator.validate_python

    def _schema(self, handler: GetCoreSchemaHandler) -> CoreSchema:
        found: dict[str, core_schema.TypedDictField] = {}
        for field in self.by_key.values():
            try:
                schema = handler.generate_schema(_for_pydantic(self._hints[field.name]))
            except _UNCHECKABLE as error:
                way = f"{self._name}.{field.name}"
                raise Misfit(f"{way}: can't be checked: {str(error)[:_LONGEST]}") from None
            found[field.name] = core_schema.typed_dict_field(schema, required=field.required)
        return core_schema.typed_dict_schema(found)

    def values(self, holder: object) -> dict[str, object]:
        """Return the values of an object's fields, once they are checked.

        Raises:
            Misfit: a value is of another type.
        """
        values = {name: getattr(holder, name) for name in self._hints}
        self.check(values)
        return values

    def check(self, values: Mapping[str, object]) -> None:
        """Compare the values of fields with what the fields declare.

        Raises:
            Misfit: a value is of another type, or a required one is missing.
        """
        try:
            self._validate(values, strict=True)
        except ValidationError as error:
            raise Misfit(_text(error, self._name)) from None


@cache
def declared(kind: type[object]) -> Declared:
    """Return the fields of a dataclass, which are looked at once.

    Raises:
        Misfit: an annotation doesn't resolve, or means nothing that can be checked.
    """
    return Declared(kind)

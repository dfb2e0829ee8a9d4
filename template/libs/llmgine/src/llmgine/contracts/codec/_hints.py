"""From declared types to shapes."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import (
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from llmgine.contracts.codec._containers import (
    DictShape,
    ListShape,
    TupleShape,
    TypedDictShape,
    TypedKeys,
    UnionShape,
)
from llmgine.contracts.codec._plain import AnyShape, JsonShape
from llmgine.contracts.codec._records import ClassShape, ErrorShape, Record
from llmgine.contracts.codec._registry import Registry
from llmgine.contracts.codec._scalars import SCALARS, EnumShape, LiteralShape
from llmgine.contracts.codec._shape import Misfit, Shape

__all__ = ["Shapes"]

if sys.version_info >= (3, 12):
    from typing import TypeAliasType

    def _unaliased(hint: object) -> object:
        return hint.__value__ if isinstance(hint, TypeAliasType) else hint

else:

    def _unaliased(hint: object) -> object:
        return hint


class _Json:
    """Stands for `JsonValue`, an alias that refers to itself and can't be resolved."""


_NAMES = {"JsonValue": _Json}
_WRAPPERS = (Annotated, ClassVar, Final, Required, NotRequired)
_DICTS: tuple[object, ...] = (dict, Mapping, MutableMapping)
_SEQUENCES: tuple[object, ...] = (Sequence, MutableSequence, Collection, Iterable)


def _resolved(kind: type[object]) -> Mapping[str, object]:
    try:
        return get_type_hints(kind, localns=_NAMES, include_extras=True)
    except (NameError, TypeError) as error:
        name = kind.__qualname__
        raise Misfit(f"the annotations of {name} don't resolve: {error}") from error


class Shapes:
    """Makes the shape of each declared type, once.

    Args:
        registry: knows the names of classes.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._records: dict[type[object], Record] = {}
        self._any = AnyShape(registry, self.record)
        self._json = JsonShape()
        self._special: Mapping[object, Shape] = {
            Any: self._any,
            object: self._any,
            _Json: self._json,
            None: SCALARS[type(None)],
        }

    @property
    def any(self) -> Shape:
        """The shape of values whose type isn't declared."""
        return self._any

    def record(self, kind: type[object]) -> Record:
        """Return the fields of a dataclass.

        Raises:
            Misfit: a field declares what can't be written as JSON, or can't be resolved.
        """
        known = self._records.get(kind)
        if known is None:
            known = self._records[kind] = Record(kind, self._fields(kind))
        return known

    def _fields(self, kind: type[object]) -> Mapping[str, Shape]:
        try:
            hints = get_type_hints(kind, localns=_NAMES, include_extras=True)
        except (NameError, TypeError) as error:
            raise Misfit(
                f"the annotations of {kind.__qualname__} don't resolve: {error}"
            ) from error
        shapes: dict[str, Shape] = {}
        for name, hint in hints.items():
            if get_origin(hint) is ClassVar or hint is ClassVar:
                continue
            try:
                shapes[name] = self.of(hint)
            except Misfit as error:
                raise error.at(f".{name}").at(kind.__qualname__) from None
        return shapes

    def of(self, hint: object) -> Shape:
        """Return the shape of a declared type.

        Raises:
            Misfit: there is none.
        """
        origin = get_origin(hint)
        if origin is None:
            return self._of_name(hint)
        if origin in _WRAPPERS:
            return self.of(get_args(hint)[0])
        if origin is Literal:
            return LiteralShape(get_args(hint))
        if origin in {Union, types.UnionType}:
            return self._of_union(get_args(hint))
        if origin is type:
            raise Misfit("a class can't be written as JSON")
        return self._of_generic(origin, get_args(hint))

    def _of_name(self, hint: object) -> Shape:
        if hint in self._special:
            return self._special[hint]
        if isinstance(hint, NewType):
            return self.of(hint.__supertype__)
        if isinstance(hint, TypeVar):
            return self.of(hint.__bound__) if hint.__bound__ is not None else self._any
        if isinstance(hint, type):
            return self._of_class(hint)
        unaliased = _unaliased(hint)
        if unaliased is not hint:
            return self.of(unaliased)
        raise Misfit(f"{hint!r} can't be written as JSON")

    def _of_class(self, kind: type[object]) -> Shape:
        if kind in SCALARS:
            return SCALARS[kind]
        if issubclass(kind, BaseException):
            return ErrorShape()
        if issubclass(kind, Enum):
            return EnumShape(kind)
        if is_typeddict(kind):
            return self._of_typed_dict(kind)
        if dataclasses.is_dataclass(kind):
            return ClassShape((kind,), self._registry, self.record)
        if kind in {list, tuple, set, frozenset, *_DICTS, *_SEQUENCES, AbstractSet}:
            return self._of_generic(kind, ())
        raise Misfit(f"{kind.__qualname__} can't be written as JSON; make it a dataclass")

    def _of_typed_dict(self, kind: type[object]) -> Shape:
        def keys() -> TypedKeys:
            named: frozenset[str] = vars(kind)["__required_keys__"]
            hints = _resolved(kind)
            # Where annotations are texts, the class itself has overlooked `NotRequired`.
            required = {
                name
                for name, hint in hints.items()
                if get_origin(hint) is Required
                or (name in named and get_origin(hint) is not NotRequired)
            }
            return self._fields(kind), frozenset(required)

        return TypedDictShape(kind.__qualname__, keys)

    def _of_generic(self, origin: object, arguments: tuple[object, ...]) -> Shape:
        if origin in _DICTS:
            key, value = arguments or (object, object)
            return DictShape(self.of(key), self.of(value))
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return TupleShape([self.of(item) for item in arguments if item != ()])
        item = self.of(arguments[0]) if arguments else self._any
        lists: dict[object, Shape] = {
            list: ListShape(list, list, item),
            tuple: ListShape(tuple, tuple, item),
            set: ListShape(set, set, item),
            frozenset: ListShape(frozenset, frozenset, item),
        }
        if origin in lists:
            return lists[origin]
        if origin in _SEQUENCES:
            return UnionShape([lists[list], lists[tuple]])
        if origin is AbstractSet:
            return UnionShape([lists[set], lists[frozenset]])
        # A generic dataclass: what its parameters stand for isn't known at run time.
        return self.of(origin)

    def _of_union(self, members: tuple[object, ...]) -> Shape:
        if any(member is _Json or _Json in get_args(member) for member in members):
            return self._json if _is_json(members) else self._any
        shapes: list[Shape] = []
        for member in members:
            shape = self.of(member)
            shapes.extend(shape.members if isinstance(shape, UnionShape) else (shape,))
        if self._any in shapes:
            return self._any
        return self._joined(shapes)

    def _joined(self, shapes: list[Shape]) -> Shape:
        kinds: list[type[object]] = []
        joined: list[Shape] = []
        for shape in shapes:
            if isinstance(shape, ClassShape):
                kinds.extend(shape.kinds)
            else:
                joined.append(shape)
        if kinds:
            joined.append(ClassShape(tuple(kinds), self._registry, self.record))
        return joined[0] if len(joined) == 1 else UnionShape(joined)


def _is_json(members: tuple[object, ...]) -> bool:
    """Return whether a union says no more than `JsonValue` itself."""
    plain = {_Json, None, type(None), bool, int, float, str}
    return all(member in plain or _Json in get_args(member) for member in members)

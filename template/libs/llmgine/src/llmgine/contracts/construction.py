"""Constructors of frozen dataclasses in two thirds of the time, for what every message pays.

The constructor that `dataclass(frozen=True)` writes looks each attribute up by its name and
calls each default factory. The one made here takes the same arguments and leaves the same
object, but sets slots through their descriptors and looks only once at what is ambient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from types import FunctionType, MemberDescriptorType
from typing import Any

from llmgine.contracts.ambient import AMBIENT, current_parent_id, current_session_id

__all__ = ["quicken"]

_ABSENT = object()

# What the constructor of a frozen dataclass closes over, and no other function does.
_GENERATED = "__dataclass_builtins_object__"

_AROUND = (
    (current_session_id, "_around.session_id"),
    (current_parent_id, "_around.parent_id"),
)


def quicken(kind: type) -> None:
    """Give a keyword-only frozen dataclass that constructor.

    One that isn't such a class, or does more than set its fields, stays as it is. The signature,
    as `inspect` shows it, is the same as before.
    """
    generated: object = vars(kind).get("__init__")
    if not isinstance(generated, FunctionType) or not _is_plain(kind, generated):
        return
    scope: dict[str, Any] = {"_ambient": AMBIENT.get, "_ABSENT": _ABSENT}
    source = "\n ".join(_lines(fields(kind), kind, scope))
    exec(source, scope)  # noqa: S102 - made of field names alone, as dataclasses itself does it
    constructor: FunctionType = scope["__init__"]
    constructor.__qualname__, constructor.__module__ = generated.__qualname__, kind.__module__
    constructor.__dict__["__wrapped__"] = generated
    type.__setattr__(kind, "__init__", constructor)


def _is_plain(kind: type, generated: FunctionType) -> bool:
    code = generated.__code__
    arguments = code.co_varnames[1 : 1 + code.co_kwonlyargcount]
    return (
        _GENERATED in code.co_freevars
        and code.co_argcount == 1
        and sorted(arguments) == sorted(each.name for each in fields(kind))
        and not any(name.startswith("_") for name in arguments)
        and not any("__post_init__" in vars(base) for base in kind.__mro__)
    )


def _lines(members: tuple[Field[Any], ...], kind: type, scope: dict[str, Any]) -> Iterator[str]:
    """Yield the constructor's lines, and put what they name into `scope`."""
    yield f"def __init__(_self, *, {', '.join(_argument(each, scope) for each in members)}):"
    if any(_ambient_value(each) for each in members):
        yield "_around = _ambient()"
    for each in members:
        setter = _setter(kind, each.name, scope)
        yield f"{setter} {_value(each)})"


def _argument(member: Field[Any], scope: dict[str, Any]) -> str:
    name = member.name
    if member.default is not MISSING:
        scope[f"_default_{name}"] = member.default
        return f"{name}=_default_{name}"
    if member.default_factory is not MISSING:
        scope[f"_make_{name}"] = member.default_factory
        return f"{name}=_ABSENT"
    return name


def _value(member: Field[Any]) -> str:
    if member.default_factory is MISSING:
        return member.name
    made = _ambient_value(member) or f"_make_{member.name}()"
    return f"{made} if {member.name} is _ABSENT else {member.name}"


def _ambient_value(member: Field[Any]) -> str | None:
    factory = member.default_factory  # which may be anything that can be called, and no key
    return next((value for known, value in _AROUND if known is factory), None)


def _setter(kind: type, name: str, scope: dict[str, Any]) -> str:
    """Return the call that sets a field, up to the value."""
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    if isinstance(found, MemberDescriptorType):
        scope[f"_set_{name}"] = found.__set__
        return f"_set_{name}(_self,"
    scope["_put"] = object.__setattr__
    return f"_put(_self, {name!r},"

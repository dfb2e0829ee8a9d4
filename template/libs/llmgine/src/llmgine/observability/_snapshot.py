"""Copies of events as they are now, for threads that look at them later."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter, is_not
from types import MemberDescriptorType
from typing import NamedTuple, TypeVar

from llmgine.contracts.messages import Event, Message

__all__ = ["snapshot"]

MessageT = TypeVar("MessageT", bound=Message)

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_MAX_DEPTH = 16
_MAX_CLASSES = 2000


def snapshot(event: Event) -> Event:
    """Return the event, or, if anything in it can change, a copy that can't.

    The copy has its own mappings, lists and sets, and its own copies of inner messages. Nothing of
    the class runs for it, neither `__init__` nor `__post_init__`. What lies inside other objects,
    such as a request to a model, is shared with the original.
    """
    return _copy_message(event, 0)


def _copy_message(message: MessageT, depth: int) -> MessageT:
    kind = type(message)
    plan = _plan(kind)
    values = plan.values(message)
    kept = [value if type(value) in _ATOMS else _copy_value(value, depth + 1) for value in values]
    changed = any(map(is_not, values, kept))
    if not changed and not plan.has_dict:
        return message
    copy = object.__new__(kind)
    for set_, value in zip(plan.setters, kept, strict=True):
        set_(copy, value)
    if plan.has_dict:
        for name, value in list(message.__dict__.items()):
            copy.__dict__[name] = value if type(value) in _ATOMS else _copy_value(value, depth + 1)
    return copy


class _Plan(NamedTuple):
    """How to copy a class of messages.

    Attributes:
        values: takes the values of all slots from an object at once.
        setters: puts each of them into another, frozen or not.
        has_dict: whether there are attributes besides.
    """

    values: Callable[[object], tuple[object, ...]]
    setters: tuple[Callable[[object, object], None], ...]
    has_dict: bool


@lru_cache(maxsize=_MAX_CLASSES)
def _plan(kind: type) -> _Plan:
    slots = {
        name: member
        for base in reversed(kind.__mro__)
        for name, member in base.__dict__.items()
        if isinstance(member, MemberDescriptorType)
    }
    has_dict = any("__dict__" in base.__dict__ for base in kind.__mro__)
    return _Plan(attrgetter(*slots), tuple(each.__set__ for each in slots.values()), has_dict)


def _copy_value(value: object, depth: int) -> object:
    if depth >= _MAX_DEPTH:
        return value
    copier = _COPIERS.get(type(value))
    if copier is not None:
        return copier(value, depth)
    return _copy_message(value, depth) if isinstance(value, Message) else value


def _copy_dict(value: dict[object, object], depth: int) -> dict[object, object]:
    # `list` takes all items in one go, so another thread that writes can't get in between.
    return {key: _copy_value(item, depth + 1) for key, item in list(value.items())} if value else {}


def _copy_list(value: list[object], depth: int) -> list[object]:
    return [_copy_value(item, depth + 1) for item in tuple(value)]


def _copy_flat(value: set[object] | bytearray, _depth: int) -> object:
    return value.copy()


_COPIERS: dict[type, Callable[..., object]] = {
    dict: _copy_dict,
    list: _copy_list,
    set: _copy_flat,
    bytearray: _copy_flat,
}

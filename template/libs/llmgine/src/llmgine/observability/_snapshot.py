"""Copies of events as they are now, for threads that look at them later."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import MemberDescriptorType
from typing import TypeVar

from llmgine.contracts.messages import Event, Message

__all__ = ["snapshot"]

MessageT = TypeVar("MessageT", bound=Message)

_Slot = tuple[Callable[[Message], object], Callable[[Message, object], None]]
_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_MAX_DEPTH = 16
_MAX_CLASSES = 2000


def snapshot(event: Event) -> Event:
    """Return a copy with its own mappings, lists and sets, and its own copies of inner messages.

    Nothing of the class runs for it, neither `__init__` nor `__post_init__`. What lies inside
    other objects, such as a request to a model, is shared with the original.
    """
    return _copy_message(event, 0)


def _copy_message(message: MessageT, depth: int) -> MessageT:
    kind = type(message)
    slots, has_dict = _plan(kind)
    copy = object.__new__(kind)
    for get, set_ in slots:
        try:
            value = get(message)
        except AttributeError:  # a slot that was never filled
            continue
        if type(value) not in _ATOMS:
            value = _copy_value(value, depth + 1)
        set_(copy, value)
    if has_dict:
        for name, value in list(message.__dict__.items()):
            copy.__dict__[name] = _copy_value(value, depth + 1)
    return copy


@lru_cache(maxsize=_MAX_CLASSES)
def _plan(kind: type) -> tuple[tuple[_Slot, ...], bool]:
    """Return how to copy a class: its slots, and whether it has a `__dict__` besides."""
    found: list[_Slot] = []
    has_dict = False
    for base in kind.__mro__:
        has_dict = has_dict or "__dict__" in base.__dict__
        found += [
            (member.__get__, member.__set__)
            for member in base.__dict__.values()
            if isinstance(member, MemberDescriptorType)
        ]
    return tuple(found), has_dict


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


def _copy_set(value: set[object], _depth: int) -> set[object]:
    return value.copy()


def _copy_bytes(value: bytearray, _depth: int) -> bytearray:
    return value.copy()


_COPIERS: dict[type, Callable[..., object]] = {
    dict: _copy_dict,
    list: _copy_list,
    set: _copy_set,
    bytearray: _copy_bytes,
}

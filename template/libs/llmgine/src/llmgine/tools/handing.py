"""Definitions as they are handed out: each is copied when somebody first looks into it.

They are asked for in every turn, and copying them then and there would take ten times as long as
handing out what is yet to be copied.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from llmgine.contracts import ToolDefinition

__all__ = ["Shared", "handed_out"]


class _Uncopied(dict[str, Any]):
    """The inner part of a definition, for all who haven't looked yet."""

    __slots__ = ("packed",)

    packed: bytes


class _Definition(dict[str, Any]):
    """A definition; looking into it makes it the caller's own."""

    __slots__ = ()


class Shared(dict[str, Any]):
    """A definition from which copies are made."""

    def __init__(self, definition: ToolDefinition) -> None:
        inner = _Uncopied(definition["function"])
        inner.packed = marshal.dumps(dict(inner))
        super().__init__(type="function", function=inner)


_copy: Callable[[Mapping[str, Any]], Any] = _Definition


def handed_out(definitions: Sequence[Shared]) -> list[ToolDefinition]:
    """Return definitions that their taker may change."""
    return list(map(_copy, definitions))


def _looking(name: str) -> Callable[..., object]:
    method: Callable[..., object] = getattr(dict, name)

    @wraps(method)
    def look(self: _Definition, *arguments: object) -> object:
        plain = super(_Definition, self)
        inner: object = plain.get("function")
        if isinstance(inner, _Uncopied):
            plain.__setitem__("function", marshal.loads(inner.packed))  # noqa: S302 - our own
        return method(self, *arguments)

    return look


# `dict(...)` and `{**...}` look in by themselves, unless `__iter__` is another than dict's own.
for _name in (
    *("__getitem__", "__iter__", "__or__", "__ror__", "copy", "get"),
    *("items", "pop", "popitem", "setdefault", "values"),
):
    setattr(_Definition, _name, _looking(_name))

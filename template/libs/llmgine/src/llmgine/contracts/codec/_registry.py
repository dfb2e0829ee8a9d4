"""Classes by the names under which they are written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from threading import Lock

from llmgine.contracts.codec._shape import ERROR
from llmgine.errors import CodecError, UndecoratedMessageError

__all__ = ["Registry"]

_NAME = re.compile(r"[A-Z][A-Za-z0-9_.]*")


class Registry:
    """Which class a name stands for, and the other way round.

    Nothing is ever imported or looked up by a name from the data: what isn't registered is
    unknown.
    """

    def __init__(self) -> None:
        self._types: dict[str, type[object]] = {}
        self._names: dict[type[object], str] = {}
        self._lock = Lock()

    def add(self, kind: type[object], name: str | None = None) -> None:
        """Give a dataclass or an enumeration a name; its own by default.

        Raises:
            CodecError: the name is taken or doesn't start with a capital letter, or the class is
                neither a dataclass nor an enumeration.
            UndecoratedMessageError: a subclass of a dataclass lacks the decorator.
        """
        name = kind.__name__ if name is None else name
        if not _NAME.fullmatch(name):
            raise CodecError(
                f"{name!r} can't be registered: a name starts with a capital letter, "
                "followed by letters, digits, `_` or `.`"
            )
        if not issubclass(kind, Enum):
            if not is_dataclass(kind):
                raise CodecError(f"{kind.__qualname__} is neither a dataclass nor an Enum")
            if "__dataclass_fields__" not in vars(kind):
                raise UndecoratedMessageError(kind)
        with self._lock:
            self._check_free(kind, name)
            self._types[name] = kind
            self._names[kind] = name

    def _check_free(self, kind: type[object], name: str) -> None:
        holder = self._types.get(name)
        if name == ERROR or (holder is not None and _origin(holder) != _origin(kind)):
            raise CodecError(
                f"the name {name!r} is taken; register {kind.__qualname__} under another: "
                f"register({kind.__qualname__}, name=...)"
            )
        if self._names.get(kind, name) != name:
            raise CodecError(f"{kind.__qualname__} is registered as {self._names[kind]!r}")

    def name_of(self, kind: type[object]) -> str | None:
        """Return the name of a class, if it has one."""
        return self._names.get(kind)

    def type_of(self, name: str) -> type[object] | None:
        """Return the class of a name, if there is one."""
        return self._types.get(name)

    def types(self) -> Iterable[type[object]]:
        """Return all classes that have a name."""
        return tuple(self._names)


def _origin(kind: type[object]) -> tuple[str, str]:
    """Return where a class comes from: one that was made anew (a module reloaded) may follow."""
    return kind.__module__, kind.__qualname__

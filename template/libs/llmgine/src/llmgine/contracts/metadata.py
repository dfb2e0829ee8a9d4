"""The metadata of a message that has none: one empty dict for all of them, which stays empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

__all__ = ["NO_METADATA"]


class _NoMetadata(dict[str, str]):
    """An empty dict that refuses to be filled; whatever takes a dict takes it.

    A dict of its own for each message would be made, and nearly always thrown away, each time.
    """

    __slots__ = ()
    # Hashable, as dataclasses demand of a default, since it can't change.
    __hash__ = object.__hash__  # type: ignore[assignment]

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a message's metadata is given when it is made: metadata={...}")

    __setitem__ = __ior__ = update = setdefault = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> str:
        """Pickle and copy as the one instance that there is."""
        return "NO_METADATA"


NO_METADATA: Mapping[str, str] = _NoMetadata()

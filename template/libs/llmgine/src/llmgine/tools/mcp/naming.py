"""Names that every provider takes, for tools whose names may be anything."""

from __future__ import annotations

import re
from collections.abc import Container
from hashlib import sha256
from itertools import count

__all__ = ["offered_name"]

_LONGEST = 64
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
_HASHED = 8


def offered_name(prefix: str, name: str, taken: Container[str]) -> str:
    """Return the name under which a tool is offered: legal, and no other tool's.

    One that is too long keeps its beginning and gets a hash of the whole, so that it is the same
    in every run.
    """
    legal = _ILLEGAL.sub("_", f"{prefix}{name}") or "tool"
    if len(legal) > _LONGEST:
        whole = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        legal = f"{legal[: _LONGEST - _HASHED - 1]}_{whole[:_HASHED]}"
    if legal not in taken:
        return legal
    numbered = (f"{legal[: _LONGEST - len(f'_{number}')]}_{number}" for number in count(2))
    return next(each for each in numbered if each not in taken)

"""Ids for messages and sessions: 128 random bits as 32 hexadecimal digits."""

from __future__ import annotations

import os
import sys

__all__ = ["new_id"]

_BATCH = 256
_DIGITS = 32

# One read of the system's randomness serves many ids: uuid4 costs ten times as much as this,
# and an id is made for every message. `list.pop` and `list.extend` are safe between threads.
_pool: list[str] = []
if sys.platform != "win32":
    # A forked child must not hand out the ids that its parent hands out.
    os.register_at_fork(after_in_child=_pool.clear)


def new_id() -> str:
    """Return a new random id of 32 hexadecimal digits."""
    try:
        return _pool.pop()
    except IndexError:
        digits = os.urandom(_BATCH * _DIGITS // 2).hex()
        ids = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
        fresh = ids.pop()
        _pool.extend(ids)
        return fresh

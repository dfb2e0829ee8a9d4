"""Ids for messages and sessions: 128 random bits as 32 hexadecimal digits."""

from __future__ import annotations

import os
import sys
from collections import deque
from itertools import chain, repeat

__all__ = ["new_id"]

_BATCH = 256
_BYTES = 16

# The batch being handed out (and the one before, should two threads begin one together).
_batches: deque[list[str]] = deque(maxlen=2)


def _batch(_: None) -> list[str]:
    ids = os.urandom(_BATCH * _BYTES).hex(" ", -_BYTES).split(" ")
    _batches.append(ids)
    return ids


def _forget() -> None:
    for batch in _batches:
        batch.clear()


if sys.platform != "win32":
    # A forked child must not hand out the ids that its parent hands out.
    os.register_at_fork(after_in_child=_forget)

# An id is made for every message, so this is an iterator that runs in C but for one call in 256;
# uuid4 takes ten times as long.
new_id = chain.from_iterable(map(_batch, repeat(None))).__next__
"""Return a new random id of 32 hexadecimal digits."""

"""What middleware keeps for each key: of one session or of all, bounded, gone with its session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import Generic, Literal, TypeAlias, TypeGuard, TypeVar

from llmgine.contracts.messages import Command, Message

__all__ = ["BySession", "Key", "Keyed", "Place", "Scope", "by_type", "described", "is_command"]

StateT = TypeVar("StateT")

Key: TypeAlias = Callable[[Message], Hashable | None]
"""What a message is counted by; `None` lets it pass uncounted."""
Scope: TypeAlias = Literal["session", "bus"]
Place: TypeAlias = tuple[str | None, Hashable]
"""Where something is kept: the id of its session, if it is kept for one, and its key."""

# How many of the keys that have gone unused for longest are looked at to make room for a new one.
_LOOKED_AT = 16


def is_command(message: Message) -> TypeGuard[Command[object]]:
    """Tell commands from events."""
    return isinstance(message, Command)


def by_type(message: Message) -> Hashable | None:
    """Count commands by their type, and events not at all."""
    return type(message) if is_command(message) else None


def described(place: Place) -> str:
    """Return a place in words, for error messages."""
    session_id, key = place
    name = key.__qualname__ if isinstance(key, type) else repr(key)
    return name if session_id is None else f"{name} in session {session_id!r}"


class BySession(Generic[StateT]):
    """Values in the order of their last use, of which a session's can be dropped together."""

    def __init__(self) -> None:
        self._values: OrderedDict[Place, StateT] = OrderedDict()
        self._keys: dict[str, set[Hashable]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._values)

    def items(self) -> Iterable[tuple[Place, StateT]]:
        """Return places and values, the longest unused first."""
        return self._values.items()

    def get(self, place: Place) -> StateT | None:
        """Return the value that is kept there, if there is one."""
        return self._values.get(place)

    def used(self, place: Place) -> StateT | None:
        """Return the value that is kept there, and note that it was used."""
        value = self._values.get(place)
        if value is not None:
            self._values.move_to_end(place)
        return value

    def put(self, place: Place, value: StateT) -> None:
        """Keep a value, in place of the one that was there, as the last one used."""
        session_id, key = place
        self._values[place] = value
        self._values.move_to_end(place)
        if session_id is not None:
            self._keys.setdefault(session_id, set()).add(key)

    def pop(self, place: Place) -> StateT | None:
        """Take a value out."""
        session_id, key = place
        value = self._values.pop(place, None)
        keys = self._keys.get(session_id) if session_id is not None else None
        if session_id is not None and keys is not None:
            keys.discard(key)
            if not keys:
                del self._keys[session_id]
        return value

    def drop_session(self, session_id: str | None) -> int:
        """Drop what is kept for a session; return how many values that were."""
        if session_id is None:
            return 0
        keys = self._keys.pop(session_id, set[Hashable]())
        for key in keys:
            del self._values[session_id, key]
        return len(keys)


class Keyed(Generic[StateT]):
    """One state for each key that messages are counted by.

    Args:
        make: makes a new state.
        key: what a message is counted by.
        scope: whether each session has states of its own, or all share the bus's.
        limit: how many states are kept; beyond, one that isn't needed gives way.
        needed: whether a state must be kept.
    """

    def __init__(
        self,
        make: Callable[[], StateT],
        *,
        key: Key,
        scope: Scope,
        limit: int,
        needed: Callable[[StateT], bool] | None = None,
    ) -> None:
        self._make = make
        self._key = key
        self._per_session = scope == "session"
        self._limit = limit
        self._needed = needed
        self._states = BySession[StateT]()

    def __len__(self) -> int:
        """Return how many states are kept."""
        return len(self._states)

    def place(self, message: Message) -> Place | None:
        """Return where a message is counted; None where it isn't."""
        key = self._key(message)
        if key is None:
            return None
        return (message.session_id if self._per_session else None, key)

    def peek(self, place: Place) -> StateT | None:
        """Return the state of a place, if it has one."""
        return self._states.get(place)

    def state(self, place: Place) -> StateT | None:
        """Return the state of a place, a new one at first; None where there is no room for one."""
        state = self._states.used(place)
        if state is None and self._has_room():
            state = self._make()
            self._states.put(place, state)
        return state

    def drop_session(self, session_id: str | None) -> None:
        """Forget what was counted for a session."""
        self._states.drop_session(session_id)

    def _has_room(self) -> bool:
        if len(self._states) < self._limit:
            return True
        unneeded = next(self._unneeded(), None)
        if unneeded is not None:
            self._states.pop(unneeded)
        return unneeded is not None

    def _unneeded(self) -> Iterator[Place]:
        for place, state in islice(self._states.items(), _LOOKED_AT):
            if self._needed is None or not self._needed(state):
                yield place

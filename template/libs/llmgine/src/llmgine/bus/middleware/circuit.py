"""One circuit: closed, open for a while after too many failures, half-open for a single try."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from llmgine.bus.frames import Frame
from llmgine.bus.middleware.outcome import current_frame, is_over, is_within
from llmgine.settings import CircuitBreakerSettings

__all__ = ["Circuit", "CircuitState"]

CircuitState = Literal["closed", "open", "half-open"]


class Circuit:
    """What has become of the calls of one key.

    Args:
        settings: when it opens, and for how long.

    Attributes:
        age: changes with the state: calls that began at another age have no say any more.
        last: what kind of error the last failure was.
    """

    def __init__(self, settings: CircuitBreakerSettings) -> None:
        self.age = 0
        self.last = ""
        self._settings = settings
        # When the last calls ended that say something, and whether they had failed.
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=settings.calls)
        # When the circuit lets a call try again; None while it is closed.
        self._until: float | None = None
        # Whether such a try is under way; when it began, and its frame, should it never end.
        self._trying = False
        self._tried = 0.0
        self._frame: Frame | None = None

    @property
    def state(self) -> CircuitState:
        """How the circuit stands now."""
        if self._until is None:
            return "closed"
        return "open" if _now() < self._until else "half-open"

    @property
    def within_try(self) -> bool:
        """Whether the calling code is a part of the one try."""
        return self._trying and is_within(self._frame)

    def admit(self) -> float:
        """Let a call through and return 0, or return for how many seconds it is refused."""
        if self._until is None:
            return 0.0
        now = _now()
        wait = self._until - now
        if wait <= 0 and self._trying and not is_over(self._frame):
            wait = self._tried + self._settings.open_for - now
        if wait > 0:
            return wait
        self._trying, self._tried, self._frame = True, now, current_frame()
        self.age += 1
        return 0.0

    def release(self) -> None:
        """End the try, if one was under way."""
        self._trying, self._frame = False, None

    def note(self, *, failed: bool) -> CircuitState | None:
        """Note how a call has ended; return the new state where that changes it."""
        if self._until is not None:
            return self._opened() if failed else self._closed()
        now = _now()
        self._outcomes.append((now, failed))
        return self._opened() if failed and self._is_too_much(now) else None

    def _is_too_much(self, now: float) -> bool:
        settings = self._settings
        recent = [failed for at, failed in self._outcomes if at > now - settings.window]
        return sum(recent) >= max(settings.failures, settings.ratio * len(recent))

    def _opened(self) -> CircuitState:
        self._until = _now() + self._settings.open_for
        self._outcomes.clear()
        self.age += 1
        return "open"

    def _closed(self) -> CircuitState:
        self._until = None
        self.age += 1
        return "closed"


def _now() -> float:
    return asyncio.get_running_loop().time()

"""So many calls and tokens in so much time: the others wait for their turn, or are refused."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from llmgine.bus.middleware.keys import Key, Keyed, Place, by_type, described
from llmgine.bus.middleware.rate_window import Turn, Window
from llmgine.contracts.ambient import paused_clock
from llmgine.contracts.events import SessionEndEvent
from llmgine.contracts.messages import Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import ConfigurationError, RateExceededError
from llmgine.settings import RateLimitSettings

__all__ = ["RateLimit", "TokenLimit", "build"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLimit:
    """How many tokens calls may take, and how they are counted.

    Attributes:
        limit: tokens at most, in the same time as so many calls.
        estimate: the tokens that a message is going to take.
        settle: those that it took, by its result; None, as for a call that fails, leaves the
            estimate.
    """

    limit: float
    estimate: Callable[[Message], float]
    settle: Callable[[Message, object], float | None] | None = None

    def __post_init__(self) -> None:
        """Refuse a number that can't be meant."""
        if not self.limit > 0:
            raise ConfigurationError(f"limit: expected a number above 0, found {self.limit}")


class RateLimit:
    """Middleware that lets so many calls through in so much time, and no more in any such stretch.

    Each command type of each session is counted by itself, unless settings and `key` say
    otherwise. Calls beyond wait, first come first served, as long as their turn comes within
    `max_wait`; others are refused at once with `RateExceededError`. No limit of a handler runs
    while it waits.

    Args:
        settings: how many calls in how much time, and how long one may wait.
        key: what calls are counted by; by default commands by their type, and events not at all.
        tokens: a limit of tokens in the same time.
    """

    def __init__(
        self,
        settings: RateLimitSettings | None = None,
        *,
        key: Key = by_type,
        tokens: TokenLimit | None = None,
    ) -> None:
        self._settings = settings = settings or RateLimitSettings()
        self._tokens = tokens
        limit = math.inf if tokens is None else tokens.limit
        self._windows = Keyed(
            lambda: Window(settings.requests, limit, settings.per),
            key=key,
            scope=settings.scope,
            limit=settings.max_keys,
            needed=lambda window: window.busy,
        )

    def __len__(self) -> int:
        """Return how many keys are counted."""
        return len(self._windows)

    def observe(self, event: Event) -> None:
        """Forget what was counted for a session that has ended."""
        if isinstance(event, SessionEndEvent):
            self._windows.drop_session(event.session_id)

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message when it is its turn.

        Raises:
            RateExceededError: its turn is too long off.
        """
        place = self._windows.place(message)
        if place is None:
            return await call_next(message)
        window = self._windows.state(place)
        if window is None:
            raise self._refusal(place, self._settings.per, "too many others are counted")
        turn = await self._turn(place, window, self._estimated(place, message))
        value = await call_next(message)
        self._settle(window, turn, message, value)
        return value

    async def _turn(self, place: Place, window: Window, tokens: float) -> Turn:
        wait = window.delay(tokens)
        if wait == 0 and not window.crowded:
            return window.take(tokens)
        if wait > self._settings.max_wait:
            raise self._refusal(place, wait, f"its next turn is in {wait:.1f} s")
        with paused_clock():
            return await window.wait(tokens)

    def _estimated(self, place: Place, message: Message) -> float:
        """Return what a message counts for.

        Raises:
            RateExceededError: more than there ever is.
            ConfigurationError: the estimate is no number of tokens.
        """
        if self._tokens is None:
            return 0.0
        tokens = _checked("estimate", self._tokens.estimate(message))
        if tokens > self._tokens.limit:
            raise self._refusal(place, math.inf, f"it asks for {tokens:g} tokens at once")
        return tokens

    def _settle(self, window: Window, turn: Turn, message: Message, value: object) -> None:
        if self._tokens is None or self._tokens.settle is None:
            return
        try:
            tokens = self._tokens.settle(message, value)
            if tokens is not None:
                window.settle(turn, _checked("settle", tokens))
        except Exception:
            # The work is done, and its result must not be lost.
            _log.exception("the tokens of %s stay as estimated", type(message).__qualname__)

    def _refusal(self, place: Place, wait: float, reason: str) -> RateExceededError:
        settings = self._settings
        allowed = f"{settings.requests} calls"
        if self._tokens is not None:
            allowed += f" and {self._tokens.limit:g} tokens"
        return RateExceededError(
            f"{described(place)} may have {allowed} in {settings.per:g} s, and {reason}",
            key=place[1],
            retry_after=wait,
        )


def _checked(name: str, tokens: float) -> float:
    if not 0 <= tokens < math.inf:
        raise ConfigurationError(f"{name}: expected a number of tokens, found {tokens}")
    return tokens


def build(settings: RateLimitSettings) -> RateLimit:
    """Make one from settings, for the bootstrap."""
    return RateLimit(settings)

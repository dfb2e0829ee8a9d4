"""So many calls and tokens in so much time: the others wait for their turn, or are refused."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llmgine.bus.middleware.keys import Key, Keyed, Place, by_type, described
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


@dataclass(eq=False, slots=True)
class _Turn:
    """A call that was let through.

    Attributes:
        at: when.
        tokens: those that it counts for.
    """

    at: float
    tokens: float


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call that waits for its turn."""

    turn: asyncio.Future[_Turn]
    tokens: float


class _Window:
    """The calls of one key that still count, and those that wait, first come first served.

    In no stretch of `per` seconds are there more turns than `requests`, or turns of more than
    `tokens` (as they were estimated).
    """

    def __init__(self, requests: int, tokens: float, per: float) -> None:
        self._requests = requests
        self._tokens = tokens
        self._per = per
        self._turns: deque[_Turn] = deque()
        self._taken = 0.0
        self._waiting: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether anything counts here, now."""
        last = self._turns[-1].at if self._turns else -math.inf
        return bool(self._waiting) or last + self._per > _now()

    @property
    def crowded(self) -> bool:
        """Whether others wait."""
        return bool(self._waiting)

    def due(self, tokens: float) -> float:
        """Return when a call that came now would have its turn, as far as can be told."""
        self._serve()
        now = _now()
        if not self._waiting and self._fits(tokens):
            return now
        return self._due([*(each.tokens for each in self._waiting), tokens], now)

    def take(self, tokens: float) -> _Turn:
        """Take a turn that is due."""
        turn = _Turn(_now(), tokens)
        self._turns.append(turn)
        self._taken += tokens
        return turn

    async def wait(self, tokens: float) -> _Turn:
        """Wait for a turn; who leaves before makes way for the others."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), tokens)
        self._waiting.append(waiter)
        self._serve()
        try:
            return await waiter.turn
        except BaseException:
            if not waiter.turn.get_loop().is_closed():
                self._leave(waiter)
            raise

    def settle(self, turn: _Turn, tokens: float) -> None:
        """Count a turn for what it has really taken."""
        self._serve()
        if turn.at + self._per > _now():
            self._taken += tokens - turn.tokens
            turn.tokens = tokens
            self._serve()

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.turn.done() and not waiter.turn.cancelled():
            turn = waiter.turn.result()
            if turn in self._turns:
                self._turns.remove(turn)
                self._taken -= turn.tokens
        self._serve()

    def _fits(self, tokens: float) -> bool:
        return len(self._turns) < self._requests and self._taken + tokens <= self._tokens

    def _due(self, asked: Iterable[float], now: float) -> float:
        """Return when the last of these has its turn, if they take theirs in this order."""
        turns = deque((turn.at, turn.tokens) for turn in self._turns)
        taken = self._taken
        for tokens in asked:
            while turns and (len(turns) >= self._requests or taken + tokens > self._tokens):
                at, freed = turns.popleft()
                now, taken = max(now, at + self._per), taken - freed
            turns.append((now, tokens))
            taken += tokens
        return now

    def _serve(self) -> None:
        """Give turns to those who wait, as far as they are due, and ring for the next one."""
        now = _now()
        while self._waiting and self._waiting[0].turn.get_loop() is not asyncio.get_running_loop():
            self._waiting.popleft()  # its loop has gone without a stop
        while self._turns and self._turns[0].at + self._per <= now:
            self._taken -= self._turns.popleft().tokens
        if not self._turns:
            self._taken = 0.0  # what rounding has left
        while self._waiting and self._due([self._waiting[0].tokens], now) <= now:
            waiter = self._waiting.popleft()
            if not waiter.turn.done():
                waiter.turn.set_result(self.take(waiter.tokens))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            due = self._due([self._waiting[0].tokens], now)
            self._timer = asyncio.get_running_loop().call_at(due, self._serve)


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
            lambda: _Window(settings.requests, limit, settings.per),
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

    async def _turn(self, place: Place, window: _Window, tokens: float) -> _Turn:
        wait = max(0.0, window.due(tokens) - _now())
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

    def _settle(self, window: _Window, turn: _Turn, message: Message, value: object) -> None:
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


def _now() -> float:
    return asyncio.get_running_loop().time()


def build(settings: RateLimitSettings) -> RateLimit:
    """Make one from settings, for the bootstrap."""
    return RateLimit(settings)

"""The turns of one key in a stretch of time, and the calls that wait for theirs."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Turn", "Window"]


@dataclass(eq=False, slots=True)
class Turn:
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

    turn: asyncio.Future[Turn]
    tokens: float


class Window:
    """The calls of one key that still count, and those that wait, first come first served.

    In no stretch of `per` seconds are there more turns than `requests`, or turns of more than
    `tokens` (as they were estimated).
    """

    def __init__(self, requests: int, tokens: float, per: float) -> None:
        self._requests = requests
        self._tokens = tokens
        self._per = per
        self._turns: deque[Turn] = deque()
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

    def delay(self, tokens: float) -> float:
        """Return how long a call that came now would wait for its turn, as far as can be told."""
        self._serve()
        if not self._waiting and self._fits(tokens):
            return 0.0
        asked = [*(each.tokens for each in self._waiting), tokens]
        return max(0.0, self._due(asked, _now()) - _now())

    def take(self, tokens: float) -> Turn:
        """Take a turn that is due."""
        turn = Turn(_now(), tokens)
        self._turns.append(turn)
        self._taken += tokens
        return turn

    async def wait(self, tokens: float) -> Turn:
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

    def settle(self, turn: Turn, tokens: float) -> None:
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


def _now() -> float:
    return asyncio.get_running_loop().time()

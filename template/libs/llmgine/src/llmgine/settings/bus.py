"""Limits and switches of the bus and its middleware, and how all settings check a number."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from llmgine.errors import ConfigurationError

__all__ = [
    "BusSettings",
    "CircuitBreakerSettings",
    "CommandRetrySettings",
    "DeadLetterSettings",
    "RateLimitSettings",
    "check",
]


def check(room: object, *names: str, least: float) -> None:
    """Refuse settings of a room that are less than they may be.

    Raises:
        ConfigurationError: one of these is too small, or is not a number.
    """
    for name in names:
        value: float | Decimal = vars(room)[name]
        # Written this way round, the comparison refuses "not a number" as well.
        if not value >= least:
            raise ConfigurationError(f"{name}: expected a number from {least:g} up, found {value}")


@dataclass(frozen=True, kw_only=True)
class BusSettings:
    """Limits of a `MessageBus`.

    Attributes:
        command_timeout: a command's limit where neither call nor handler names one.
        event_timeout: an event handler's limit where the handler names none.
        cancel_grace: how long a handler may ignore its cancellation before it is left behind.
        drain_timeout: how long `stop` and a session's exit wait for work under way.
        queue_size: events that wait per session id before publishers wait too.
        overflow: what a publisher outside every handler meets at a full queue.
        concurrent_per_session: `concurrent=True` handlers at once, per session id.
        threads: threads for `def` handlers.
        abandoned_threads: threads given up on (and replaced) before calls have to wait.
    """

    command_timeout: float = 60.0
    event_timeout: float = 30.0
    cancel_grace: float = 1.0
    drain_timeout: float = 10.0
    queue_size: int = 10_000
    overflow: Literal["wait", "refuse"] = "wait"
    concurrent_per_session: int = 64
    threads: int = 32
    abandoned_threads: int = 64

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "command_timeout", "event_timeout", "cancel_grace", "drain_timeout", least=0)
        check(self, "queue_size", "concurrent_per_session", "threads", least=1)
        check(self, "abandoned_threads", least=0)


@dataclass(frozen=True, kw_only=True)
class CommandRetrySettings:
    """How commands whose class says that they are idempotent are run again after a failure.

    Attributes:
        enabled: whether that is done at all.
        attempts: runs at most, the first included.
        delay: the longest pause before the second; each further one may be twice as long.
        max_delay: the longest pause at all. An error that asks for a longer one ends the attempts.
        deadline: how long after the first run has begun another one may begin.
    """

    enabled: bool = False
    attempts: int = 3
    delay: float = 0.5
    max_delay: float = 30.0
    deadline: float = 60.0

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "attempts", least=1)
        check(self, "delay", "max_delay", "deadline", least=0)


@dataclass(frozen=True, kw_only=True)
class CircuitBreakerSettings:
    """When calls that keep failing are refused for a while.

    Attributes:
        enabled: whether that is done at all.
        calls: how many of the last calls are looked at,
        window: and how old they may be.
        failures: how many of them must have failed,
        ratio: and which share of them.
        open_for: how long calls are refused before one may try.
        scope: whether each session is counted by itself, or all together.
        max_keys: circuits that are kept; the one that has gone unused for longest makes way.
    """

    enabled: bool = False
    calls: int = 20
    window: float = 60.0
    failures: int = 5
    ratio: float = 0.5
    open_for: float = 30.0
    scope: Literal["session", "bus"] = "session"
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "failures", "max_keys", least=1)
        check(self, "window", "open_for", "ratio", least=0)
        check(self, "calls", least=self.failures)
        if self.ratio > 1:
            raise ConfigurationError(f"ratio: expected a number up to 1, found {self.ratio}")


@dataclass(frozen=True, kw_only=True)
class RateLimitSettings:
    """How many calls may begin in how much time.

    Attributes:
        enabled: whether they are limited at all.
        requests: calls at most
        per: in so many seconds.
        max_wait: how long a call may wait for its turn; 0 refuses it at once.
        scope: whether each session is counted by itself, or all together.
        max_keys: keys that are counted at once; calls of further ones are refused.
    """

    enabled: bool = False
    requests: int = 60
    per: float = 60.0
    max_wait: float = 30.0
    scope: Literal["session", "bus"] = "session"
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "requests", "max_keys", least=1)
        check(self, "per", least=0.001)
        check(self, "max_wait", least=0)


@dataclass(frozen=True, kw_only=True)
class DeadLetterSettings:
    """How messages are kept that have failed for good.

    Attributes:
        enabled: whether they are kept at all.
        limit: letters in memory; the oldest makes way.
        path: a file that every letter is added to, so that it outlives the process; the messages
            stand in it in full. Its folder is made on first use.
    """

    enabled: bool = False
    limit: int = 1000
    path: Path | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "limit", least=1)

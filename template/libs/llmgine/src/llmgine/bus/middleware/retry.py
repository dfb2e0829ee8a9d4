"""Running a command again that has failed, where its class says that this does no harm."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from llmgine.bus.frames import Frame
from llmgine.bus.middleware.keys import is_command
from llmgine.bus.middleware.outcome import current_frame, cut_of, is_over, seconds_left
from llmgine.contracts.messages import Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import ProviderError, RefusedError
from llmgine.settings import CommandRetrySettings

__all__ = ["Retry", "RetryCounts", "build"]

_log = logging.getLogger(__name__)

# No delay doubles more often than this, so that no number grows beyond all bounds.
_DOUBLINGS = 32


@dataclass(kw_only=True, slots=True)
class RetryCounts:
    """What a `Retry` has done since it was made.

    Attributes:
        retried: attempts after a first one.
        recovered: commands that one of these answered.
        given_up: commands that might have been tried again, had there been time or attempts left.
    """

    retried: int = 0
    recovered: int = 0
    given_up: int = 0


@dataclass(slots=True)
class _Attempts:
    """The attempts at one command.

    Attributes:
        began: when the first one began, by the loop's clock.
        cancelled: how often the task had been cancelled before.
        made: how many there have been.
    """

    frame: Frame | None
    began: float
    cancelled: int
    made: int = 1

    @property
    def unwanted(self) -> bool:
        """Whether the caller has left, or the bus is cutting the command off."""
        if is_over(self.frame) or cut_of(self.frame) is not None:
            return True
        return _cancelled() > self.cancelled


class Retry:
    """Middleware that runs idempotent commands again after failures that may pass.

        class Search(Command[list[str]]):
            idempotent: ClassVar[bool] = True

    Only commands whose own class says so are run again, never events. The pauses grow
    exponentially and are drawn at random ("full jitter"); a `retry_after` of the error is waited
    out as well. Whoever listens sees one start and one result for all attempts together.

    Args:
        settings: attempts, pauses and the deadline.
        retry_on: whether an error may pass; by default that of connections, of limits in time,
            and of model calls that are `retryable`.

    Attributes:
        counts: what it has done so far.
    """

    def __init__(
        self,
        settings: CommandRetrySettings | None = None,
        *,
        retry_on: Callable[[Exception], bool] | None = None,
    ) -> None:
        self._settings = settings or CommandRetrySettings()
        self._retry_on = retry_on or may_pass
        self.counts = RetryCounts()

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message, several times if need be."""
        if not (is_command(message) and vars(type(message)).get("idempotent") is True):
            return await call_next(message)
        began = asyncio.get_running_loop().time()
        attempts = _Attempts(current_frame(), began, _cancelled())
        while True:
            try:
                value = await call_next(message)
            except Exception as error:
                if attempts.unwanted or not self._retry_on(error):
                    raise
                pause = self._pause(error, attempts)
                if pause is None:
                    raise
                failed = f"{type(message).__qualname__}: attempt {attempts.made} has failed"
                _log.info("%s (%r); the next one is in %.2f s", failed, error, pause)
            else:
                self.counts.recovered += attempts.made > 1
                return value
            await asyncio.sleep(pause)
            attempts.made += 1
            self.counts.retried += 1

    def _pause(self, error: Exception, attempts: _Attempts) -> float | None:
        """Return the seconds until the next attempt; None, with a note on the error, for none."""
        settings = self._settings
        asked = error.retry_after if isinstance(error, ProviderError | RefusedError) else None
        doubled = settings.delay * 2 ** min(attempts.made - 1, _DOUBLINGS)
        drawn = random.uniform(0, min(settings.max_delay, doubled))  # noqa: S311 - no secret
        pause = (asked or 0) + drawn
        took = asyncio.get_running_loop().time() - attempts.began
        left = min(settings.deadline - took, seconds_left(attempts.frame))
        if attempts.made >= settings.attempts:
            reason = f"after {attempts.made} of {settings.attempts} attempts"
        elif (asked or 0) > settings.max_delay:
            reason = f"since the next attempt would have to wait {asked:g} s"
        elif pause >= left:
            reason = f"after {attempts.made} attempts in {took:.1f} s, for want of time"
        else:
            return pause
        self.counts.given_up += 1
        error.add_note(f"given up {reason}")
        return None


def may_pass(error: Exception) -> bool:
    """Tell whether the same command may succeed if it is run again."""
    if isinstance(error, ProviderError):
        return error.retryable
    return isinstance(error, ConnectionError | TimeoutError)


def _cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def build(settings: CommandRetrySettings) -> Retry:
    """Make one from settings, for the bootstrap."""
    return Retry(settings)

"""Trying a failed model call again: the one layer that does, for whatever provider.

Errors say themselves whether another attempt may help (`retryable`) and how long to wait first
(`retry_after`). The SDKs' own retries are off, so that attempts don't multiply.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities, capabilities_of
from llmgine.contracts.stream import closing
from llmgine.errors import (
    BadResponseError,
    ProviderError,
    ProviderTimeoutError,
    StreamInterruptedError,
)
from llmgine.providers._beginning import TimeLeft, beginning
from llmgine.settings import RetrySettings

__all__ = ["RetryingProvider", "build"]

_log = logging.getLogger(__name__)


class _Attempts:
    """The attempts at one call: how many there were, and how much time is left."""

    def __init__(self, provider: str, settings: RetrySettings, request: LLMRequest) -> None:
        self._provider = provider
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._left = TimeLeft(request)
        own = math.inf if request.timeout is None else request.timeout
        self._within = min(settings.deadline, own)
        self._end = self._loop.time() + self._within
        self._made = 0
        self._bad_responses = 0

    def request(self) -> LLMRequest:
        """Begin the next attempt."""
        self._made += 1
        return self._left.request(self._provider)

    @asynccontextmanager
    async def limit(self) -> AsyncGenerator[None, None]:
        """End an attempt when the time for all of them is over."""
        limit = asyncio.timeout_at(self._end)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired() or isinstance(error, ProviderError):
                raise
            text = f"no answer within {self._within:g} s, in {self._made} attempt(s)"
            raise ProviderTimeoutError(text, provider=self._provider) from error

    async def pause_after(self, error: ProviderError) -> None:
        """Wait before the next attempt, or raise the error where there can be none."""
        settings = self._settings
        pause = self._pause(error)
        asked = error.retry_after or 0.0
        if (
            self._made >= settings.attempts
            or not self._may_help(error)
            or asked > settings.max_delay
            or self._loop.time() + pause >= self._end
        ):
            raise error
        _log.warning(
            "%s: attempt %d of %d failed (%s: %s); the next follows in %.1f s",
            self._provider,
            self._made,
            settings.attempts,
            type(error).__name__,
            error,
            pause,
        )
        await asyncio.sleep(pause)

    def _pause(self, error: ProviderError) -> float:
        """Return a pause of chance: callers who failed together shouldn't come back together."""
        settings = self._settings
        # Beyond this the power would leave the range of numbers; no limit is as long.
        longest = min(settings.max_delay, settings.delay * 2.0 ** min(self._made - 1, 64))
        chance = random.uniform(0, longest)  # noqa: S311 - it keeps no secret
        return max(0.0, error.retry_after or 0.0) + chance

    def _may_help(self, error: ProviderError) -> bool:
        if isinstance(error, BadResponseError):
            self._bad_responses += 1
            return error.retryable and self._bad_responses == 1
        # Nothing of this stream has been shown; where the provider itself said why, that counts.
        broken = isinstance(error, StreamInterruptedError) and error.provider_code is None
        return error.retryable or broken


class RetryingProvider:
    """Hands calls on to a provider, and tries those again that failed for a while.

    - Tried again are errors that are `retryable`, an answer that isn't as promised
      (`BadResponseError`) once, and a stream that broke off before the first piece of its answer.
      After that piece nothing is: the caller has seen it.
    - Before the next attempt there is a pause of chance, which may double each time, after the
      provider's `retry_after`. Where that is longer than `max_delay`, or the pause would end after
      the deadline, the error is raised at once.
    - `deadline` and the request's own `timeout` are limits on all attempts and pauses together.
      The deadline no longer counts once the answer has begun.
    - A cancelled caller is gone at once, in an attempt and in a pause.

    Around an `ObservedProvider`, as bootstrap builds it, each attempt is a model call of its own in
    traces and accounts. In the log there is a warning for each that failed and is followed by
    another.

    Args:
        provider: who answers.
        settings: the limits.
    """

    def __init__(self, provider: LLMProvider, settings: RetrySettings | None = None) -> None:
        self.name = provider.name
        self._provider = provider
        self._settings = settings or RetrySettings()

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Those of the provider that answers."""
        return capabilities_of(self._provider)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the answer of the first attempt that succeeds, or raise the last one's error."""
        attempts = _Attempts(self.name, self._settings, request)
        while True:
            try:
                async with attempts.limit():
                    return await self._provider.complete(attempts.request())
            except ProviderError as error:
                await attempts.pause_after(error)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the chunks of the first attempt whose answer begins, or raise the last error."""
        attempts = _Attempts(self.name, self._settings, request)
        while True:
            async with closing(self._provider.stream(attempts.request())) as stream:
                chunks = aiter(stream)
                try:
                    async with attempts.limit():
                        first = await beginning(chunks)
                except ProviderError as error:
                    failed = error
                else:
                    for chunk in first:
                        yield chunk
                    async for chunk in chunks:
                        yield chunk
                    return
            await attempts.pause_after(failed)


def build(provider: LLMProvider, settings: RetrySettings) -> LLMProvider:
    """Put the layer around a provider that the settings name."""
    return RetryingProvider(provider, settings)

"""A call on an SDK within its time: the whole answer, or a stream of it that ends in one way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from llmgine.contracts import LLMChunk
from llmgine.errors import ConfigurationError
from llmgine.providers._sdk.clock import Clock
from llmgine.providers._sdk.errors import Failures
from llmgine.providers._sdk.reading import Reader, Reading, SdkStream

__all__ = ["answered", "relayed"]

T = TypeVar("T")
ItemT = TypeVar("ItemT")


async def answered(call: Awaitable[T], failures: Failures, timeout: float | None) -> T:
    """Return what a call on an SDK returns.

    Raises:
        ConfigurationError: it couldn't be made.
        ProviderError: it failed, or took longer than `timeout`.
    """
    clock = Clock(timeout)
    try:
        return await clock.wait(call)
    except ConfigurationError:
        raise
    except Exception as error:
        # Without the SDK's own as its cause: that one holds the request, and the key in it.
        raise failures.late(timeout) if clock.expired else failures.of_request(error) from None


async def relayed(
    opening: Callable[[], Awaitable[tuple[SdkStream[ItemT], Reader[ItemT]]]],
    failures: Failures,
    timeout: float | None,
) -> AsyncGenerator[LLMChunk, None]:
    """Yield the chunks of an SDK's stream, which is closed as soon as this one is left.

    Args:
        opening: makes the call, and the reader for what comes.
        failures: makes our errors of the SDK's.
        timeout: seconds for the whole call.

    Raises:
        StreamInterruptedError: the stream broke off, in whatever way; `partial` holds what came.
        ProviderTimeoutError: it took longer than `timeout`.
        ProviderError: the call failed before there was a stream.
    """
    reading = await _opened(opening, failures, timeout)
    try:
        while not reading.over:
            for chunk in await reading.next():
                yield reading.noted(chunk)
        reading.check()
        await reading.drain()
    finally:
        await reading.close()


async def _opened(
    opening: Callable[[], Awaitable[tuple[SdkStream[ItemT], Reader[ItemT]]]],
    failures: Failures,
    timeout: float | None,
) -> Reading[ItemT]:
    clock = Clock(timeout)
    try:
        stream, reader = await clock.wait(opening())
    except ConfigurationError:
        raise
    except Exception as error:
        raise failures.late(timeout) if clock.expired else failures.of_request(error) from None
    return Reading(stream, reader, failures, clock, timeout)

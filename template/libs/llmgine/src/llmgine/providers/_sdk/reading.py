"""Reading an SDK's stream, which ends in one way whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from llmgine.contracts import LLMChunk
from llmgine.contracts.llm import StreamEnd, StreamStart, UsageUpdate
from llmgine.contracts.stream import ResponseBuilder
from llmgine.errors import ProviderError
from llmgine.providers._sdk.clock import Clock
from llmgine.providers._sdk.errors import Failures

__all__ = ["Reader", "Reading", "SdkStream"]

_log = logging.getLogger(__name__)

# How long a server may take to end its stream behind the answer's end.
_DRAIN = 0.25

ItemT_co = TypeVar("ItemT_co", covariant=True)
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ItemT = TypeVar("ItemT")


class SdkStream(Protocol[ItemT_co]):
    """An SDK's stream."""

    async def __anext__(self) -> ItemT_co:
        """Return the next item."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class Reader(Protocol[ItemT_contra]):
    """Makes our chunks of an SDK's items."""

    def read(self, item: ItemT_contra, /) -> Iterable[LLMChunk]:
        """Return the chunks of the next item."""
        ...

    def end(self) -> Iterable[LLMChunk]:
        """Return the last chunks, once no item is left; no `StreamEnd` if something is missing."""
        ...


class Reading(Generic[ItemT]):
    """An open stream, what has come of it so far, and whether any of that could be shown.

    Args:
        stream: the SDK's.
        reader: makes our chunks of its items.
        failures: makes our errors of the SDK's.
        clock: the time that is left.
        timeout: what that was at the start, for error messages.
    """

    def __init__(
        self,
        stream: SdkStream[ItemT],
        reader: Reader[ItemT],
        failures: Failures,
        clock: Clock,
        timeout: float | None,
    ) -> None:
        self._stream = stream
        self._reader = reader
        self._failures = failures
        self._clock = clock
        self._timeout = timeout
        self._builder = ResponseBuilder()
        self._shown = False
        self._exhausted = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be read; what follows an answer's end is of no interest."""
        return self._exhausted or self._builder.finished

    async def next(self) -> Iterable[LLMChunk]:
        """Return the next chunks, or the last ones once the SDK has no item left."""
        try:
            # Whole, so that what can't be read is met here.
            return list(self._reader.read(await self._clock.wait(self._stream.__anext__())))
        except StopAsyncIteration:
            self._exhausted = True
            return list(self._reader.end())
        except Exception as error:
            raise self._broken(error) from None

    def noted(self, chunk: LLMChunk) -> LLMChunk:
        """Note a chunk that is about to be handed on, and return it."""
        self._builder.add(chunk)
        self._shown = self._shown or not isinstance(chunk, StreamStart | UsageUpdate | StreamEnd)
        return chunk

    def check(self) -> None:
        """Raise if the answer isn't complete."""
        if not self._builder.finished:
            raise self._broken(None)

    async def drain(self) -> None:
        """Read what stands behind the answer's end, so that the connection can be used again.

        Whatever comes of it, the answer is complete: a connection that can't be kept is closed.
        """
        try:
            async with asyncio.timeout(_DRAIN):
                while not self._exhausted:
                    await self._stream.__anext__()
        except StopAsyncIteration:
            self._exhausted = True
        except Exception as error:
            _log.debug("a connection isn't kept behind its stream: %r", error)

    async def close(self) -> None:
        """Close the connection."""
        await self._stream.close()

    def _broken(self, error: Exception | None) -> ProviderError:
        partial = self._builder.response(unfinished="error")
        if not self._clock.expired:
            return self._failures.interrupted(error, partial, shown=self._shown)
        late = self._failures.late(self._timeout, partial)
        late.retryable = not self._shown
        return late

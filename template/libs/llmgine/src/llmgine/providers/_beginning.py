"""What layers around providers share: the part of a stream that nobody has seen anything of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from llmgine.contracts import LLMChunk, LLMRequest, StreamStart, UsageUpdate
from llmgine.errors import ProviderTimeoutError

__all__ = ["TimeLeft", "beginning"]


async def beginning(chunks: AsyncIterator[LLMChunk]) -> list[LLMChunk]:
    """Read up to the first piece of the answer itself, and return what was read.

    As long as this hasn't returned, the same question can be asked anew.
    """
    read: list[LLMChunk] = []
    async for chunk in chunks:
        read.append(chunk)
        if not isinstance(chunk, StreamStart | UsageUpdate):
            break
    return read


class TimeLeft:
    """The time that a request has for all attempts together.

    Args:
        request: the request; its `timeout` counts from now on.
    """

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._end = None if request.timeout is None else self._loop.time() + request.timeout

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self._end is not None and self._loop.time() >= self._end

    def request(self, provider: str) -> LLMRequest:
        """Return the request with the time that is left of it.

        Raises:
            ProviderTimeoutError: none is left.
        """
        if self._end is None:
            return self._request
        if self.over:
            text = f"no answer within {self._request.timeout:g} s"
            raise ProviderTimeoutError(text, provider=provider)
        return replace(self._request, timeout=self._end - self._loop.time())

"""The time that a call on an SDK may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["Clock"]

T = TypeVar("T")


class Clock:
    """The time that is left for a call as a whole, waits between two reads not counted apart.

    Args:
        timeout: seconds for the whole call.

    Attributes:
        expired: whether they ran out while something was waited for.
    """

    def __init__(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._end = None if timeout is None else loop.time() + timeout
        self.expired = False

    async def wait(self, waiting: Awaitable[T]) -> T:
        """Wait for something, no longer than the time that is left.

        Raises:
            TimeoutError: it took longer.
        """
        scope = asyncio.timeout_at(self._end)
        try:
            async with scope:
                return await waiting
        finally:
            self.expired = scope.expired()

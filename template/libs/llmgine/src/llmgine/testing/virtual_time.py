"""Tests in which waiting takes no time.

    def test_a_search_is_tried_again() -> None:
        async def scenario() -> None:
            async with MessageBus.isolated() as bus:
                ...

        run_in_virtual_time(scenario())

Time goes by only while nothing is left to do, and then at once up to the next timer: a pause of an
hour is over in a moment, and no limit cuts short what is under way. What happens on other threads
or over connections isn't waited for, so that such tests belong on an ordinary loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Adds what would be waited for to its time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock begins at 0, and jumps to the next timer when nothing is left."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the seconds that have gone by."""
        return self._virtual.now


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, as `asyncio.run` does, without waiting."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)

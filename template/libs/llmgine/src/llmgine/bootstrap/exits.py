"""How a program ends: by a signal, or because its settings are wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

from llmgine.errors import ConfigurationError

__all__ = ["SignalWatch", "exit_on_wrong_settings"]

_USAGE = 2
_EXIT_BASE = 128
_Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


class SignalWatch:
    """Listens to signals from `open` to `close`, and gives them back as they were.

    The first signal calls `first`, on the event loop; the next ends the process at once with
    status 128 + its number, whatever is still under way.

    Args:
        first: what to do at the first signal.
        signals: what to listen to.

    Attributes:
        heard: the first signal, once it has come.
    """

    def __init__(self, first: Callable[[], None], signals: tuple[signal.Signals, ...]) -> None:
        self._first = first
        self._signals = signals
        self._before: dict[signal.Signals, _Handler] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.heard: signal.Signals | None = None

    def open(self) -> None:
        """Start listening; the main thread alone can."""
        self._loop = asyncio.get_running_loop()
        for each in self._signals:
            self._before[each] = signal.signal(each, self._heard)

    def close(self) -> None:
        """Stop listening."""
        for each, before in self._before.items():
            # Python knows no handler that it didn't install, and can't put it back.
            signal.signal(each, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.heard is not None or self._loop is None or self._loop.is_closed():
            # No clean-up: that is what hangs when somebody asks a second time.
            os._exit(_EXIT_BASE + number)
        self.heard = signal.Signals(number)
        self._loop.call_soon_threadsafe(self._first)


@contextmanager
def exit_on_wrong_settings() -> Generator[None, None, None]:
    """Turn a `ConfigurationError` into its text on stderr and the exit status 2."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_USAGE) from None

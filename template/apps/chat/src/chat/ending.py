"""How the program ends: by itself, or by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

from llmgine.bootstrap import ApplicationBootstrap

__all__ = ["FAILED", "OK", "SIGNALLED", "USAGE", "or_signal"]

OK, FAILED, USAGE = 0, 1, 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

T = TypeVar("T")


async def or_signal(
    app: ApplicationBootstrap, work: Coroutine[object, object, T], *signals: signal.Signals
) -> T | signal.Signals | None:
    """Return what the work does, or the signal that came first; then the work is cancelled."""
    running = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(app.run_until_signal(*signals))
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        return waiting.result()
    finally:
        running.cancel()
        waiting.cancel()

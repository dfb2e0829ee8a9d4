"""One question from elsewhere, one answer; and how a program ends: by itself, or by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

import assistant
from assistant import AssistantConfig
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from llmgine.errors import ContextStoreError

from chat.calls import Decide
from chat.screen import Screen
from chat.turn import TurnView

__all__ = ["FAILED", "OK", "SIGNALLED", "USAGE", "ask", "or_signal", "say_what_was"]

OK, FAILED, USAGE = 0, 1, 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

T = TypeVar("T")


async def ask(config: AssistantConfig, session_id: str | None, text: str, decide: Decide) -> int:
    """Run one turn and return the exit status."""
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, tools=assistant.toolbox, setup=assistant.register)
        async with app, BusSession(session_id, bus=app.bus) as session:
            await say_what_was(app, session.session_id, screen)
            view = TurnView(session, screen, decide)
            outcome = await or_signal(app, view.run(text), signal.SIGINT, signal.SIGTERM)
    if isinstance(outcome, signal.Signals):
        return SIGNALLED + outcome
    # None: somebody asked the application to stop.
    return OK if outcome in {"ok", None} and not screen.broken else FAILED


async def say_what_was(app: ApplicationBootstrap, session_id: str, screen: Screen) -> None:
    """Say how long the conversation is that goes on, if it's no new one."""
    try:
        said = len(await app.context.get_context(session_id))
    except ContextStoreError as error:
        screen.remark(f"{type(error).__name__}: {error}", "red")
        return
    if said:
        screen.remark(f"The conversation goes on: {said} messages so far.")


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

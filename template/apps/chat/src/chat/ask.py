"""One question from elsewhere, one answer."""

from __future__ import annotations

import signal

import assistant
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import BusSession

from chat.ending import FAILED, OK, SIGNALLED, or_signal
from chat.screen import Screen
from chat.turn import TurnView

__all__ = ["ask"]


async def ask(config: ApplicationConfig, session_id: str | None, text: str) -> int:
    """Run one turn and return the exit status."""
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, setup=assistant.register)
        async with app, BusSession(session_id, bus=app.bus) as session:
            view = TurnView(session, screen)
            outcome = await or_signal(app, view.run(text), signal.SIGINT, signal.SIGTERM)
    if isinstance(outcome, signal.Signals):
        return SIGNALLED + outcome
    # None: somebody asked the application to stop.
    return OK if outcome in {"ok", None} and not screen.broken else FAILED

"""The two ways to talk: a conversation at a terminal, and one question from elsewhere."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Generator
from contextlib import AsyncExitStack, contextmanager
from types import FrameType
from typing import TypeVar

import assistant
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import BusSession
from prompt_toolkit import PromptSession
from rich.text import Text

from chat.commands import Commands
from chat.prompt import make_prompt
from chat.screen import Screen
from chat.text import decoded, printable
from chat.turn import TurnView

__all__ = ["FAILED", "OK", "USAGE", "ask", "converse"]

OK, FAILED, USAGE = 0, 1, 2
_SIGNALLED = 128

_ENDING = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


async def ask(config: ApplicationConfig, session_id: str | None, text: str) -> int:
    """Run one turn and return the exit status."""
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, setup=assistant.register)
        async with app, BusSession(session_id, bus=app.bus) as session:
            view = TurnView(session, screen)
            outcome = await _or_signal(app, view.run(text), signal.SIGINT, signal.SIGTERM)
    if isinstance(outcome, signal.Signals):
        return _SIGNALLED + outcome
    # None: somebody asked the application to stop.
    return OK if outcome in {"ok", None} and not screen.broken else FAILED


async def converse(config: ApplicationConfig, session_id: str | None) -> int:
    """Talk until the user leaves, and return the exit status."""
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, setup=assistant.register)
        async with AsyncExitStack() as stack:
            with screen.events.held():
                await stack.enter_async_context(app)
                session = await stack.enter_async_context(BusSession(session_id, bus=app.bus))
                _greet(app, session, screen)
            talk = _Talk(app, session, screen)
            ended = await _or_signal(app, talk.run(), *_ENDING)
    return _SIGNALLED + ended if isinstance(ended, signal.Signals) else OK


def _greet(app: ApplicationBootstrap, session: BusSession, screen: Screen) -> None:
    banner = Text.assemble(
        ("llmgine chat", "bold"),
        (" · provider ", "dim"),
        printable(app.provider.name),
        (" · session ", "dim"),
        printable(session.session_id),
    )
    screen.remarks.print(banner)
    screen.remark("Type a message. /help lists the commands, Ctrl-D leaves.")


class _Talk:
    """A conversation at the terminal."""

    def __init__(self, app: ApplicationBootstrap, session: BusSession, screen: Screen) -> None:
        self._app = app
        self._screen = screen
        self._view = TurnView(session, screen)
        self._commands = Commands(app, session.session_id, screen)
        self._prompt: PromptSession[str] = make_prompt(app.config.folder)

    async def run(self) -> None:
        """Answer line after line, until the end of input."""
        with self._interruptible():
            while (line := await self._line()) is not None:
                if line.startswith("/"):
                    if await self._commands.run(line):
                        return
                elif line.strip():
                    await self._view.run(line)

    async def _line(self) -> str | None:
        # What the last turn led to is shown before the prompt, not above it one by one.
        await self._app.observability.flush()
        self._screen.remarks.print()
        try:
            with self._screen.events.above_prompt():
                return decoded(await self._prompt.prompt_async())
        except KeyboardInterrupt:
            return ""
        except EOFError:
            return None

    @contextmanager
    def _interruptible(self) -> Generator[None, None, None]:
        """Let Ctrl-C cancel the turn under way, if there is one, and do nothing else.

        At the prompt it is a key like any other, and prompt-toolkit's.
        """
        loop = asyncio.get_running_loop()

        def interrupt(number: int, frame: FrameType | None) -> None:
            del number, frame
            loop.call_soon_threadsafe(self._view.cancel)

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


async def _or_signal(
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

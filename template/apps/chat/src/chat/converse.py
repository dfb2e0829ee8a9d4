"""A conversation at a terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from types import FrameType

import assistant
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import BusSession
from prompt_toolkit import PromptSession
from rich.text import Text

from chat.commands import Commands
from chat.ending import OK, SIGNALLED, or_signal
from chat.prompt import make_prompt
from chat.screen import Screen
from chat.text import decoded, printable
from chat.turn import TurnView

__all__ = ["converse"]

_ENDING = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)


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
            ended = await or_signal(app, talk.run(), *_ENDING)
    return SIGNALLED + ended if isinstance(ended, signal.Signals) else OK


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

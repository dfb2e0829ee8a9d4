"""A conversation at a prompt, whose history stays between runs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Generator, Iterable
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import FrameType

import assistant
from assistant import AssistantConfig
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from rich.text import Text

from chat.commands import Commands
from chat.screen import Screen, decoded, printable
from chat.turn import OK, SIGNALLED, Decide, Question, TurnView, or_signal, say_what_was

__all__ = ["converse"]

_FOLDER, _FILE = ".llmgine", "chat-history"
_ENDING = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)


async def converse(
    config: AssistantConfig, session_id: str | None, decide: Decide | None = None
) -> int:
    """Talk until the user leaves, and return the exit status.

    Args:
        config: the settings.
        session_id: the session to begin or to go on with; a new one by default.
        decide: who decides about tool calls that wait for approval; by default the user.
    """
    screen = Screen()
    with screen.in_charge():
        app = ApplicationBootstrap(config, tools=assistant.toolbox, setup=assistant.register)
        async with AsyncExitStack() as stack:
            with screen.events.held():
                await stack.enter_async_context(app)
                session = await stack.enter_async_context(BusSession(session_id, bus=app.bus))
                await _greet(app, session, screen)
            talk = _Talk(app, session, screen, decide or Question(screen))
            ended = await or_signal(app, talk.run(), *_ENDING)
            if config.context.store != "memory":
                again = f"chat --session {shlex.quote(session.session_id)}"
                screen.remark(f"`{again}` goes on with this conversation.")
    return SIGNALLED + ended if isinstance(ended, signal.Signals) else OK


async def _greet(app: ApplicationBootstrap, session: BusSession, screen: Screen) -> None:
    banner = Text.assemble(
        ("llmgine chat", "bold"),
        (" · provider ", "dim"),
        printable(app.provider.name),
        (" · session ", "dim"),
        printable(session.session_id),
    )
    screen.remarks.print(banner)
    await say_what_was(app, session.session_id, screen)
    screen.remark("Type a message. /help lists the commands, Ctrl-D leaves.")


class _Talk:
    """A conversation at the terminal."""

    def __init__(
        self, app: ApplicationBootstrap, session: BusSession, screen: Screen, decide: Decide
    ) -> None:
        self._app = app
        self._screen = screen
        self._view = TurnView(session, screen, decide)
        self._commands = Commands(app, session.session_id, screen)
        self._prompt: PromptSession[str] = _make_prompt(app.config.folder)

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


class _PrivateHistory(FileHistory):
    """A history file for its owner's eyes; it gives up, silently, where it can't be kept."""

    def load_history_strings(self) -> Iterable[str]:
        """Return what was typed before, latest first."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append a line."""
        try:
            super().store_string(decoded(string))
        except OSError:
            return  # a full disk is no reason to end a conversation


def _make_prompt(folder: Path) -> PromptSession[str]:
    """Return a prompt whose history lies in the run-time folder below `folder`."""
    return PromptSession(
        message=FormattedText([("bold", "you> ")]),
        history=_history(folder / _FOLDER / _FILE),
        enable_open_in_editor=False,
    )


def _history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return _PrivateHistory(path)

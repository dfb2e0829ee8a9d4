"""Tool calls as the user sees them: a line for the beginning and the end, and questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from llmgine.bus import BusSession
from llmgine.contracts import ToolCall, ToolExecuteResultEvent, ToolExecuteStartedEvent
from rich.text import Text

from chat.screen import MARKS, Screen, in_line, lasting, printable
from chat.trace import is_table

__all__ = ["CallLines", "Decide", "Decision", "Question", "approve", "refuse"]

_NAME, _DURATION = 14, 7
_LONGEST = 4_000
_NOBODY = "nobody is there to be asked (`chat` asks at a terminal, `chat --approve` never does)"
_DENIED = frozenset({"denied", "expired", "cancelled", "interrupted"})


class CallLines:
    """Shows the tool calls of one session.

    Args:
        session: the session, open.
        screen: where to show them.
    """

    def __init__(self, session: BusSession, screen: Screen) -> None:
        self._screen = screen
        session.register_event_handler(ToolExecuteStartedEvent, self._started, inline=True)
        session.register_event_handler(ToolExecuteResultEvent, self._ended, inline=True)

    def _started(self, event: ToolExecuteStartedEvent) -> None:
        given = ", ".join(f"{name}={value}" for name, value in _arguments(event.call).items())
        self._show("→", "cyan", event.call.name, f"{'':{_DURATION}}  {in_line(given)}")

    def _ended(self, event: ToolExecuteResultEvent) -> None:
        result = event.result
        kind = "ok" if not result.is_error else "error"
        sign, colour = MARKS["cancelled" if result.error_code in _DENIED else kind]
        text = f"{lasting(event.duration):>{_DURATION}}  {in_line(result.text)}"
        self._show(sign, colour, event.call.name, text)

    def _show(self, sign: str, colour: str, name: str, text: str) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"  {sign} ", style=colour)
        line.append(f"{in_line(name):<{_NAME}}  ", style="bold")
        line.append(text, style="dim")
        self._screen.line(line)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call may run, and why not."""

    approved: bool
    reason: str = ""


Decide: TypeAlias = Callable[[ToolCall], Awaitable[Decision | None]]
"""Decides about a call; without a decision the turn ends."""


async def approve(call: ToolCall) -> Decision:
    """Let every call run: the user has said so beforehand."""
    del call
    return Decision(approved=True)


async def refuse(call: ToolCall) -> Decision:
    """Let no call run: nobody can be asked."""
    del call
    return Decision(approved=False, reason=_NOBODY)


class Question:
    """Asks the user at the terminal.

    Args:
        screen: where to ask.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    async def __call__(self, call: ToolCall) -> Decision | None:
        """Show what would be done and wait for yes or no; Ctrl-D is no, Ctrl-C ends the turn."""
        # A question from a pipe needs no prompt, and shouldn't wait for this to be imported.
        from prompt_toolkit import PromptSession

        self._screen.line(Text(f"  ? {in_line(call.name)} asks for your approval", style="yellow"))
        for name, value in _arguments(call).items():
            self._screen.line(Text(f"      {printable(f'{name} = {value}'[:_LONGEST])}"))
            if len(value) > _LONGEST:
                self._screen.remark(f"      ... and {len(value) - _LONGEST} characters more")
        prompt: PromptSession[str] = PromptSession()
        _forget_typed()
        with self._screen.asking():
            try:
                while True:
                    answer = (await prompt.prompt_async("    run it? [y/n] ")).strip().lower()
                    if answer in {"y", "yes"}:
                        return Decision(approved=True)
                    if answer in {"n", "no"}:
                        return Decision(approved=False)
            except EOFError:
                return Decision(approved=False)
            except KeyboardInterrupt:
                return None


def _forget_typed() -> None:
    """Drop what was typed before the question stood there: it can't be the answer."""
    from prompt_toolkit.application import get_app_session
    from prompt_toolkit.input.typeahead import clear_typeahead

    clear_typeahead(get_app_session().input)
    if sys.platform != "win32":
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def _arguments(call: ToolCall) -> dict[str, str]:
    """Return a call's arguments by name, each as JSON; what is no object has no name."""
    try:
        given: object = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if not is_table(given):
        return {"": call.arguments}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()}

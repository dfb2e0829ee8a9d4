"""Who decides about tool calls that wait for approval: the user, or an option of the program."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from llmgine.contracts import ToolCall
from rich.text import Text

from chat.calls import arguments_of
from chat.screen import Screen, in_line, printable

__all__ = ["Decide", "Decision", "Question", "approve", "refuse"]

_LONGEST = 4_000
_NOBODY = "nobody is there to be asked (`chat` asks at a terminal, `chat --approve` never does)"


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
        for name, value in arguments_of(call).items():
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

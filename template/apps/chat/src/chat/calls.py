"""Tool calls as the user sees them: a line when one begins, a line for what came of it."""

from __future__ import annotations

import json

from llmgine.bus import BusSession
from llmgine.contracts import ToolCall, ToolExecuteResultEvent, ToolExecuteStartedEvent
from rich.text import Text

from chat.screen import MARKS, Screen, in_line, lasting
from chat.trace import is_table

__all__ = ["CallLines", "arguments_of"]

_NAME, _DURATION = 14, 7
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
        given = ", ".join(f"{name}={value}" for name, value in arguments_of(event.call).items())
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


def arguments_of(call: ToolCall) -> dict[str, str]:
    """Return a call's arguments by name, each as JSON; what is no object has no name."""
    try:
        given: object = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if not is_table(given):
        return {"": call.arguments}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()}

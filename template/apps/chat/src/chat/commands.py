"""What can be typed at the prompt beside messages: a slash and a word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from difflib import get_close_matches

from llmgine.bootstrap import ApplicationBootstrap
from rich.table import Table
from rich.text import Text

from chat.screen import Screen, in_line, printable
from chat.trace import TraceError, session_tree

__all__ = ["Commands"]


@dataclass(frozen=True, slots=True)
class _Command:
    """A slash command: what it does, in words and in code. It returns whether to leave."""

    help: str
    run: Callable[[], Awaitable[bool]]


class Commands:
    """The slash commands of one conversation.

    Args:
        app: the application.
        session_id: the conversation's session.
        screen: where to answer.
    """

    def __init__(self, app: ApplicationBootstrap, session_id: str, screen: Screen) -> None:
        self._app = app
        self._session_id = session_id
        self._screen = screen
        self._commands = {
            "/help": _Command("show this list", self._help),
            "/tools": _Command("list the tools that the model may call", self._tools),
            "/usage": _Command("show what this session has taken so far", self._usage),
            "/trace": _Command("show what happened in this session, as a tree", self._trace),
            "/events": _Command("hide the events' lines, or show them again", self._events),
            "/clear": _Command("forget the conversation so far", self._clear),
            "/exit": _Command("leave, as Ctrl-D does", self._exit),
        }

    async def run(self, line: str) -> bool:
        """Run a line that starts with a slash; return whether to leave."""
        word = line.split(maxsplit=1)[0]
        command = self._commands.get(word)
        if command is None:
            close = get_close_matches(word, self._commands, n=1)
            hint = f"did you mean {close[0]}?" if close else "/help lists the commands"
            self._screen.remark(
                f"unknown command {word}: {hint} (a message may start with a space)"
            )
            return False
        return await command.run()

    async def _help(self) -> bool:
        table = Table.grid(padding=(0, 2))
        for word, command in self._commands.items():
            table.add_row(Text(word, style="bold"), command.help)
        table.add_row(Text("Ctrl-C", style="bold"), "cancel the answer, or clear the line")
        table.add_row(Text("Up, Down", style="bold"), "earlier messages")
        self._screen.remarks.print(table)
        return False

    async def _tools(self) -> bool:
        table = Table.grid(padding=(0, 2))
        for tool in self._app.tools.get_tools():
            function = tool["function"]
            summary = in_line(function["description"].partition("\n\n")[0])
            table.add_row(Text(in_line(function["name"]), style="bold"), Text(summary))
        self._screen.remarks.print(table)
        return False

    async def _usage(self) -> bool:
        account = self._app.usage.session(self._session_id)
        tokens = f"{account.usage.input_tokens or 0:,} in, {account.usage.output_tokens or 0:,} out"
        about = "about " if account.estimated else ""
        cost = f"; cost: {account.cost:,f}" if self._app.config.budget.prices else ""
        self._screen.remark(f"model calls: {account.calls}; tokens: {about}{tokens}{cost}")
        for model in sorted(account.unpriced if cost else ()):
            self._screen.remark(f"not in the cost: {printable(model)} has no price")
        return False

    async def _trace(self) -> bool:
        await self._app.observability.flush()
        try:
            self._screen.remarks.print(session_tree(self._app.config, self._session_id))
        except TraceError as error:
            self._screen.remark(printable(str(error)))
        return False

    async def _events(self) -> bool:
        events = self._screen.events
        events.shown = not events.shown
        self._screen.remark("events are shown" if events.shown else "events are hidden")
        return False

    async def _clear(self) -> bool:
        await self._app.context.clear_context(self._session_id)
        self._screen.remark("forgotten: the conversation starts anew")
        return False

    async def _exit(self) -> bool:
        return True

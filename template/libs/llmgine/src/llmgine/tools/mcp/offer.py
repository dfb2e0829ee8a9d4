"""The tools of one MCP server, as they stand in a `ToolManager`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from mcp import types

from llmgine.contracts import ToolResult
from llmgine.contracts.chat import JsonValue
from llmgine.errors import ToolRegistrationError
from llmgine.settings import McpServerSettings
from llmgine.tools.manager import ToolManager
from llmgine.tools.mcp.naming import offered_name

__all__ = ["CallTool", "Offer"]

CallTool: TypeAlias = Callable[[str, dict[str, JsonValue]], Awaitable[ToolResult]]

_log = logging.getLogger(__name__)


class Offer:
    """Registers what a server lists, and keeps to the names that were given once.

    Args:
        server: the server's name.
        settings: what of it is offered, and what needs approval.
        tools: where tools are registered.
        call: calls one by the server's own name for it.

    Attributes:
        names: the names that models call the tools by, by the server's own.
    """

    def __init__(
        self, server: str, settings: McpServerSettings, tools: ToolManager, call: CallTool
    ) -> None:
        self._server = server
        self._settings = settings
        self._tools = tools
        self._call = call
        self._listed: dict[str, types.Tool] = {}
        self.names: dict[str, str] = {}

    def update(self, listed: Sequence[types.Tool]) -> None:
        """Offer what a server lists now, and nothing else of it."""
        allowed = self._settings.tools
        wanted = {each.name: each for each in listed if not allowed or each.name in allowed}
        for name in allowed:
            if name not in wanted:
                _log.warning(
                    "MCP server %r has no tool %r, which its settings name", self._server, name
                )
        for name in self._listed.keys() - wanted.keys():
            self._take_back(name)
        for tool in wanted.values():
            if self._listed.get(tool.name) != tool:
                self._offer(tool)
        self._listed = wanted

    def withdraw(self) -> None:
        """Offer nothing more."""
        for name in tuple(self.names):
            self._take_back(name)
        self._listed = {}

    def _take_back(self, name: str) -> None:
        if offered := self.names.pop(name, None):
            self._tools.unregister_tool(offered)

    def _offer(self, tool: types.Tool) -> None:
        before = self.names.get(tool.name)
        self._take_back(tool.name)
        taken = {each["function"]["name"] for each in self._tools.get_tools()}
        name = before or offered_name(self._prefix(), tool.name, taken)
        try:
            self._tools.register_described_tool(
                partial(self._call, tool.name),
                name=name,
                description=tool.description or tool.title or "",
                parameters=tool.input_schema,
                needs_approval=self._needs_approval(tool),
                timeout=self._settings.timeout,
            )
        except ToolRegistrationError as error:
            _log.warning("MCP server %r: a tool can't be offered: %s", self._server, error)
        else:
            self.names[tool.name] = name

    def _prefix(self) -> str:
        prefix = self._settings.prefix
        return f"{self._server}_" if prefix is None else prefix

    def _needs_approval(self, tool: types.Tool) -> bool:
        settings = self._settings
        if settings.approval == "never" or tool.name in settings.trusted_tools:
            return False
        hints = tool.annotations
        return settings.approval == "always" or not (hints and hints.read_only_hint)

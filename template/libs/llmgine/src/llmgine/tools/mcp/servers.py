"""All MCP servers of an application, connected and disconnected together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from llmgine.errors import ConfigurationError
from llmgine.settings import McpServerSettings
from llmgine.tools.manager import ToolManager
from llmgine.tools.mcp.connection import McpConnection

__all__ = ["McpServers"]


class McpServers:
    """Connects MCP servers and registers their tools, from entering to leaving.

    Args:
        servers: the servers, each under a name.
        tools: where their tools are registered.
        folder: what their working directories are seen from; by default our own.
        variables: what else there is beside the environment, for `pass_env`.

    Attributes:
        connections: the connections, by name.
    """

    def __init__(
        self,
        servers: Mapping[str, McpServerSettings],
        tools: ToolManager,
        *,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.connections: Mapping[str, McpConnection] = {
            name: McpConnection(
                name, settings, tools, folder=folder or Path.cwd(), variables=variables or {}
            )
            for name, settings in servers.items()
        }

    async def __aenter__(self) -> Self:
        """Connect all servers at once.

        Raises:
            ConfigurationError: a required server can't be reached; a line for each of them.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the tools back and disconnect all servers; those that were started end."""
        await self._stop()

    async def _start(self) -> None:
        connections = self.connections.values()
        problems = await asyncio.gather(*(each.start() for each in connections))
        missing = [
            f"mcp.servers.{each.name}: {problem}"
            for each, problem in zip(connections, problems, strict=True)
            if problem and each.required
        ]
        if missing:
            raise ConfigurationError("\n".join(missing))

    async def _stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.connections.values()))

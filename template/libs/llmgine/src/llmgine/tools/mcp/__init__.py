"""Tools of MCP servers, offered to models like the application's own.

In `settings.toml`, where bootstrap finds them:

    [mcp.servers.files]
    command = "uvx"
    args = ["some-mcp-server", "."]

    [mcp.servers.tracker]
    url = "https://tracker.example.com/mcp"

Or in code:

    tools = ToolManager()
    async with McpServers({"files": McpServerSettings(command="files-mcp")}, tools):
        request = LLMRequest(messages=..., tools=tuple(tools.get_tools()))

Each server has a task of its own, in which it is connected, watched and disconnected. One that was
lost is started anew, or called anew, with the next call of one of its tools; calls under way get an
error result. Error results of calls that a server never answered have one of these codes:

    unavailable       the server can't be reached, or the application stops
    connection_lost   it was lost during the call, which may have been carried out or not
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmgine.contracts import ToolExecutor
from llmgine.errors import ConfigurationError
from llmgine.settings import McpServerSettings
from llmgine.tools.manager import ToolManager
from llmgine.tools.mcp.connection import McpConnection
from llmgine.tools.mcp.servers import McpServers

__all__ = ["McpConnection", "McpServers", "build"]


def build(
    servers: Mapping[str, McpServerSettings],
    *,
    tools: ToolExecutor,
    folder: Path,
    variables: Mapping[str, str],
) -> McpServers:
    """Make what `mcp.servers` names.

    Raises:
        ConfigurationError: tools can't be added to the application's executor.
    """
    if not isinstance(tools, ToolManager):
        found = type(tools).__name__
        raise ConfigurationError(
            f"mcp.servers: expected a ToolManager to register tools in, found a {found}; make "
            "`tools` of the application one"
        )
    return McpServers(servers, tools, folder=folder, variables=variables)

"""A test to copy: the server as a program, called by the official client."""

from __future__ import annotations

import sys
from pathlib import Path

from mcp import Client, StdioServerParameters, types


async def test_a_client_calls_a_tool(tmp_path: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_server.cli"], cwd=tmp_path
    )
    async with Client(server) as client:
        tools = await client.list_tools()
        assert "calculate" in [tool.name for tool in tools.tools]
        result = await client.call_tool("calculate", {"expression": "6 * 7"})
        assert result.content == [types.TextContent(text="42")]

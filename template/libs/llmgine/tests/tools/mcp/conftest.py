"""MCP servers for tests: a program that does what a test needs, and how it is connected."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from llmgine.contracts import ToolCall, ToolResult
from llmgine.settings import McpServerSettings, ToolSettings
from llmgine.tools import ToolManager
from llmgine.tools.mcp import McpConnection, McpServers

__all__ = ["Connect", "Connected", "Server", "connect", "server"]

# An older server, of the time before `server/discover`; without the SDK it starts in no time.
PROGRAM = r"""
import base64, json, os, signal, sys, time
from pathlib import Path

folder = Path(sys.argv[1])
kind = sys.argv[2] if len(sys.argv) > 2 else ""
with (folder / "pids").open("a") as file:
    file.write(f"{os.getpid()}\n")
starts = len((folder / "pids").read_text().split())

if kind == "broken" or (kind == "late" and starts < 3):
    sys.exit("KeyError: no licence\x1b[31m was found")
if kind == "silent":
    sys.stdin.read()
if kind == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: (folder / "terminated").touch() or sys.exit())
if kind == "noisy":
    print("Welcome to the server!\n{\"json\": 1}\n", flush=True)


def tool(name, **more):
    schema = {"type": "object", "title": "Kept", "properties": {"text": {"type": "string"}}}
    return {"name": name, "description": f"Does {name}.", "inputSchema": schema, **more}


names = "echo slow die huge picture structured resources grow where fail"
names += " nap" if kind == "sleepy" else ""
tools = [tool(name) for name in names.split()]
tools += [tool("a.b/c", annotations={"readOnlyHint": True}), tool("a b c"), tool("x" * 100)]
tools += [tool("refuse")]


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def text(words):
    return {"content": [{"type": "text", "text": words}]}


def called(name, arguments):
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "huge":
        return text("x" * 1_000_000)
    if name == "picture":
        data = base64.b64encode(b"\x89PNG").decode()
        picture = {"type": "image", "data": data, "mimeType": "image/png"}
        return {"content": [{"type": "text", "text": "see:"}, picture]}
    if name == "structured":
        return {"content": [], "structuredContent": {"sum": 3}}
    if name == "resources":
        found = {"uri": "file:///a.txt", "text": "inside"}
        link = {"type": "resource_link", "uri": "file:///b.txt", "name": "b", "description": "B"}
        odd = {"type": "audio", "data": "no base64!", "mimeType": "audio/wav"}
        blob = {"uri": "file:///c.pdf", "blob": "aGk=", "mimeType": "application/pdf"}
        embedded = [{"type": "resource", "resource": each} for each in (found, blob)]
        return {"content": [*embedded, link, odd]}
    if name == "grow":
        tools[:] = [each for each in tools if each["name"] != "fail"]
        tools.append(tool("fresh"))
        tools[0]["description"] = "Does it better."
        send({"method": "notifications/tools/list_changed"})
    if name == "nap":
        send({"method": "notifications/tools/list_changed"})
        time.sleep(arguments["seconds"])
    if name == "where":
        return text(json.dumps({"folder": os.getcwd(), "pid": os.getpid(), **os.environ}))
    if name == "fail":
        return {**text("It is closed on Sundays."), "isError": True}
    return text(json.dumps([name, arguments]))


for line in sys.stdin:
    message = json.loads(line)
    number, method = message.get("id"), message["method"]
    params = message.get("params", {})
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    elif method == "tools/list":
        start = int(params.get("cursor", 0))
        result = {"tools": tools[start : start + 5]}
        if start + 5 < len(tools):
            result["nextCursor"] = str(start + 5)
    elif method == "tools/call" and params["name"] == "slow":
        (folder / "slow").touch()
        continue
    elif method == "tools/call" and params["name"] == "refuse":
        send({"id": number, "error": {"code": -32000, "message": "Not today."}})
        continue
    elif method == "tools/call":
        result = called(params["name"], params.get("arguments"))
    elif method == "notifications/cancelled":
        (folder / "cancelled").touch()
        continue
    elif number is not None:
        send({"id": number, "error": {"code": -32601, "message": "no such method"}})
        continue
    else:
        continue
    send({"id": number, "result": result})

if kind == "stubborn":
    time.sleep(600)
"""


class Server:
    """The program, and what is known of its runs.

    Args:
        folder: where it leaves its traces.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = folder / "program.py"
        self._program.write_text(PROGRAM)

    def settings(self, kind: str = "", **values: Any) -> McpServerSettings:
        """How it is run; nothing needs approval unless `values` say so."""
        given: dict[str, Any] = {"approval": "never", "timeout": 30.0, **values}
        arguments = [str(self._program), str(self.folder), kind]
        return McpServerSettings(command=sys.executable, args=arguments, **given)

    @property
    def pids(self) -> list[int]:
        """The processes that were started."""
        file = self.folder / "pids"
        return [int(each) for each in file.read_text().split()] if file.exists() else []

    def alive(self) -> list[int]:
        """The processes that are still there."""
        return [pid for pid in self.pids if _exists(pid)]

    async def trace(self, name: str) -> None:
        """Wait until it has left a trace."""
        await self.until((self.folder / name).exists)

    @staticmethod
    async def until(holds: Callable[[], bool]) -> None:
        """Wait for something that nobody tells of."""
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Connected:
    """A server's connection, and the manager that its tools are registered in."""

    def __init__(self, connection: McpConnection, tools: ToolManager) -> None:
        self.connection = connection
        self.tools = tools

    @property
    def names(self) -> list[str]:
        """The names of all tools."""
        return [each["function"]["name"] for each in self.tools.get_tools()]

    async def call(self, name: str, **arguments: object) -> ToolResult:
        """Call a tool as a model does."""
        text = json.dumps(arguments)
        return await self.tools.execute_tool_call(ToolCall(id="1", name=name, arguments=text))


Connect: TypeAlias = Callable[[McpServerSettings], Awaitable[Connected]]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A program that is an MCP server."""
    return Server(tmp_path)


@pytest_asyncio.fixture
async def connect() -> AsyncGenerator[Connect, None]:
    """A function that connects a server, which is called `t`."""
    async with AsyncExitStack() as stack:

        async def connect(settings: McpServerSettings) -> Connected:
            # Nobody is there to approve of anything.
            tools = ToolManager(settings=ToolSettings(approval_timeout=0))
            servers = await stack.enter_async_context(McpServers({"t": settings}, tools))
            return Connected(servers.connections["t"], tools)

        yield connect

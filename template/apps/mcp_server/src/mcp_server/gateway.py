"""The application's tools as an MCP server: what is listed, called and answered."""

from __future__ import annotations

import asyncio
import json
import math
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias
from uuid import uuid4

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from llmgine.contracts import (
    Command,
    MediaPart,
    ResolveToolApproval,
    TextPart,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolResult,
)
from llmgine.errors import LlmgineError
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

__all__ = ["CallTool", "Gateway", "Sessions", "register"]

Sessions: TypeAlias = Callable[[], AbstractAsyncContextManager[BusSession]]
"""Gives the session that a call belongs to."""

_Context: TypeAlias = ServerRequestContext[dict[str, object]]

_AT_ONCE = 64
_REFUSED = "it needs a person's approval; `mcp-server --approve` leaves asking to the client"


@dataclass(frozen=True, kw_only=True)
class CallTool(Command[ToolResult]):
    """Call a tool for an MCP client, in the session that the command belongs to.

    Attributes:
        call: the call.
    """

    call: ToolCall


def register(app: ApplicationBootstrap, *, approve: bool) -> None:
    """Answer `CallTool` on the application's bus, and decide about calls that need approval.

    Args:
        app: the application.
        approve: whether they are run. Otherwise they are refused: nobody can be asked here.
    """

    async def call_tool(command: CallTool) -> ToolResult:
        return await app.tools.execute_tool_call(command.call)

    async def decide(event: ToolApprovalRequestedEvent) -> None:
        reason = "" if approve else _REFUSED
        command = ResolveToolApproval(call_id=event.call.id, approved=approve, reason=reason)
        await app.bus.execute(command)

    # A tool's own limit is the one that holds.
    app.bus.register_command_handler(CallTool, call_tool, timeout=math.inf)
    app.bus.register_event_handler(ToolApprovalRequestedEvent, decide, concurrent=True)


class Gateway:
    """Offers an application's tools to MCP clients.

    Args:
        app: the application, started.
        sessions: gives the session of each call.

    Attributes:
        server: the MCP server.
    """

    def __init__(self, app: ApplicationBootstrap, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.server = Server[dict[str, object]](
            "assistant",
            version=version("mcp-server"),
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(
        self, context: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        del context, params
        functions = [each["function"] for each in self._app.tools.get_tools()]
        tools = [
            types.Tool(
                name=each["name"],
                description=each["description"],
                input_schema=dict(each["parameters"]),
            )
            for each in functions
        ]
        return types.ListToolsResult(tools=tools)

    async def _call(
        self, context: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        del context
        arguments = json.dumps(params.arguments or {})
        call = ToolCall(id=uuid4().hex, name=params.name, arguments=arguments)
        # A task of its own: what cancels this one would cut off the tool's clean-up as well.
        task = asyncio.create_task(self._run(call))
        try:
            result = await asyncio.shield(task)
        except LlmgineError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from error
        finally:
            task.cancel()
        return types.CallToolResult(content=_content(result), is_error=result.is_error)

    async def _run(self, call: ToolCall) -> ToolResult:
        async with self._places, self._sessions() as session:
            return await session.execute(CallTool(call=call))


def _content(result: ToolResult) -> list[types.ContentBlock]:
    if isinstance(result.content, str):
        return [types.TextContent(text=result.content)]
    return [_block(part) for part in result.content]


def _block(part: TextPart | MediaPart) -> types.ContentBlock:
    match part:
        case TextPart():
            return types.TextContent(text=part.text)
        case MediaPart(url=str(url)):
            return types.ResourceLink(uri=url, name=part.name or url, mime_type=part.media_type)
        case MediaPart(data=bytes(data)):
            return _media(part, b64encode(data).decode())
        case _:
            return types.TextContent(text=f"[{part.kind} {part.name or part.file_id}]")


def _media(part: MediaPart, data: str) -> types.ContentBlock:
    media_type = part.media_type
    if part.kind == "image":
        return types.ImageContent(data=data, mime_type=media_type or "image/png")
    if part.kind == "audio":
        return types.AudioContent(data=data, mime_type=media_type or "audio/wav")
    uri = f"attachment:{part.name or uuid4().hex}"
    contents = types.BlobResourceContents(uri=uri, blob=data, mime_type=media_type)
    return types.EmbeddedResource(resource=contents)

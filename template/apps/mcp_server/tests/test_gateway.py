"""What MCP clients are told of an application's tools, and what comes of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    Event,
    MediaPart,
    SessionEndEvent,
    SessionStartEvent,
    TextPart,
    ToolExecuteResultEvent,
)
from llmgine.errors import ToolError
from llmgine.testing.fixtures import StartApp
from llmgine.tools import ToolContext, ToolManager
from mcp import Client, types
from mcp_server.gateway import Gateway, register


@asynccontextmanager
async def serving(
    start_app: StartApp, tools: ToolManager, *, approve: bool = False
) -> AsyncGenerator[Client, None]:
    """Serve tools to the official client, each call in a session of its own."""
    app = await start_app(tools=tools, setup=partial(register, approve=approve))
    gateway = Gateway(app, lambda: BusSession(bus=app.bus))
    async with Client(gateway.server) as client:
        yield client


def divide(a: int, b: int = 2) -> float:
    """Divide.

    Args:
        a: what is divided.
        b: by what.
    """
    if b == 0:
        raise ToolError("Nothing can be divided by 0.")
    return a / b


def text(result: types.CallToolResult) -> str:
    return "".join(each.text for each in result.content if isinstance(each, types.TextContent))


async def test_tools_are_listed_as_models_see_them(start_app: StartApp, bus: MessageBus) -> None:
    tools = ToolManager(publisher=bus)
    tools.register_tool(divide)
    async with serving(start_app, tools) as client:
        listed = (await client.list_tools()).tools
        assert [(each.name, each.description) for each in listed] == [("divide", "Divide.")]
        assert listed[0].input_schema == tools.get_tools()[0]["function"]["parameters"]
        tools.register_tool(divide, name="again")
        assert len((await client.list_tools()).tools) == 2


async def test_calls_come_back_with_results_or_errors(start_app: StartApp, bus: MessageBus) -> None:
    tools = ToolManager(publisher=bus)
    tools.register_tool(divide)
    async with serving(start_app, tools) as client:
        calls = [client.call_tool("divide", {"a": number}) for number in range(20)]
        assert [text(each) for each in await asyncio.gather(*calls)] == [
            f"{n / 2}" for n in range(20)
        ]
        for name, arguments, words in (
            ("divide", {"a": 1, "b": 0}, "Nothing can be divided by 0."),
            ("divide", {"a": "x"}, "The arguments don't fit:\na: "),
            ("divide", None, "a: Field required"),
            ("nope", {}, "There is no tool 'nope'."),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert words in text(result)


async def test_each_call_is_seen_in_a_session_of_its_own(
    start_app: StartApp, bus: MessageBus
) -> None:
    def whose(context: ToolContext) -> str:
        """Tell whose call it is."""
        return str(context.session_id)

    tools = ToolManager(publisher=bus)
    tools.register_tool(whose)
    async with serving(start_app, tools) as client:
        seen: list[Event] = []
        for kind in (SessionStartEvent, ToolExecuteResultEvent, SessionEndEvent):
            bus.register_event_handler(kind, seen.append)
        sessions = [text(await client.call_tool("whose")) for _ in range(2)]
        assert len(set(sessions)) == 2
        assert [each.session_id for each in seen] == [each for each in sessions for _ in range(3)]


async def test_what_is_no_text_arrives(start_app: StartApp, bus: MessageBus) -> None:
    def show() -> list[TextPart | MediaPart]:
        """Show."""
        return [
            TextPart(text="see:"),
            MediaPart(kind="image", data=b"png", media_type="image/png"),
            MediaPart(kind="audio", data=b"wav", media_type="audio/wav"),
            MediaPart(kind="document", data=b"pdf", media_type="application/pdf", name="a.pdf"),
            MediaPart(kind="image", url="https://example.com/b.png"),
        ]

    tools = ToolManager(publisher=bus)
    tools.register_tool(show)
    async with serving(start_app, tools) as client:
        assert (await client.call_tool("show")).content == [
            types.TextContent(text="see:"),
            types.ImageContent(data="cG5n", mime_type="image/png"),
            types.AudioContent(data="d2F2", mime_type="audio/wav"),
            types.EmbeddedResource(
                resource=types.BlobResourceContents(
                    uri="attachment:a.pdf", blob="cGRm", mime_type="application/pdf"
                )
            ),
            types.ResourceLink(uri="https://example.com/b.png", name="https://example.com/b.png"),
        ]


@pytest.mark.parametrize("approve", [False, True])
async def test_what_needs_approval_is_refused_unless_all_is_approved(
    start_app: StartApp, bus: MessageBus, approve: bool
) -> None:
    ran: list[str] = []

    def delete(path: str) -> str:
        """Delete a file."""
        ran.append(path)
        return "gone"

    tools = ToolManager(publisher=bus)
    tools.register_tool(delete, needs_approval=True)
    async with serving(start_app, tools, approve=approve) as client:
        result = await client.call_tool("delete", {"path": "a"})
        assert (result.is_error, ran) == ((False, ["a"]) if approve else (True, []))
        assert text(result) == "gone" if approve else "mcp-server --approve" in text(result)


async def test_a_client_s_cancellation_reaches_the_tool_and_lets_it_clean_up(
    start_app: StartApp, bus: MessageBus
) -> None:
    began, cleaned = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        """Wait."""
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    tools = ToolManager(publisher=bus)
    tools.register_tool(wait)
    async with serving(start_app, tools) as client:
        call = asyncio.create_task(client.call_tool("wait"))
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cleaned.wait()

"""Tools of MCP servers that run elsewhere: the official server, over streamable HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import uvicorn
from llmgine.settings import McpServerSettings
from llmgine.tools import ToolManager
from llmgine.tools.mcp import McpServers
from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server as McpServer
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

if TYPE_CHECKING:
    from conftest import Connect, Connected

Context = ServerRequestContext[Any, Any]


class Site:
    """An MCP server at an address of this machine; it can go away, and come back.

    Args:
        old: whether it speaks the protocol of before 2026, which has sessions.
    """

    def __init__(self, *, old: bool) -> None:
        self._old = old
        self.names = ["echo", "slow", "leave"]
        self.headers: dict[str, str] = {}
        self.silent = ""
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._bus = InMemorySubscriptionBus()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None
        self._uvicorn: uvicorn.Server | None = None

    def settings(self, **values: Any) -> McpServerSettings:
        """How it is reached; nothing needs approval."""
        given: dict[str, Any] = {"approval": "never", "timeout": 30.0, **values}
        return McpServerSettings(url=f"http://127.0.0.1:{self.port}/mcp", **given)

    async def come(self) -> None:
        """Be there."""
        if self._socket.fileno() < 0:
            self._socket = socket.create_server(("127.0.0.1", self.port))
        server = McpServer(
            "site",
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_subscriptions_listen=ListenHandler(self._bus),
        )
        if self._old:
            server.add_request_handler("server/discover", types.RequestParams, self._unknown)
        app = server.streamable_http_app()

        async def answered(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("method") == self.silent:
                await asyncio.Event().wait()
            await app(scope, receive, send)

        config = uvicorn.Config(
            answered, log_level="critical", ws="none", timeout_graceful_shutdown=1
        )
        self._uvicorn = uvicorn.Server(config)
        serving = self._uvicorn.serve(sockets=[self._socket])
        self._task = asyncio.create_task(serving)
        while not self._uvicorn.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def go(self) -> None:
        """Go away without a word, in the midst of whatever is going on."""
        if self._uvicorn is not None and self._task is not None:
            for server in self._uvicorn.servers:
                server.close()
            for each in list(self._uvicorn.server_state.connections):
                each.transport.abort()  # pyright: ignore[reportOptionalMemberAccess]
            self._uvicorn.should_exit = self._uvicorn.force_exit = True
            await asyncio.wait((self._task,))
        self._socket.close()

    async def tell(self) -> None:
        """Tell that something has changed."""
        await self._bus.publish(ToolsListChanged())
        await asyncio.sleep(0.01)

    async def _list(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        schema: dict[str, Any] = {"type": "object"}
        return types.ListToolsResult(
            tools=[types.Tool(name=name, input_schema=schema) for name in self.names]
        )

    async def _call(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        self.headers = dict(context.request.headers) if context.request else {}
        if params.name == "slow":
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return types.CallToolResult(content=[types.TextContent(text=f"{params.arguments}")])

    async def _unknown(self, context: Context, params: types.RequestParams) -> None:
        raise MCPError(types.METHOD_NOT_FOUND, "no such method")


@pytest_asyncio.fixture(params=["new", "old"])
async def site(request: pytest.FixtureRequest) -> AsyncGenerator[Site, None]:
    """A server that is there."""
    site = Site(old=request.param == "old")
    await site.come()
    yield site
    await site.go()


async def until_there(on: Connected, name: str) -> None:
    while name not in on.names:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_tools_are_called_with_the_settings_headers(site: Site, connect: Connect) -> None:
    settings = site.settings(headers={"Authorization": "Bearer secret"})
    assert "secret" not in repr(settings)
    on = await connect(settings)
    assert on.names == ["t_echo", "t_slow", "t_leave"]
    results = await asyncio.gather(*(on.call("t_echo", number=n) for n in range(8)))
    assert [each.text for each in results] == [f"{{'number': {n}}}" for n in range(8)]
    assert site.headers["authorization"] == "Bearer secret"


async def test_a_password_in_the_address_is_sent_but_not_logged(
    site: Site, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://me:hunter2@127.0.0.1:{site.port}/mcp"
    on = await connect(McpServerSettings(url=url, approval="never"))
    assert (await on.call("t_echo")).error_code is None
    assert site.headers["authorization"] == "Basic bWU6aHVudGVyMg=="
    assert f"http://127.0.0.1:{site.port}/mcp" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_server_that_answers_no_farewell_is_left_all_the_same() -> None:
    site = Site(old=True)
    await site.come()
    servers = McpServers({"t": site.settings()}, ToolManager())
    async with servers:
        assert servers.connections["t"].connected
        site.silent = "DELETE"
    assert not servers.connections["t"].connected
    await site.go()


async def test_a_call_past_its_limit_is_cancelled_there(site: Site, connect: Connect) -> None:
    on = await connect(site.settings(timeout=0.3))
    assert (await on.call("t_slow")).error_code == "timeout"
    await site.cancelled.wait()
    assert (await on.call("t_echo")).error_code is None


async def test_a_server_that_goes_is_told_at_once_and_called_again_once_it_is_back(
    site: Site, connect: Connect
) -> None:
    on = await connect(site.settings())
    waiting = asyncio.create_task(on.call("t_slow"))
    await site.began.wait()
    await site.go()
    assert (await waiting).error_code == "connection_lost"
    assert (await on.call("t_echo")).error_code in {"unavailable", "connection_lost"}
    site.names.append("fresh")
    await site.come()
    result = await on.call("t_echo", number=1)
    assert (result.text, result.error_code) == ("{'number': 1}", None)
    assert on.connection.connects == 2
    assert "t_fresh" in on.names


async def test_a_server_that_was_started_anew_between_two_calls_is_no_error(
    site: Site, connect: Connect
) -> None:
    on = await connect(site.settings())
    assert (await on.call("t_echo")).error_code is None
    await site.go()
    await site.come()
    assert (await on.call("t_echo")).error_code is None


async def test_a_server_that_comes_later_is_found(connect: Connect) -> None:
    site = Site(old=False)
    await site.go()
    on = await connect(site.settings())
    assert on.names == []
    await site.come()
    await until_there(on, "t_echo")
    await site.go()


async def test_changes_are_heard_of(connect: Connect) -> None:
    site = Site(old=False)
    await site.come()
    on = await connect(site.settings())
    site.names.append("fresh")
    while "t_fresh" not in on.names:
        # It may be told before anybody listens, and isn't kept.
        await site.tell()
    await site.go()

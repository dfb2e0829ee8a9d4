"""Fixtures of this folder's tests: the web application called directly, and over a real server.

`client` and `server` have the example's application with the scripted provider; `start_client`
and `start_server` take what else it is to be made of:

    async def test_models(client: httpx2.AsyncClient) -> None:
        answer = await client.get("/v1/models")

    async def test_stream(start_server: StartServer) -> None:
        url = await start_server(provider=ScriptedProvider(["Hello!"]), api={"max_body": 99})

One that a test makes of `start_web`, to add routes, they take as `web=`. Without a connection an
answer comes once it is whole: streams are for a server.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import assistant
import httpx2
import pytest
import pytest_asyncio
from api.serving import WebServer
from api.settings import ApiConfig
from api.web import make_web
from fastapi import FastAPI
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.testing.fixtures import bus, start_app

__all__ = [
    "bus",
    "client",
    "environment",
    "server",
    "start_app",
    "start_client",
    "start_server",
    "start_web",
]

_PARTS = ("observability", "handlers", "tools", "context", "provider", "setup")

StartWeb: TypeAlias = Callable[..., Awaitable[FastAPI]]
StartClient: TypeAlias = Callable[..., Awaitable[httpx2.AsyncClient]]
StartServer: TypeAlias = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def start_web(bus: MessageBus) -> AsyncGenerator[StartWeb, None]:
    """A function that starts web applications on the test's bus; they are stopped at the end.

    It takes parts as `ApplicationBootstrap` does, and settings by group: `api={"key": ...}`.
    """
    async with AsyncExitStack() as stack:

        async def start(**given: Any) -> FastAPI:
            quiet = {"console": {"enabled": False}, "file": {"enabled": False}}
            groups = {name: each for name, each in given.items() if name not in _PARTS}
            parts: dict[str, Any] = {"tools": assistant.toolbox, "setup": assistant.register}
            parts |= {name: each for name, each in given.items() if name in _PARTS}
            config = ApiConfig(settings_file=None, **{**quiet, **groups})
            web = make_web(ApplicationBootstrap(config, bus=bus, **parts))
            await stack.enter_async_context(web.router.lifespan_context(web))
            return web

        yield start


@pytest_asyncio.fixture
async def start_client(start_web: StartWeb) -> AsyncGenerator[StartClient, None]:
    """A function that starts a web application, and returns a client that calls it directly."""
    async with AsyncExitStack() as stack:

        async def start(web: FastAPI | None = None, **given: Any) -> httpx2.AsyncClient:
            called = await start_web(**given) if web is None else web
            transport = httpx2.ASGITransport(called, raise_app_exceptions=False)
            made = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1")
            return await stack.enter_async_context(made)

        yield start


@pytest_asyncio.fixture
async def client(start_client: StartClient) -> httpx2.AsyncClient:
    """A client of the example's application, without a connection."""
    return await start_client()


@pytest_asyncio.fixture
async def start_server(start_web: StartWeb) -> AsyncGenerator[StartServer, None]:
    """A function that starts a web application on a free port, and returns its URL."""
    async with AsyncExitStack() as stack:

        async def start(web: FastAPI | None = None, **given: Any) -> str:
            served = await start_web(**given) if web is None else web
            return await stack.enter_async_context(_listening(served))

        yield start


@pytest_asyncio.fixture
async def server(start_server: StartServer) -> str:
    """The URL of the example's application on a free port, without a slash at its end."""
    return await start_server()


@asynccontextmanager
async def _listening(web: FastAPI) -> AsyncGenerator[str, None]:
    with socket.create_server(("127.0.0.1", 0)) as place:
        program = WebServer(web)
        running = asyncio.create_task(program.serve([place]))
        url = f"http://127.0.0.1:{place.getsockname()[1]}"
        await program.listening.wait()
        try:
            yield url
        finally:
            program.end()
            await running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the program: nothing in it that changes what it does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMGINE_")}
    # Without bytecode each start takes seconds more, to compile whatever it imports.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "HOME": str(tmp_path)}

"""A server for a module's tests, and what its model does next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio
from api.serving import WebServer
from api.settings import ApiConfig
from api.web import make_web
from assistant import register
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import LLMChunk, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.providers.scripted import ScriptedProvider, ScriptStep
from llmgine.tools import ToolManager
from openai import AsyncOpenAI

__all__ = ["Actor", "Stage", "shared", "stage"]

MODEL = "acme/model-1"


class Actor:
    """A provider that does what the test wants of it; the stand-in's own words by default."""

    name = "actor"

    def __init__(self) -> None:
        self.reset()

    def reset(self, script: ScriptedProvider | None = None) -> None:
        """Forget what the last test wanted."""
        self.script = script or ScriptedProvider()
        self.capabilities = ProviderCapabilities()
        self.hangs_after: int | None = None
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.pieces = 0

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the answer, unless it shall not come."""
        try:
            if self.hangs_after is not None:
                self.hanging.set()
                await asyncio.Event().wait()
            return await self.script.complete(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        """Return the answer piece by piece, as far as it shall come."""
        left = self.hangs_after
        try:
            async for chunk in self.script.stream(request):
                if left == 0:
                    self.hanging.set()
                    await asyncio.Event().wait()
                left = None if left is None else left - 1
                self.pieces += 1
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise


@dataclass
class Stage:
    """A server, clients of it (one of them OpenAI's own), and the model behind it."""

    url: str
    app: ApplicationBootstrap
    raw: httpx2.AsyncClient
    client: AsyncOpenAI
    actor: Actor
    model: str = MODEL

    def script(self, *steps: ScriptStep) -> ScriptedProvider:
        """Have the model answer so; return where its requests can be seen."""
        self.actor.reset(ScriptedProvider(steps))
        return self.actor.script


def _tools(bus: MessageBus) -> ToolManager:
    tools = ToolManager(publisher=bus)
    tools.register_tool(lambda: "sunny", name="weather", description="Tell the weather.")
    tools.register_tool(lambda: "gone", name="erase", description="Erase.", needs_approval=True)
    return tools


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncGenerator[Stage, None]:
    """The server of a module's tests."""
    bus, actor = MessageBus.isolated(), Actor()
    quiet = {"console": {"enabled": False}, "file": {"enabled": False}}
    config = ApiConfig(settings_file=None, provider={"model": MODEL}, **quiet)
    app = ApplicationBootstrap(config, bus=bus, provider=actor, tools=_tools(bus), setup=register)
    web = make_web(app)
    async with web.router.lifespan_context(web):
        with socket.create_server(("127.0.0.1", 0)) as place:
            server = WebServer(web)
            running = asyncio.create_task(server.serve([place]))
            url = f"http://127.0.0.1:{place.getsockname()[1]}"
            await server.listening.wait()
            raw = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30)
            client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            async with raw, client:
                yield Stage(url, app, raw, client, actor)
            server.end()
            await running
        assert bus.stats().sessions == 0


@pytest.fixture
def stage(shared: Stage) -> Stage:
    """The module's server, with a model that does nothing special."""
    shared.actor.reset()
    return shared

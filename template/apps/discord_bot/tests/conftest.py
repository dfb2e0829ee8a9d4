"""Fixtures of this folder's tests: a server that speaks Discord's protocol, and bots on it."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import assistant
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from llmgine.bus import MessageBus
from llmgine.providers.scripted import ScriptedProvider, ScriptStep
from llmgine.testing.fixtures import StartApp, bus, quiet_config, start_app

with warnings.catch_warnings():
    # What discord.py plays sounds with, as we never do, says that Python 3.13 drops it.
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    from discord_bot import answer
    from discord_bot.bot import Bot
    from discord_bot.config import DiscordSettings
    from discord_bot.demo.server import DiscordServer

__all__ = ["bus", "connect", "environment", "server", "start_app"]

# An example takes as long as it takes: on a busy machine that is no failure.
settings.register_profile(
    "patient", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[DiscordServer, None]:
    """A server; bots there edit their answers more often than on Discord."""
    monkeypatch.setattr(answer, "PAUSE", 0.02)
    async with DiscordServer() as own:
        yield own


@pytest_asyncio.fixture
async def connect(
    server: DiscordServer, start_app: StartApp, bus: MessageBus
) -> AsyncGenerator[Callable[..., Awaitable[Bot]], None]:
    """A function that connects a bot, whose model says what it's told to; ended at the end."""
    async with AsyncExitStack() as stack:

        async def connect(
            script: Iterable[ScriptStep] | None = None,
            *,
            delay: float = 0.0,
            settings: DiscordSettings | None = None,
            approval_timeout: float = 600.0,
        ) -> Bot:
            config = quiet_config(tools={"approval_timeout": approval_timeout})
            app = await start_app(
                config,
                provider=ScriptedProvider(script, delay=delay),
                tools=assistant.toolbox(config, publisher=bus),
                setup=assistant.register,
            )
            bot = await stack.enter_async_context(Bot(app, settings or DiscordSettings()))
            running = asyncio.create_task(bot.start(server.token))
            stack.push_async_callback(_ended, running)
            stack.push_async_callback(bot.end)
            await server.until(lambda: server.gateway.identified)
            return bot

        yield connect


async def _ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.wait({running})


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the bot as a program: nothing in it that changes what it does."""
    ours = ("LLMGINE_", "DISCORD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # Without bytecode each start takes seconds more, to compile whatever it imports.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "HOME": str(tmp_path)}

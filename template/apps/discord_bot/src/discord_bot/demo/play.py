"""`discord-bot --demo`: a conversation that anybody can watch, without a token or a network."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import assistant
from assistant import AssistantSettings
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import ChatMessage, LLMRequest, ToolCall
from llmgine.providers.scripted import ScriptedProvider, ScriptStep
from llmgine.settings import ContextSettings, McpSettings, OtelSettings, ProviderSettings

from discord_bot.bot import Bot
from discord_bot.config import BotConfig, DiscordSettings
from discord_bot.demo.server import DiscordServer
from discord_bot.demo.world import Channel, Person, Posted
from discord_bot.reports import lines_on_stderr
from discord_bot.serving import until_signal

__all__ = ["play"]

_HELLO = (
    "This is no Discord: a server on this machine plays it, a script plays the model and the\n"
    "people. The bot, its tools and its approvals are real.\n"
)
_GOODBYE = (
    "\nThat was it. With a token in .env, `discord-bot` does the same on Discord:\n"
    "apps/discord_bot/README.md says where to get one.\n"
)
_NOTES = "Ship the release on Friday."
_LIMIT = 60.0
_DELAY = 0.02
_WIDTH = 11


async def play() -> int:
    """Play the conversation, and return the exit status."""
    _write(_HELLO)
    with _folder() as folder, lines_on_stderr():
        config = _config(folder)
        app = ApplicationBootstrap(
            config,
            tools=assistant.toolbox,
            provider=ScriptedProvider(_script(), delay=_DELAY),
            setup=assistant.register,
        )
        async with DiscordServer() as server, app, Bot(app, config.discord) as bot:
            playing = asyncio.create_task(_played(server, app))
            try:
                return await until_signal(app, bot, server.token)
            finally:
                playing.cancel()
                await asyncio.wait({playing})
                if not playing.cancelled():
                    playing.result()


@contextmanager
def _folder() -> Generator[Path, None, None]:
    """Make a folder with something to read in it, for as long as the block lasts."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notes.txt").write_text(_NOTES, "utf-8")
        yield folder


def _config(folder: Path) -> BotConfig:
    """Return settings of the demo's own, whatever stands elsewhere: nothing leaves this machine."""
    return BotConfig(
        settings_file=None,
        console={"enabled": False},
        file={"enabled": False},
        otel=OtelSettings(enabled=False),
        context=ContextSettings(),
        provider=ProviderSettings(),
        mcp=McpSettings(),
        assistant=AssistantSettings(folder=folder),
        discord=DiscordSettings(),
    )


def _script() -> list[ScriptStep]:
    first = ChatMessage.assistant(
        "Let me work that out, and look into your notes.",
        ToolCall(id="1", name="calculate", arguments='{"expression": "12 * 34"}'),
        ToolCall(id="2", name="read_file", arguments='{"path": "notes.txt"}'),
    )
    return [first, _answer]


def _answer(request: LLMRequest) -> str:
    number, notes = (result.text for result in request.messages[-1].tool_results)
    return f"12 * 34 is **{number}**. Your notes say: {notes.strip()} Anything else?"


async def _played(server: DiscordServer, app: ApplicationBootstrap) -> None:
    """Let people write and click; then the application may stop."""
    transcript = _Transcript(server)
    watching = asyncio.create_task(transcript.watch())
    try:
        async with asyncio.timeout(_LIMIT):
            await _act(server, transcript)
        _write(_GOODBYE)
    finally:
        watching.cancel()
        app.request_stop()


async def _act(server: DiscordServer, transcript: _Transcript) -> None:
    await server.until(lambda: server.gateway.identified)
    question = f"{server.bot.mention} What is 12 * 34, and what do my notes say?"
    await server.say(server.ada, server.general, question)
    asking = await server.until(
        lambda: next((each for each in server.said() if each.buttons()), None)
    )
    for person in (server.bob, server.ada):
        transcript.catch_up()
        transcript.line(person.name, "clicks on [Approve]")
        clicked = await server.press(person, asking, "Approve")
        await server.until(lambda clicked=clicked: clicked.acknowledged)
    await server.until(lambda: server.said()[-1].content.endswith("Anything else?"))
    transcript.catch_up()
    transcript.line(server.ada.name, "/trace")
    traced = await server.command(server.ada, asking.channel, "trace")
    await server.until(lambda: traced.answers)
    transcript.catch_up()


class _Transcript:
    """Writes to the terminal what people see on Discord, while it happens.

    Args:
        server: where it happens.
    """

    def __init__(self, server: DiscordServer) -> None:
        self._server = server
        self._written: dict[int, str] = {}
        self._channel: Channel | None = None
        self._last: Posted | None = None

    async def watch(self) -> None:
        """Write what is new, until cancelled."""
        while True:
            await self._server.until(self._is_behind)
            self.catch_up()

    def line(self, name: str, text: str) -> None:
        """Write what somebody does."""
        self._last = None
        _write(f"\n  {name:<{_WIDTH}}{text}")

    def _is_behind(self) -> bool:
        return any(self._written.get(each.id) != each.content for each in self._server.posted)

    def catch_up(self) -> None:
        """Write what is new by now."""
        for message in self._server.posted:
            before = self._written.get(message.id)
            if before != message.content:
                self._written[message.id] = message.content
                self._show(message, before)

    def _show(self, message: Posted, before: str | None) -> None:
        if message.channel is not self._channel:
            self._channel, self._last = message.channel, None
            thread = message.channel.parent_id is not None
            _write(f"\n\n{'thread' if thread else 'channel'} #{message.channel.name}")
        if message is self._last and before is not None and message.content.startswith(before):
            _write(self._readable(message.content[len(before) :]))  # as it grows by edits
            return
        alone = "(only for one pair of eyes) " if message.ephemeral else ""
        change = "(edited) " if before is not None else ""
        text = self._readable(message.content)
        buttons = [
            f"[{label}]" for label, each in message.buttons().items() if not each["disabled"]
        ]
        self.line(message.author.name, f"{alone}{change}{text}{' '.join(['', *buttons])}")
        self._last = message

    def _readable(self, text: str) -> str:
        people: tuple[Person, ...] = (self._server.bot, self._server.ada, self._server.bob)
        for person in people:
            text = text.replace(person.mention, f"@{person.name}")
        text = re.sub(r"<t:\d+:R>", "in ten minutes", text).replace("\\", "")
        return text.replace("\n", f"\n{'':{_WIDTH + 2}}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""A server on this machine that speaks Discord's REST and gateway protocol, for demo and tests.

async with DiscordServer() as server:
    ...  # every client of discord.py talks to it now
    await server.say(server.ada, server.general, f"{server.bot.mention} Hello!")
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Self

from aiohttp import web
from discord.gateway import DiscordWebSocket
from discord.http import Route

from discord_bot.demo.rest import Rest
from discord_bot.demo.state import Interaction, State
from discord_bot.demo.world import DIRECT, THREAD, Channel, Payload, Person, Posted

__all__ = ["DiscordServer"]

_COMMAND, _CLICK = 2, 3
_STRING, _BUTTON = 3, 2
_HOST = "127.0.0.1"


class DiscordServer(State):
    """Listens on 127.0.0.1 for as long as its block lasts, and plays the people on it.

    Args:
        token: the token that it takes.
    """

    def __init__(self, token: str = "demo-token") -> None:  # noqa: S107 - opens nothing elsewhere
        super().__init__(token)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        runner = web.AppRunner(Rest(self).application(), shutdown_timeout=1)
        async with AsyncExitStack() as stack:
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, _HOST, 0).start()
            port: int = runner.addresses[0][1]
            stack.push_async_callback(self.gateway.drop)
            self.gateway.url = f"ws://{_HOST}:{port}/gateway/"
            stack.enter_context(_instead_of_discord(port))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- What people do

    def direct(self, person: Person) -> Channel:
        """Return the conversation of a person with the bot."""
        channel = Channel(name=person.name, kind=DIRECT)
        self.channels[channel.id] = channel
        return channel

    async def thread(self, person: Person, name: str) -> Channel:
        """Open a thread."""
        about = {"guild_id": self.guild_id, "parent_id": self.general.id, "owner_id": person.id}
        thread = Channel(name=name, kind=THREAD, **about)
        self.channels[thread.id] = thread
        await self.gateway.tell("THREAD_CREATE", thread.payload())
        return thread

    async def say(self, person: Person, channel: Channel, content: str) -> Posted:
        """Write a message."""
        message = self.post(channel, person, {"content": content})
        named = [each for each in (self.bot, self.ada, self.bob) if each.mention in content]
        await self.gateway.tell("MESSAGE_CREATE", message.payload(named))
        return message

    async def command(
        self, person: Person, channel: Channel, name: str, **options: str
    ) -> Interaction:
        """Use a slash command."""
        found = next(each for each in self.commands if each["name"] == name)
        given = [{"name": key, "type": _STRING, "value": each} for key, each in options.items()]
        data: Payload = {"id": found["id"], "name": name, "type": 1, "options": given}
        interaction = Interaction(person=person, channel=channel)
        await self._interact(interaction, _COMMAND, data)
        return interaction

    async def press(self, person: Person, message: Posted, label: str) -> Interaction:
        """Click on a button."""
        button = message.buttons()[label]
        data: Payload = {"custom_id": button["custom_id"], "component_type": _BUTTON}
        interaction = Interaction(person=person, channel=message.channel, message=message)
        await self._interact(interaction, _CLICK, data)
        return interaction

    async def _interact(self, interaction: Interaction, kind: int, data: Payload) -> None:
        self.interactions[interaction.token] = interaction
        channel, person = interaction.channel, interaction.person
        about: Payload = {
            "id": str(interaction.id),
            "application_id": str(self.bot.id),
            "type": kind,
            "data": data,
            "channel": channel.payload(),
            "channel_id": str(channel.id),
            "token": interaction.token,
            "version": 1,
            "app_permissions": "0",
            "locale": "en-US",
            "entitlements": [],
            "attachment_size_limit": 10_485_760,
            "authorizing_integration_owners": {},
            "context": 0,
        }
        if interaction.message is not None:
            about["message"] = interaction.message.payload()
        if channel.guild_id is None:
            about["user"] = person.user()
        else:
            about["guild_id"] = str(channel.guild_id)
            about["member"] = {**person.member(), "user": person.user(), "permissions": "0"}
        await self.gateway.tell("INTERACTION_CREATE", about)


@contextmanager
def _instead_of_discord(port: int) -> Generator[None, None, None]:
    """Let clients talk to a port of this machine; discord.py knows no other way than this."""
    rest, gateway = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
    Route.BASE = f"http://{_HOST}:{port}/api/v10"
    DiscordWebSocket.DEFAULT_GATEWAY = (
        gateway.with_scheme("ws").with_host(_HOST).with_port(port).with_path("/gateway/")
    )
    try:
        yield
    finally:
        Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = rest, gateway

"""A test to copy: the bot on a server of the test's own, with a model that is told what to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from discord_bot.bot import Bot
from discord_bot.demo.server import DiscordServer


async def test_one_question_one_answer(
    server: DiscordServer, connect: Callable[..., Awaitable[Bot]]
) -> None:
    await connect(["Hello, Ada!"])
    await server.say(server.ada, server.direct(server.ada), "I am Ada.")
    await server.until(lambda: [each for each in server.said() if each.content == "Hello, Ada!"])

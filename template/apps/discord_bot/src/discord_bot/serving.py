"""The bot from its login until a signal ends it, or Discord does."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine

import aiohttp
import assistant
import discord
from llmgine.bootstrap import ApplicationBootstrap

from discord_bot.bot import Bot
from discord_bot.config import BotConfig
from discord_bot.reports import lines_on_stderr, trouble

__all__ = ["FAILED", "OK", "SIGNALLED", "USAGE", "serve", "until_signal"]

OK, FAILED, USAGE = 0, 1, 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

_GRACE = 8.0
_REFUSED = (
    "DISCORD_TOKEN: expected a token that Discord knows, found one that it refuses: "
    "reset it in the developer portal (Bot, Reset Token) and copy the new one"
)
_NO_INTENT = (
    "Discord refuses the message content intent: switch it on in the developer portal "
    "(Bot, Privileged Gateway Intents, Message Content Intent)"
)


async def serve(config: BotConfig, token: str) -> int:
    """Run the bot, and return the exit status."""
    app = ApplicationBootstrap(config, tools=assistant.toolbox, setup=assistant.register)
    with lines_on_stderr():
        async with app, Bot(app, config.discord) as bot:
            return await until_signal(app, bot, token)


async def until_signal(app: ApplicationBootstrap, bot: Bot, token: str) -> int:
    """Let the bot answer until a signal comes, or all is over; return the exit status."""
    running = asyncio.ensure_future(_running(bot, token))
    waiting = asyncio.ensure_future(app.run_until_signal(signal.SIGINT, signal.SIGTERM))
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        await _patiently(bot.end())
        heard = waiting.result()
        return OK if heard is None else SIGNALLED + heard
    finally:
        # The bot doesn't listen any more when it says goodbye: else its listening would say so
        # first, and differently.
        running.cancel()
        waiting.cancel()
        await asyncio.wait({running, waiting})
        await _patiently(bot.close())


async def _patiently(work: Coroutine[object, object, None]) -> None:
    try:
        async with asyncio.timeout(_GRACE):
            await work
    except TimeoutError:
        sys.stderr.write("Discord takes long to answer: the bot leaves without waiting for it\n")


async def _running(bot: Bot, token: str) -> int:
    """Run the bot until it can't be connected any more; say why, and return the exit status."""
    try:
        await bot.start(token)
    except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
        status, text = _verdict(error)
        sys.stderr.write(f"{text}\n")
        return status
    return OK


def _verdict(error: Exception) -> tuple[int, str]:
    match error:
        case discord.LoginFailure():
            return USAGE, _REFUSED
        case discord.ConnectionClosed(code=4004):
            return USAGE, _REFUSED
        case discord.PrivilegedIntentsRequired():
            return USAGE, _NO_INTENT
        case discord.ConnectionClosed(code=code):
            return FAILED, f"Discord has closed the connection for good (code {code})"
        case _:
            return FAILED, f"Discord can't be reached: {trouble(error)}"

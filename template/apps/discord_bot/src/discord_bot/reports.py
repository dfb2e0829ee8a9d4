"""What can go wrong with Discord, and how whoever runs the bot is told: in a line each."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from traceback import extract_tb

import aiohttp
import discord
from llmgine.observability.redaction import redact_text

__all__ = ["TROUBLE", "lines_on_stderr", "passes", "trouble"]

TROUBLE = (OSError, aiohttp.ClientError, discord.DiscordException)
"""Whatever goes wrong between the bot and Discord, for good perhaps."""

_CHANNEL = re.compile(r"/channels/(\d+)")
_TOO_MANY = 429
_LOGGERS = ("discord", "discord_bot")


def passes(error: BaseException) -> bool:
    """Tell whether it may be right the next time: the network, a server, too many requests."""
    if isinstance(error, discord.HTTPException):
        return isinstance(error, discord.DiscordServerError) or error.status == _TOO_MANY
    return isinstance(error, OSError | aiohttp.ClientError)


def trouble(error: BaseException) -> str:
    """Return what went wrong with Discord, in a line."""
    if isinstance(error, discord.Forbidden):
        return (
            f"Discord forbids it{_where(error)} ({error.text}, code {error.code}): give the bot "
            "View Channels, Send Messages, Send Messages in Threads and Read Message History there"
        )
    text = " ".join(str(error).split())
    return redact_text(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _where(error: discord.HTTPException) -> str:
    response = error.response
    # Of the path nothing else: in some it holds a secret.
    path = response.url.path if isinstance(response, aiohttp.ClientResponse) else ""
    found = _CHANNEL.search(path)
    return f" in channel {found[1]}" if found else ""


class _OneLine(logging.Formatter):
    """A record on one line; an exception as its last place in the code, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.name}: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = f"{text}: {trouble(error)}"
            frames = extract_tb(error.__traceback__)
            if frames and not isinstance(error, OSError | discord.DiscordException):
                text = f"{text} ({frames[-1].filename}:{frames[-1].lineno})"
        return redact_text(" ".join(text.split()))


@contextmanager
def lines_on_stderr() -> Generator[None, None, None]:
    """Write warnings and errors of ours and of discord.py's to standard error."""
    # The bot is never in a voice channel: it's no news that the packages for that are missing.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OneLine())
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)

"""An answer that grows before the reader's eyes, in as many messages as it takes."""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp
from discord import DiscordServerError, Message
from discord.ui import View

from discord_bot.splitting import sayable, split

__all__ = ["PASSING", "PAUSE", "Answer", "Say"]

PAUSE = 1.0
"""Seconds between two looks at what is new: a message is edited no more often."""

PASSING = (OSError, aiohttp.ClientError, DiscordServerError)
"""What goes wrong with a network or a server, and may be right the next time."""

_PATIENCE = 5


class Say(Protocol):
    """Sends a message where the question was asked."""

    async def __call__(self, text: str, view: View | None = None) -> Message:
        """Send it, with buttons perhaps."""
        ...


class Answer:
    """One answer: what is added appears by itself, a while later.

    Args:
        say: sends a message.
        heading: what the first message begins with.

    Attributes:
        begun: whether anything was added.
        task: ends with the answer; fails where it can't be shown any more.
    """

    def __init__(self, say: Say, heading: str = "") -> None:
        self._say = say
        self._text = heading
        self.begun = False
        self._shown: list[tuple[Message, str]] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def add(self, text: str) -> None:
        """Take the next words."""
        self._text += text
        self.begun = True
        self._changed.set()

    async def finish(self) -> None:
        """Return once all of it stands there.

        Raises:
            DiscordException: it can't be shown: forbidden, for instance.
            OSError: nor can Discord be reached.
        """
        self._ended.set()
        if self.begun:
            self._changed.set()
            await self.task
        else:
            self.task.cancel()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            last = self._ended.is_set()
            try:
                await self._show()
            except PASSING:
                failures += 1
                if failures == _PATIENCE:
                    raise
                self._changed.set()
                await asyncio.sleep(PAUSE)
                continue
            failures = 0
            if last:
                return
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(PAUSE):
                await self._ended.wait()
        except TimeoutError:
            return

    async def _show(self) -> None:
        """Bring what stands there up to date."""
        pieces = (piece.content for piece in split(sayable(self._text)))
        contents = [content for content in pieces if content.strip()]
        for index, content in enumerate(contents):
            if index == len(self._shown):
                self._shown.append((await self._say(content), content))
            message, before = self._shown[index]
            if content != before:
                self._shown[index] = (await message.edit(content=content), content)

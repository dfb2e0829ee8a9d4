"""An answer that grows before the reader's eyes, in as many messages as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from discord import Message
from discord.ui import View

from discord_bot.reports import TROUBLE, passes
from discord_bot.splitting import sayable, split

__all__ = ["PAUSE", "Answer", "Say"]

PAUSE = 1.0
"""Seconds between two looks at what is new: a message is edited no more often."""

_PATIENCE = 5


class Say(Protocol):
    """Sends a message where the question was asked."""

    async def __call__(self, text: str, view: View | None = None) -> Message:
        """Send it, with buttons perhaps."""
        ...


class Answer:
    """One answer: what is added appears by itself, a while later, from `start` on.

    Args:
        say: sends a message.
        heading: what the first message begins with.
        failed: called where it can't be shown any more; `finish` then says why.

    Attributes:
        begun: whether anything was added.
    """

    def __init__(self, say: Say, heading: str = "", *, failed: Callable[[], None]) -> None:
        self._say = say
        self._text = heading
        self._failed = failed
        self._shown: list[tuple[Message, str]] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.begun = False

    def start(self) -> asyncio.Task[None]:
        """Begin to show it: before, it only takes words. Return the task that does."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._over)
        return self._task

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
        self._changed.set()
        await (self._task or self.start())

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            last = self._ended.is_set()
            try:
                await self._show()
            except TROUBLE as error:
                failures += 1
                if failures == _PATIENCE or not passes(error):
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
        if not self.begun:
            return  # a heading alone says nothing
        pieces = (piece.content for piece in split(sayable(self._text)))
        contents = [content for content in pieces if content.strip()]
        for index, content in enumerate(contents):
            if index == len(self._shown):
                self._shown.append((await self._say(content), content))
            message, before = self._shown[index]
            if content != before:
                self._shown[index] = (await message.edit(content=content), content)

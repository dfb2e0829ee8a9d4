"""Ways to send a message where a question was asked."""

from __future__ import annotations

import re

import discord
from discord.ui import View

from discord_bot.answer import Say

__all__ = ["escaped", "in_channel", "in_reply", "to_command"]

# Whoever makes the model say an address can't make Discord fetch it for a preview.


def in_channel(channel: discord.abc.Messageable) -> Say:
    """Send messages to a channel, a thread, or a person."""

    async def say(text: str, view: View | None = None) -> discord.Message:
        if view is None:
            return await channel.send(text, suppress_embeds=True)
        return await channel.send(text, view=view, suppress_embeds=True)

    return say


def in_reply(message: discord.Message) -> Say:
    """Send replies to a message."""

    async def say(text: str, view: View | None = None) -> discord.Message:
        if view is None:
            return await message.reply(text, suppress_embeds=True)
        return await message.reply(text, view=view, suppress_embeds=True)

    return say


def to_command(interaction: discord.Interaction[discord.Client]) -> Say:
    """Send answers to a slash command that was deferred; Discord takes them for 15 minutes."""
    followup = interaction.followup

    async def say(text: str, view: View | None = None) -> discord.Message:
        if view is None:
            return await followup.send(text, wait=True, suppress_embeds=True)
        return await followup.send(text, view=view, wait=True, suppress_embeds=True)

    return say


def escaped(text: str) -> str:
    """Return the text so that Discord shows it as it is, without markup."""
    return re.sub(r"([\\*_~`|<>#\[\]()-])", r"\\\1", text)

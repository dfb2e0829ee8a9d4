"""The slash commands: `/ask`, `/clear`, `/trace`."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Protocol

import discord
from discord import app_commands

from discord_bot.conversation import Conversation
from discord_bot.reports import TROUBLE, trouble
from discord_bot.saying import escaped, to_command
from discord_bot.splitting import LIMIT, Piece, sayable, split
from discord_bot.turn import Question

__all__ = ["Commands", "Host"]

_log = logging.getLogger(__name__)
_LONGEST_QUOTE = 300
_ROOM = LIMIT - 100
_NOT_ALLOWED = "You may not use this here."
_BUSY = "An answer is under way here: try again when it is done."
_FORGOTTEN = "Forgotten: the conversation starts anew."
_FAILED = "-# That went wrong: whoever runs me finds the reason in the log."
_NO_TRACE = "Nothing has been answered here for a while."

_Interaction = discord.Interaction[discord.Client]


class Host(Protocol):
    """What the commands need of the bot."""

    def may_ask(self, user: discord.User | discord.Member, guild_id: int | None) -> bool:
        """Tell whether a person may talk to the bot there."""
        ...

    def conversation(self, place_id: int) -> Conversation | None:
        """Return the conversation of a channel or thread, if one goes on there."""
        ...

    async def forget(self, place_id: int) -> None:
        """Forget what was said in a channel or thread."""
        ...

    async def ask(self, place_id: int, question: Question) -> None:
        """Have a question answered, after those that were asked there before."""
        ...


class Commands(app_commands.CommandTree[discord.Client]):
    """The slash commands of a bot, for those who may talk to it.

    Args:
        client: the bot as a client.
        host: the same, as far as commands need it.
    """

    def __init__(self, client: discord.Client, host: Host) -> None:
        super().__init__(client)
        self._host = host
        _add_ask(self, host)
        _add_clear(self, host)
        _add_trace(self, host)

    async def interaction_check(self, interaction: _Interaction, /) -> bool:
        """Refuse those who may not talk to the bot; only they see it."""
        place = interaction.channel_id
        if place is not None and self._host.may_ask(interaction.user, interaction.guild_id):
            return True
        await interaction.response.send_message(_NOT_ALLOWED, ephemeral=True)
        return False

    async def on_error(
        self, interaction: _Interaction, error: app_commands.AppCommandError, /
    ) -> None:
        """Tell the trouble with Discord in a line; what else fails is a bug, or the store's."""
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        if isinstance(cause, TROUBLE):
            _log.warning("%s", trouble(cause))
        else:
            await super().on_error(interaction, error)
            with suppress(*TROUBLE):  # the bug is what counts
                if interaction.response.is_done():
                    await to_command(interaction)(_FAILED)
                else:
                    await interaction.response.send_message(_FAILED, ephemeral=True)


def _add_ask(tree: Commands, host: Host) -> None:
    @tree.command(name="ask", description="Ask the assistant")
    @app_commands.describe(question="What you want to know")
    async def ask(
        interaction: discord.Interaction[discord.Client],
        question: app_commands.Range[str, 1, 4000],
    ) -> None:
        await interaction.response.defer(thinking=True)
        say = to_command(interaction)
        if not question.strip():
            await say("Ask me something.")
            return
        heading = f"> {_quoted(question)}\n"
        await host.ask(_place(interaction), Question(question, interaction.user, say, heading))


def _add_clear(tree: Commands, host: Host) -> None:
    @tree.command(name="clear", description="Forget the conversation in this place")
    async def clear(interaction: discord.Interaction[discord.Client]) -> None:
        place_id = _place(interaction)
        conversation = host.conversation(place_id)
        if conversation is not None and conversation.busy:
            await interaction.response.send_message(_BUSY, ephemeral=True)
            return
        await host.forget(place_id)
        await interaction.response.send_message(_FORGOTTEN)


def _add_trace(tree: Commands, host: Host) -> None:
    @tree.command(name="trace", description="What the last answer here took")
    async def trace(interaction: discord.Interaction[discord.Client]) -> None:
        conversation = host.conversation(_place(interaction))
        text = "" if conversation is None else sayable(conversation.trace.text())
        first, *more = split(text, _ROOM) or [Piece("")]
        lines = f"{first.text}\n..." if more else first.text
        shown = f"```\n{lines}\n```" if lines else _NO_TRACE
        await interaction.response.send_message(shown, ephemeral=True)


def _place(interaction: _Interaction) -> int:
    return interaction.channel_id or 0  # the check has made sure that there is one


def _quoted(question: str) -> str:
    line = " ".join(sayable(question).split())
    short = line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}..."
    return escaped(short)

"""The bot on Discord: which messages it answers, where, and who may ask."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections import deque

import discord
from llmgine.bootstrap import ApplicationBootstrap

from discord_bot.access import allows
from discord_bot.approvals import Approvals
from discord_bot.commands import Commands
from discord_bot.config import DiscordSettings
from discord_bot.conversation import Conversation
from discord_bot.reports import TROUBLE, trouble
from discord_bot.saying import in_channel, in_reply
from discord_bot.turn import STOPPED, Question

__all__ = ["Bot"]

_log = logging.getLogger(__name__)
_TITLE = 80
_REMEMBERED = 1000
_ASKED = (discord.MessageType.default, discord.MessageType.reply)
_BLANK = "Ask me something: your question beside my name, or `/ask`."
_ATTACHED = "-# I can't open attachments: I have read only what you wrote.\n"
_BUSY = "I still have several questions to answer here: please ask again when I have."
_PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    create_public_threads=True,
    read_message_history=True,
)


class Bot(discord.Client):
    """Answers mentions, direct messages, the threads that it has opened, and slash commands.

    Args:
        app: the application, started.
        settings: who may talk to it.
    """

    def __init__(self, app: ApplicationBootstrap, settings: DiscordSettings) -> None:
        intents = discord.Intents.none()
        intents.guilds = intents.guild_messages = intents.dm_messages = True
        intents.message_content = True  # of the messages in our threads, which don't mention us
        super().__init__(
            intents=intents,
            # What a model says must not ring anybody's bell.
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
        )
        self._app = app
        self._settings = settings
        self._approvals = Approvals()
        self._conversations: dict[int, Conversation] = {}
        self._ending = False
        self._heard: deque[int] = deque(maxlen=_REMEMBERED)
        self._tree = Commands(self, self)

    async def end(self) -> None:
        """Cut short what is under way, say so, and answer nothing more."""
        self._ending = True
        conversations = tuple(self._conversations.values())
        await asyncio.gather(*(conversation.end() for conversation in conversations))

    # -- What Discord tells us

    async def setup_hook(self) -> None:
        """Tell Discord which slash commands there are."""
        try:
            await self._tree.sync()
        except TROUBLE as error:
            _log.warning("the slash commands can't be offered: %s", trouble(error))

    async def on_connect(self) -> None:
        """Say that we are there; where nobody has invited us yet, how to."""
        count = len(self.guilds)
        sys.stderr.write(
            f"connected as {self.user}, on {count} server{'' if count == 1 else 's'}\n"
        )
        if not count and self.application_id is not None:
            scopes = ("bot", "applications.commands")
            url = discord.utils.oauth_url(
                self.application_id, permissions=_PERMISSIONS, scopes=scopes
            )
            sys.stderr.write(f"invite it: {url}\n")
        sys.stderr.flush()

    async def on_message(self, message: discord.Message) -> None:
        """Answer a message that is meant for us."""
        if message.author.bot or message.type not in _ASKED or not self._is_meant(message):
            return
        if message.id in self._heard:
            return  # after a gap Discord may tell of a message once more
        self._heard.append(message.id)
        guild_id = None if message.guild is None else message.guild.id
        if not self.may_ask(message.author, guild_id):
            _log.info("user %s may not ask in server %s", message.author.id, guild_id)
            return
        try:
            await self._take(message)
        except TROUBLE as error:
            _log.warning("%s", trouble(error))

    async def on_interaction(self, interaction: discord.Interaction[discord.Client]) -> None:
        """Hear clicks on buttons; slash commands go to the command tree."""
        if interaction.type is not discord.InteractionType.component:
            return
        try:
            await self._approvals.pressed(interaction)
        except TROUBLE as error:
            _log.warning("%s", trouble(error))

    # -- Questions

    def may_ask(self, user: discord.User | discord.Member, guild_id: int | None) -> bool:
        """Tell whether a person may talk to the bot there."""
        return allows(self._settings, user, guild_id)

    def conversation(self, place_id: int) -> Conversation | None:
        """Return the conversation of a channel or thread, if one goes on there."""
        return self._conversations.get(place_id)

    async def forget(self, place_id: int) -> None:
        """Forget what was said in a channel or thread."""
        await self._app.context.clear_context(_session_id(place_id))

    async def ask(self, place_id: int, question: Question) -> None:
        """Have a question answered, after those that were asked there before."""
        if self._ending:
            await question.say(STOPPED)
            return
        conversation = self._conversations.get(place_id)
        if conversation is None:
            conversation = self._conversations[place_id] = Conversation(
                self._app,
                _session_id(place_id),
                idle=self._settings.idle,
                approvals=self._approvals,
                gone=lambda: self._gone(place_id),
            )
        if not conversation.ask(question):
            await question.say(_BUSY)

    def _gone(self, place_id: int) -> None:
        del self._conversations[place_id]

    def _is_meant(self, message: discord.Message) -> bool:
        if message.guild is None or (self.user is not None and self.user in message.mentions):
            return True
        if any(self._is_own(role) for role in message.role_mentions):
            return True
        channel = message.channel
        return isinstance(channel, discord.Thread) and channel.owner_id == self._own_id

    def _is_own(self, role: discord.Role) -> bool:
        """Tell whether it's the role that bears our name, which is easily mentioned instead."""
        return role.tags is not None and role.tags.bot_id == self._own_id

    @property
    def _own_id(self) -> int | None:
        return None if self.user is None else self.user.id

    async def _take(self, message: discord.Message) -> None:
        text = self._text(message)
        heading = _ATTACHED if message.attachments else ""
        if not text:
            await message.reply(f"{heading}{_BLANK}", mention_author=False)
            return
        place_id, say = message.channel.id, in_channel(message.channel)
        if isinstance(message.channel, discord.TextChannel):
            thread = await _thread(message, text)
            if thread is None:
                say = in_reply(message)
            else:
                place_id, say = thread.id, in_channel(thread)
        await self.ask(place_id, Question(text, message.author, say, heading))

    def _text(self, message: discord.Message) -> str:
        """Return the message without our name, and with other names instead of their ids."""
        text = re.sub(rf"<@!?{self._own_id}>", "", message.content)
        for user in message.mentions:
            text = re.sub(rf"<@!?{user.id}>", f"@{user.display_name}".replace("\\", ""), text)
        for role in message.role_mentions:
            text = text.replace(role.mention, "" if self._is_own(role) else f"@{role.name}")
        return text.strip()


def _session_id(place_id: int) -> str:
    return f"discord-{place_id}"


async def _thread(message: discord.Message, text: str) -> discord.Thread | None:
    """Open a thread for a conversation; where that isn't possible, it happens in place."""
    title = " ".join(text.split())[:_TITLE] or "Conversation"
    try:
        return await message.create_thread(name=title, auto_archive_duration=1440)
    except discord.HTTPException as error:
        _log.info("no thread in channel %s: %s", message.channel.id, error)
        return None

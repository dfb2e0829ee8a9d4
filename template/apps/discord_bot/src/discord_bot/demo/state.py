"""What has happened on the server so far, and how to wait for more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TypeVar

from discord_bot.demo.gateway import Gateway
from discord_bot.demo.world import Channel, Payload, Person, Posted, as_list, as_payload, new_id

__all__ = ["Fault", "Interaction", "Refused", "State"]

T = TypeVar("T")
_LONGEST = 2000
_MENTIONS = {"everyone": r"@everyone|@here", "users": r"<@!?\d+>", "roles": r"<@&\d+>"}


class Refused(Exception):  # noqa: N818 - what the client gets, no failure of the server
    """A request that the server refuses.

    Attributes:
        status: the HTTP status.
        code: Discord's code.
        text: its words.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text


@dataclass(kw_only=True, slots=True)
class Fault:
    """What goes wrong with the next requests of a kind.

    Attributes:
        method: their method.
        path: a pattern that is found in their path.
        status: the status that they get instead of what they ask for.
        body: what the answer says.
        headers: its headers.
        times: how many requests this happens to.
    """

    method: str
    path: str
    status: int
    body: Payload
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    times: int = 1

    @classmethod
    def rate_limit(cls, method: str, path: str, seconds: float, *, times: int = 1) -> Fault:
        """Return that requests are refused for so long."""
        body: Payload = {"message": "slow down", "retry_after": seconds, "global": False}
        headers = {"Via": "1.1 google"}
        return cls(method=method, path=path, status=429, body=body, headers=headers, times=times)

    @classmethod
    def forbidden(cls, method: str, path: str, *, times: int = 1) -> Fault:
        """Return that the bot lacks a permission."""
        body: Payload = {"message": "Missing Permissions", "code": 50013}
        return cls(method=method, path=path, status=403, body=body, times=times)


@dataclass(kw_only=True, slots=True)
class Interaction:
    """A slash command or a click, and what the bot did about it.

    Attributes:
        id: the id.
        token: what the bot answers under.
        person: who it comes from.
        channel: where.
        message: the message with the button.
        acknowledged: whether the bot has answered in the first place.
        answers: the messages that came of it.
    """

    id: int = field(default_factory=new_id)
    token: str = field(default_factory=lambda: token_hex(16))
    person: Person
    channel: Channel
    message: Posted | None = None
    acknowledged: bool = False
    answers: list[Posted] = field(default_factory=list[Posted])


class State:
    """A server with a channel, a role and two people, of whom Ada has the role; and the bot.

    Attributes:
        token: the bot's token.
        bot: the bot.
        guild_id: the server.
        role_id: the role.
        general: the channel.
        ada: one person.
        bob: the other.
        channels: all channels, threads and conversations with one person.
        posted: all messages, in order.
        interactions: slash commands and clicks, by their tokens.
        commands: the slash commands that the bot offers.
        faults: what is to go wrong.
        requests: methods and paths of the requests so far.
        gateway: the way to the client.
        invited: whether the bot is on the server.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.bot = Person(name="assistant", bot=True)
        self.guild_id, self.role_id = new_id(), new_id()
        self.general = Channel(name="general", guild_id=self.guild_id)
        self.ada = Person(name="Ada", roles=(self.role_id,))
        self.bob = Person(name="Bob")
        self.channels = {self.general.id: self.general}
        self.posted: list[Posted] = []
        self.interactions: dict[str, Interaction] = {}
        self.commands: list[Payload] = []
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.gateway = Gateway(token, self._beginning, self.change)
        self.invited = True
        self._news = asyncio.Event()

    async def until(self, condition: Callable[[], T | None]) -> T:
        """Wait until something holds, or is there, and return it."""
        while not (found := condition()):
            await self._news.wait()
        return found

    def change(self) -> None:
        """Let those look again who wait."""
        self._news.set()
        self._news = asyncio.Event()

    def said(self, channel: Channel | None = None) -> list[Posted]:
        """Return the bot's messages, in a channel or altogether."""
        ours = (each for each in self.posted if each.author is self.bot)
        return [each for each in ours if channel is None or each.channel is channel]

    def post(self, channel: Channel, author: Person, body: Payload) -> Posted:
        """Keep a message.

        Raises:
            Refused: it is empty, or too long.
        """
        content = _checked(body)
        flags = body.get("flags")
        message = Posted(
            channel=channel,
            author=author,
            versions=[content],
            components=as_list(body.get("components")),
            flags=flags if isinstance(flags, int) else 0,
            rings=_rings(content, body),
        )
        self.posted.append(message)
        self.change()
        return message

    def edit(self, message: Posted, body: Payload) -> None:
        """Change a message.

        Raises:
            Refused: it would be empty, or too long.
        """
        if "content" in body:
            message.versions.append(_checked(body))
            message.rings |= _rings(message.content, body)
        if "components" in body:
            message.components = as_list(body["components"])
        self.change()

    def _beginning(self, session_id: str) -> list[tuple[str, Payload]]:
        guild_id = str(self.guild_id)
        ready: Payload = {
            "v": 10,
            "user": self.bot.user(),
            "guilds": [{"id": guild_id, "unavailable": True}] if self.invited else [],
            "session_id": session_id,
            "resume_gateway_url": self.gateway.url,
            "application": {"id": str(self.bot.id), "flags": 0},
        }
        if not self.invited:
            return [("READY", ready)]
        everyone: Payload = {"id": guild_id, "name": "@everyone", "permissions": "0"}
        role: Payload = {"id": str(self.role_id), "name": "staff", "permissions": "0"}
        places = list(self.channels.values())
        guild: Payload = {
            "id": guild_id,
            "name": "Demo",
            "roles": [everyone, role],
            "channels": [each.payload() for each in places if each is self.general],
            "threads": [each.payload() for each in places if each.parent_id is not None],
            "members": [{**self.bot.member(), "user": self.bot.user()}],
            "member_count": 3,
        }
        return [("READY", ready), ("GUILD_CREATE", guild)]


def _checked(body: Payload) -> str:
    content = str(body.get("content") or "")
    if not content.strip():
        raise Refused(400, 50006, "Cannot send an empty message")
    if len(content) > _LONGEST:
        raise Refused(400, 50035, f"Must be {_LONGEST} or fewer in length.")
    return content


def _rings(content: str, body: Payload) -> bool:
    """Tell whether a message notifies anybody."""
    if "allowed_mentions" not in body:
        return any(re.search(pattern, content) for pattern in _MENTIONS.values())
    allowed = as_payload(body["allowed_mentions"])
    kinds = as_list(allowed.get("parse"))
    rung = any(re.search(_MENTIONS[str(kind)], content) for kind in kinds)
    return rung or bool(allowed.get("replied_user"))

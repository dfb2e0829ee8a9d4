"""What the server knows: people, a server's channels and roles, messages, and how Discord says it.

Only what the client reads is there; the names are those of Discord's documentation.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias, TypeGuard

__all__ = [
    "DIRECT",
    "EPHEMERAL",
    "TEXT",
    "THREAD",
    "Channel",
    "Payload",
    "Person",
    "Posted",
    "as_list",
    "as_payload",
    "new_id",
    "timestamp",
]

Payload: TypeAlias = dict[str, object]

TEXT, DIRECT, THREAD = 0, 1, 11
"""Kinds of channels."""

EPHEMERAL = 64
"""The flag of a message that only one person sees."""

_EPOCH = 1_420_070_400_000
_MILLISECONDS = 1000
_numbers = count(1)


def new_id() -> int:
    """Return an id as Discord makes them: with the time in it, and never twice."""
    since = int(time.time() * _MILLISECONDS) - _EPOCH
    return since << 22 | next(_numbers) % (1 << 22)


def timestamp() -> str:
    """Return the time as Discord writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def as_payload(value: object) -> Payload:
    """Return an object of a JSON text; an empty one for anything else."""
    return dict(value) if _is_table(value) else {}


def as_list(value: object) -> list[object]:
    """Return an array of a JSON text; an empty one for anything else."""
    return list(value) if _is_array(value) else []


def _is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody, or the bot.

    Attributes:
        id: the id.
        name: the name.
        roles: the ids of the roles that they have on the server.
        bot: whether it's a bot.
    """

    id: int = field(default_factory=new_id)
    name: str
    roles: tuple[int, ...] = ()
    bot: bool = False

    @property
    def mention(self) -> str:
        """How messages mention them."""
        return f"<@{self.id}>"

    def user(self) -> Payload:
        """Return them as a user."""
        return {
            "id": str(self.id),
            "username": self.name,
            "discriminator": "0",
            "global_name": self.name,
            "avatar": None,
            "bot": self.bot,
        }

    def member(self) -> Payload:
        """Return them as a member of a server, without the user."""
        return {
            "roles": [str(each) for each in self.roles],
            "joined_at": timestamp(),
            "deaf": False,
            "mute": False,
            "flags": 0,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A place to write: a channel of a server, a thread, or a conversation with one person.

    Attributes:
        id: the id.
        name: the name.
        kind: what it is.
        guild_id: its server, unless it's a conversation with one person.
        parent_id: the channel that a thread is in.
        owner_id: who has opened a thread.
    """

    id: int = field(default_factory=new_id)
    name: str
    kind: int = TEXT
    guild_id: int | None = None
    parent_id: int | None = None
    owner_id: int | None = None

    def payload(self) -> Payload:
        """Return it as Discord writes it."""
        about: Payload = {"id": str(self.id), "type": self.kind}
        if self.kind == DIRECT:
            return about
        about |= {"name": self.name, "guild_id": str(self.guild_id), "position": 0}
        if self.kind == THREAD:
            about |= {
                "parent_id": str(self.parent_id),
                "owner_id": str(self.owner_id),
                "message_count": 0,
                "member_count": 1,
                "thread_metadata": {
                    "archived": False,
                    "auto_archive_duration": 1440,
                    "archive_timestamp": timestamp(),
                    "locked": False,
                },
            }
        return about


@dataclass(kw_only=True, slots=True)
class Posted:
    """A message.

    Attributes:
        id: the id.
        channel: where it stands.
        author: who wrote it.
        versions: what it said, from the first version to the last.
        components: its rows of buttons, as the bot sent them.
        flags: what kind of message it is.
        rings: whether any version of it notifies anybody.
    """

    id: int = field(default_factory=new_id)
    channel: Channel
    author: Person
    versions: list[str]
    components: list[object] = field(default_factory=list[object])
    flags: int = 0
    rings: bool = False

    @property
    def content(self) -> str:
        """What it says now."""
        return self.versions[-1]

    @property
    def ephemeral(self) -> bool:
        """Whether only one person sees it."""
        return bool(self.flags & EPHEMERAL)

    def buttons(self) -> dict[str, Payload]:
        """Return its buttons by their labels."""
        rows = (as_payload(row).get("components") for row in self.components)
        buttons = [as_payload(each) for row in rows for each in as_list(row)]
        return {str(each.get("label")): each for each in buttons}

    def payload(self, mentioned: Iterable[Person] = ()) -> Payload:
        """Return it as Discord writes it."""
        about: Payload = {
            "id": str(self.id),
            "channel_id": str(self.channel.id),
            "author": self.author.user(),
            "content": self.content,
            "timestamp": timestamp(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [{**each.user(), "member": each.member()} for each in mentioned],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
            "flags": self.flags,
            "components": self.components,
        }
        if self.channel.guild_id is not None:
            about |= {"guild_id": str(self.channel.guild_id), "member": self.author.member()}
        return about

"""The bot's settings, and its token, which is never one of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType

from assistant import AssistantConfig
from llmgine.errors import ConfigurationError

__all__ = ["BotConfig", "DiscordSettings", "token_of"]

_TOKEN = "DISCORD_TOKEN"  # noqa: S105 - the name of the variable
_POSSIBLE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, kw_only=True)
class DiscordSettings:
    """Who may talk to the bot, and for how long it stays in a conversation.

    Ids are what Discord copies with `Copy ID`, once its developer mode is on.

    Attributes:
        guilds: the servers where it answers; none means wherever it was invited.
        roles: who may talk to it there, by role. Neither roles nor users means that all may.
        users: who may talk to it, by name. Where any of the three is given, these alone may in
            direct messages: nobody has a role there.
        idle: seconds after which a conversation where nobody speaks is put away. What was said
            stays in the context store.
    """

    guilds: list[int] = field(default_factory=list[int])
    roles: list[int] = field(default_factory=list[int])
    users: list[int] = field(default_factory=list[int])
    idle: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        if not self.idle > 0:
            raise ConfigurationError(f"idle: expected a number above 0, found {self.idle}")


class BotConfig(AssistantConfig):
    """The application's settings and the bot's own: `[discord]` in settings.toml.

    Attributes:
        discord: who may talk to the bot.
    """

    discord: DiscordSettings = DiscordSettings()

    def __init__(
        self, *, settings_file: str | Path | EllipsisType | None = ..., **values: object
    ) -> None:
        """Read the settings; for type checkers, which would expect a parameter for each group."""
        super().__init__(settings_file=settings_file, **values)


def token_of(config: BotConfig) -> str:
    """Return the bot's token: `DISCORD_TOKEN` of the environment, else of `.env`.

    Raises:
        ConfigurationError: there is none, or it can't be one; the text never holds it.
    """
    given = os.environ.get(_TOKEN) or config.provider.variables.get(_TOKEN, "")
    token = given.strip()
    if not token:
        raise ConfigurationError(
            f"{_TOKEN}: expected the bot's token in the environment or in .env, found none "
            "(apps/discord_bot/README.md says where to get one; --demo needs none)"
        )
    if not _POSSIBLE.fullmatch(token):
        raise ConfigurationError(
            f"{_TOKEN}: expected a token, found characters that no token has, such "
            "as quotes or spaces; copy it again"
        )
    return token

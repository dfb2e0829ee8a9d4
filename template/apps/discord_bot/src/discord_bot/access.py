"""Who may talk to the bot."""

from __future__ import annotations

from discord import Member, User

from discord_bot.config import DiscordSettings

__all__ = ["allows"]


def allows(settings: DiscordSettings, user: User | Member, guild_id: int | None) -> bool:
    """Tell whether a person may talk to the bot there.

    Args:
        settings: the lists; an empty one is no limit.
        user: the person.
        guild_id: the server; `None` in direct messages, where nobody has a role.
    """
    if guild_id is None:
        limited = settings.guilds or settings.roles or settings.users
        return not limited or user.id in settings.users
    if settings.guilds and guild_id not in settings.guilds:
        return False
    if not settings.roles and not settings.users:
        return True
    roles = user.roles if isinstance(user, Member) else ()
    return user.id in settings.users or any(role.id in settings.roles for role in roles)

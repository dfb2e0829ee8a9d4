"""The bot without Discord: a server on this machine that speaks Discord's protocol."""

__all__: list[str] = []

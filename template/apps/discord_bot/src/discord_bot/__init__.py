"""The Discord bot."""

__all__: list[str] = []

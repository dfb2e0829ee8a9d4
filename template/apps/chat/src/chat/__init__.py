"""The terminal chat."""

__all__: list[str] = []

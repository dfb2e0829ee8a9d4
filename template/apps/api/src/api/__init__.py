"""The project over HTTP: an OpenAI-compatible endpoint, sessions with their events, and a page."""

__all__: list[str] = []

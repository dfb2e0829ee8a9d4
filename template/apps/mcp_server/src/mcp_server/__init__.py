"""The project's tools, offered over the Model Context Protocol."""

__all__: list[str] = []

"""Runs of AG-UI, answered by the project's own provider and tools."""

from api.agui.routes import router

__all__ = ["router"]

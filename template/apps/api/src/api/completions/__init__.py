"""OpenAI's chat completions, answered by the project's own provider and tools."""

from api.completions.routes import router

__all__ = ["router"]

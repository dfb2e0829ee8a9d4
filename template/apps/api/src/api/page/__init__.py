"""The page: a chat with a live view of the bus, in a browser, without a build step."""

from api.page.routes import router

__all__ = ["router"]

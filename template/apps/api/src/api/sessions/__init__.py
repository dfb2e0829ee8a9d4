"""Sessions over HTTP: conversations, turns, approvals, and the bus's events as they happen."""

from api.sessions.registry import Sessions
from api.sessions.routes import router

__all__ = ["Sessions", "router"]

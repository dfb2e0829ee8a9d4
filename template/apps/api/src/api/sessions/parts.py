"""What the routes of sessions need, as FastAPI's dependencies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from llmgine.bus.sessions import check_session_id
from llmgine.errors import InvalidSessionIdError

from api.parts import Application
from api.problems import Problem
from api.sessions.catalog import Catalog
from api.sessions.live import LiveSession
from api.sessions.registry import Sessions

__all__ = ["Existing", "Finder", "Registry", "Watched"]


async def _registry(request: Request) -> Sessions:
    return cast("Sessions", request.app.state.sessions)


Registry = Annotated[Sessions, Depends(_registry)]
"""The open sessions."""


async def _finder(app: Application, sessions: Registry) -> Catalog:
    return Catalog(app.context, sessions)


Finder = Annotated[Catalog, Depends(_finder)]
"""Which sessions there are."""


async def _existing(
    session_id: Annotated[str, Path(description="The session's id.")], finder: Finder
) -> str:
    try:
        check_session_id(session_id)
    except InvalidSessionIdError as error:
        raise Problem(message=f"session_id: {error}", param="session_id") from error
    await finder.check(session_id)
    return session_id


Existing = Annotated[str, Depends(_existing)]
"""The id of a session that exists."""


async def _watched(session_id: Existing, sessions: Registry) -> AsyncGenerator[LiveSession, None]:
    async with sessions.used(session_id) as live:
        yield live


Watched = Annotated[LiveSession, Depends(_watched)]
"""A session that exists, open until the answer has gone out."""

"""The web application: its routes, and the application behind them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

import assistant
from fastapi import FastAPI
from llmgine.bootstrap import ApplicationBootstrap
from starlette.middleware import Middleware

from api import agui, completions, docs, health, page, problems, sessions
from api.deadlines import Deadlines, TimeLimit
from api.guard import BodyLimit, CallerTrace, Gate
from api.parts import config_of
from api.settings import ApiConfig

__all__ = ["make_application", "make_web"]


def make_web(app: ApplicationBootstrap | None = None) -> FastAPI:
    """Return the web application; its lifespan starts and stops the application behind it.

    Args:
        app: the application; by default the example's, with settings from everywhere they stand.
            Its config is an `ApiConfig`, and it answers `RunTurn`.
    """
    behind = make_application() if app is None else app

    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncGenerator[None, None]:
        del web
        async with behind, live:
            yield

    settings = config_of(behind).api
    live = sessions.Sessions(behind, settings)
    deadlines = Deadlines(settings.request_timeout, grace=settings.grace)
    web = FastAPI(
        title="llmgine API",
        description="OpenAI's chat completions, AG-UI's runs, and sessions with their events.",
        version=version("api"),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        responses={"4XX": problems.DESCRIPTION, "5XX": problems.DESCRIPTION},
        middleware=[
            Middleware(TimeLimit, deadlines=deadlines),
            Middleware(Gate, settings=settings),
            Middleware(BodyLimit, most=settings.max_body),
            Middleware(CallerTrace, application=behind),
        ],
    )
    web.state.application = behind
    web.state.deadlines = deadlines
    web.state.sessions = live
    problems.install(web)
    web.include_router(page.router)
    web.include_router(health.router)
    web.include_router(docs.router)
    web.include_router(sessions.router)
    web.include_router(completions.router)
    web.include_router(agui.router)
    return web


def make_application(config: ApiConfig | None = None) -> ApplicationBootstrap:
    """Return the example's application: its tools, and `RunTurn` on its bus."""
    chosen = ApiConfig() if config is None else config
    return ApplicationBootstrap(chosen, tools=assistant.toolbox, setup=assistant.register)

"""The web application: its routes, and the application behind them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import assistant
from fastapi import FastAPI
from llmgine.bootstrap import ApplicationBootstrap

from api import problems
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
        async with behind:
            yield

    web = FastAPI(title="llmgine API", lifespan=lifespan)
    web.state.application = behind
    problems.install(web)
    return web


def make_application(config: ApiConfig | None = None) -> ApplicationBootstrap:
    """Return the example's application: its tools, and `RunTurn` on its bus."""
    chosen = ApiConfig() if config is None else config
    return ApplicationBootstrap(chosen, tools=assistant.toolbox, setup=assistant.register)

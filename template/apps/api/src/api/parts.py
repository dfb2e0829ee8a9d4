"""What routes need, as FastAPI's dependencies."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from llmgine.bootstrap import ApplicationBootstrap

from api.deadlines import Deadlines
from api.settings import ApiConfig

__all__ = ["Application", "Config", "OpenRequests", "config_of"]


def config_of(application: ApplicationBootstrap) -> ApiConfig:
    """Return an application's settings, which have a group for this program."""
    config = application.config
    if not isinstance(config, ApiConfig):
        raise TypeError(f"expected an ApiConfig, found {type(config).__name__}")
    return config


# Coroutines all: for plain functions FastAPI takes a thread.
async def _application(request: Request) -> ApplicationBootstrap:
    return cast("ApplicationBootstrap", request.app.state.application)


async def _config(request: Request) -> ApiConfig:
    return config_of(await _application(request))


async def _deadlines(request: Request) -> Deadlines:
    return cast("Deadlines", request.app.state.deadlines)


Application = Annotated[ApplicationBootstrap, Depends(_application)]
"""The application behind a request."""

Config = Annotated[ApiConfig, Depends(_config)]
"""Its settings."""

OpenRequests = Annotated[Deadlines, Depends(_deadlines)]
"""The requests under way; `ending` says whether the server is about to end."""

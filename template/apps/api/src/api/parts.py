"""What routes need, as FastAPI's dependencies."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from llmgine.bootstrap import ApplicationBootstrap

from api.settings import ApiConfig

__all__ = ["Application", "Config"]


def _application(request: Request) -> ApplicationBootstrap:
    return cast("ApplicationBootstrap", request.app.state.application)


def _config(request: Request) -> ApiConfig:
    config = _application(request).config
    if not isinstance(config, ApiConfig):
        raise TypeError(f"expected an ApiConfig, found {type(config).__name__}")
    return config


Application = Annotated[ApplicationBootstrap, Depends(_application)]
"""The application behind a request."""

Config = Annotated[ApiConfig, Depends(_config)]
"""Its settings."""

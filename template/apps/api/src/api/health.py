"""Whether the program is alive, and whether it can do its work."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter, Response
from llmgine.contracts import ContextStore
from pydantic import BaseModel, Field

from api.parts import Application, OpenRequests

__all__ = ["HandlerState", "Health", "Readiness", "router"]

router = APIRouter(tags=["health"])

_SESSION = "readyz"
_LIMIT = 2.0
_UNAVAILABLE = 503

_log = logging.getLogger(__name__)


class Health(BaseModel):
    """That the program answers."""

    status: Literal["ok"] = "ok"


class HandlerState(BaseModel):
    """What became of the events that an observability handler, or its exporter, was given."""

    handler: str
    delivered: int
    dropped: int
    unconfirmed: int
    queued: int


class Readiness(BaseModel):
    """Whether requests can be served; what writes events down has no say in it."""

    status: Literal["ready", "not ready"]
    store: Literal["ok", "failed"] = Field(description="Whether conversations can be read.")
    provider: str = Field(description="Who answers; it isn't called.")
    model: str = Field(description="The model that is asked; empty: the provider's own default.")
    ending: bool = Field(description="Whether the server is about to end.")
    handlers: list[HandlerState]


@router.get("/healthz")
async def healthz() -> Health:
    """Tell that the program is alive."""
    return Health()


@router.get("/readyz", responses={_UNAVAILABLE: {"model": Readiness}})
async def readyz(application: Application, requests: OpenRequests, response: Response) -> Readiness:
    """Tell whether requests can be served: by a read from the store, and no model call."""
    works = await _works(application.context)
    ready = works and not requests.ending
    if not ready:
        response.status_code = _UNAVAILABLE
    reports = application.observability.report().handlers
    return Readiness(
        status="ready" if ready else "not ready",
        store="ok" if works else "failed",
        provider=application.provider.name,
        model=application.config.provider.model,
        ending=requests.ending,
        handlers=[HandlerState(**asdict(each), dropped=each.dropped) for each in reports],
    )


async def _works(store: ContextStore) -> bool:
    try:
        async with asyncio.timeout(_LIMIT):
            await store.get_context(_SESSION, last=1)
    except Exception:  # noqa: BLE001 - whatever a store raises, it can't be read
        # Why is nothing for whoever may ask.
        _log.warning("the context store can't be read", exc_info=True)
        return False
    return True

"""The routes that OpenAI's clients call: answers, and the models that make them."""

from __future__ import annotations

import time
from functools import partial

from fastapi import APIRouter, Request
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from llmgine.contracts.protocols import capabilities_of
from starlette.responses import Response

from api.completions.answering import STREAM, Answering
from api.completions.body import body_of
from api.completions.models import Completion, Model, ModelList
from api.completions.reading import request_of, runs_tools
from api.completions.schema import CompletionRequest
from api.completions.wire import ChunkWriter, completion
from api.parts import Application
from api.problems import Problem

__all__ = ["router"]

_NOT_FOUND = 404
_PATH = "/chat/completions"
_HERE = (
    "#/paths/~1v1~1chat~1completions/post/requestBody/content/application~1json/schema"
    "/$defs/{model}"
)
_REQUEST = {
    "required": True,
    "content": {
        "application/json": {"schema": CompletionRequest.model_json_schema(ref_template=_HERE)}
    },
}

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    _PATH,
    response_model=Completion,
    responses={200: {"content": STREAM, "description": "The answer, whole or in pieces."}},
    openapi_extra={"requestBody": _REQUEST},
)
async def create_completion(request: Request, app: Application) -> Response:
    """Answer a conversation, as OpenAI's chat completions do."""
    asked = await body_of(request, CompletionRequest)
    model = _model_of(app, asked.model)
    provider = app.provider
    usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    session = BusSession(bus=app.bus)
    name, created = f"chatcmpl-{session.session_id}", int(time.time())
    return Answering(
        session,
        request_of(asked, provider.name, capabilities_of(provider)),
        run_tools=runs_tools(asked),
        name=name,
        form=ChunkWriter(name, created, model.id, usage=usage)
        if asked.stream
        else partial(completion, name, created, model.id),
    )


@router.get("/models")
async def list_models(app: Application) -> ModelList:
    """List the models: the one that the settings name, or the provider where they name none."""
    return ModelList(data=[_model(app)])


@router.get("/models/{model:path}")
async def get_model(model: str, app: Application) -> Model:
    """Tell of a model."""
    return _model_of(app, model)


def _model(app: ApplicationBootstrap) -> Model:
    name = app.provider.name
    return Model(id=app.config.provider.model or name, owned_by=name)


def _model_of(app: ApplicationBootstrap, asked: str) -> Model:
    model = _model(app)
    if model.id != asked:
        raise Problem(
            status=_NOT_FOUND,
            message=f"model: there is no {asked[:100]!r} here; `/v1/models` says what there is.",
            param="model",
            code="model_not_found",
        )
    return model

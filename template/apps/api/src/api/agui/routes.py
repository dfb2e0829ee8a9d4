"""The route that AG-UI's clients call: one run of the agent that the project is."""

from __future__ import annotations

from ag_ui.core import RunAgentInput
from fastapi import APIRouter, Request
from llmgine.bus import BusSession
from llmgine.contracts.protocols import capabilities_of
from starlette.responses import Response

from api.agui.reading import request_of
from api.agui.writing import RunWriter
from api.completions.answering import STREAM, Answering
from api.completions.body import body_of
from api.deadlines import set_last_words
from api.parts import Application

__all__ = ["router"]

_HERE = "#/paths/~1agui/post/requestBody/content/application~1json/schema/$defs/{model}"
_REQUEST = {
    "required": True,
    "content": {
        "application/json": {"schema": RunAgentInput.model_json_schema(ref_template=_HERE)}
    },
}

router = APIRouter(tags=["AG-UI"])


@router.post(
    "/agui",
    response_class=Response,
    responses={200: {"content": STREAM, "description": "The events of the run."}},
    openapi_extra={"requestBody": _REQUEST},
)
async def run_agent(request: Request, app: Application) -> Response:
    """Answer a conversation with AG-UI's events; nothing of it is kept.

    Calls of the input's `tools` are left to the caller, and end the run. Without any, the server's
    own are run here, but for those that need a person's approval.
    """
    asked = await body_of(request, RunAgentInput)
    able, prompt = capabilities_of(app.provider), app.config.provider.system_prompt
    session, writer = BusSession(bus=app.bus), RunWriter(asked)
    set_last_words(writer.failed)
    return Answering(
        session,
        request_of(asked, able, prompt=prompt),
        run_tools=True,
        name=f"run {session.session_id}",
        form=writer,
    )

"""The servers that `api.py` compares: the project's API, and a bare FastAPI endpoint beside it.

    python -P api_servers.py ours|written|bare TEXT

serves one of them, which answers with that text, at a free port of 127.0.0.1, and prints its URL.
(`-P`, since this folder has an `api` of its own.)
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import assistant
import uvicorn
from api.settings import ApiConfig
from api.web import make_web
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import LLMRequest
from llmgine.providers.scripted import ScriptedProvider
from pydantic import BaseModel
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["serve"]

_ANSWERS = 1_000_000


class _Message(BaseModel):
    role: str
    content: str


class _Request(BaseModel):
    model: str
    messages: list[_Message]
    stream: bool = False


def _ours(text: str, folder: Path, *, written: bool) -> FastAPI:
    """Return the project's API; the provider answers at once, word by word."""

    def said(request: LLMRequest) -> str:
        del request
        return text

    config = ApiConfig(
        settings_file=None,
        console={"enabled": False},
        file={"enabled": written, "path": str(folder / "events.jsonl")},
    )
    application = ApplicationBootstrap(
        config,
        bus=MessageBus.isolated(),
        provider=ScriptedProvider([said] * _ANSWERS),
        tools=assistant.toolbox,
        setup=assistant.register,
    )
    return make_web(application)


def _bare(text: str) -> FastAPI:
    """Return what FastAPI's documentation shows: a body that is checked, and what is yielded."""
    web = FastAPI()
    first, *others = text.split()
    words = [first, *(f" {word}" for word in others)]

    @web.post("/plain/chat/completions")
    async def plain(request: _Request) -> dict[str, object]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**_about(request.model), "choices": [choice]}

    @web.post("/streamed/chat/completions", response_class=EventSourceResponse)
    async def streamed(request: _Request) -> AsyncIterator[dict[str, object]]:
        about = _about(request.model)
        for word in words:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            yield {**about, "choices": [choice]}
        yield {**about, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

    del plain, streamed
    return web


def _about(model: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}


def _clocked(web: FastAPI) -> ASGIApp:
    """Return an application that also tells the CPU time of this process, at `/clock`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/clock":
            await PlainTextResponse(str(time.process_time_ns()))(scope, receive, send)
        else:
            await web(scope, receive, send)

    return answer


async def serve(web: FastAPI) -> None:
    """Serve at a free port, and print the URL."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        sys.stdout.write(f"http://127.0.0.1:{place.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            _clocked(web), access_log=False, log_config=None, timeout_keep_alive=600, ws="none"
        )
        await uvicorn.Server(config).serve([place])


def main() -> None:
    """Serve what the command line names."""
    name, text = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        web = (
            _bare(text) if name == "bare" else _ours(text, Path(folder), written=name == "written")
        )
        asyncio.run(serve(web))


if __name__ == "__main__":
    main()

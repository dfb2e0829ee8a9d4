"""The probes, and the documentation page."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from llmgine.context.memory import InMemoryContextStore
from llmgine.contracts import ChatMessage, Event
from llmgine.observability import ObservabilityEventHandler
from llmgine.providers.scripted import ScriptedProvider


class BrokenStore(InMemoryContextStore):
    """A store whose database has gone."""

    async def get_context(self, session_id: str, *, last: int | None = None) -> list[ChatMessage]:
        raise ConnectionResetError("postgres://user:secret@db is gone")


class BrokenHandler(ObservabilityEventHandler):
    """A handler that fails at everything."""

    def handle(self, event: Event) -> None:
        raise RuntimeError("no collector")


StartClient = Callable[..., Awaitable[httpx2.AsyncClient]]


async def test_the_program_is_alive(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readiness_asks_the_store_and_no_model(start_client: StartClient) -> None:
    provider = ScriptedProvider(script=[])  # a call would be an error
    client = await start_client(provider=provider)
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "store": "ok",
        "provider": "scripted",
        "model": "",
        "ending": False,
        "handlers": [],
    }


async def test_a_store_that_can_t_be_read_is_not_ready_and_tells_no_secret(
    start_client: StartClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await start_client(context=BrokenStore())
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["store"]) == ("not ready", "failed")
    assert "secret" not in answer.text
    assert "the context store can't be read" in caplog.text
    assert (await client.get("/healthz")).status_code == 200


async def test_handlers_that_fail_show_and_change_nothing(start_client: StartClient) -> None:
    client = await start_client(handlers=[BrokenHandler()])
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert [each["handler"] for each in answer.json()["handlers"]] == ["BrokenHandler"]


async def test_the_documentation_names_every_route_and_loads_nothing(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/docs")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    routes = (await client.get("/openapi.json")).json()["paths"]
    assert {"/healthz", "/readyz"} <= routes.keys()
    for path, methods in routes.items():
        for method in methods:
            assert f"{method.upper()} {path}" in answer.text
    assert not re.search(r"<script|<link|src=|@import|url\(", answer.text)

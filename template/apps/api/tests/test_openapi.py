"""The description of the routes: complete, and true of what is refused."""

from __future__ import annotations

import json
import re

import httpx2


async def test_every_route_is_described_with_its_errors(client: httpx2.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.")
    schemas = description["components"]["schemas"]
    operations = [
        (path, method, each)
        for path, methods in description["paths"].items()
        for method, each in methods.items()
    ]
    assert {"/v1/chat/completions", "/v1/models", "/sessions", "/healthz", "/readyz"} <= {
        path for path, _, _ in operations
    }
    for path, method, each in operations:
        assert each["description"], f"{method} {path} says nothing of itself"
        statuses = each["responses"].keys()
        assert "422" not in statuses, f"{method} {path}: what is wrong is 400"
        assert "4XX" in statuses
        assert any(status.startswith("2") for status in statuses)
    references = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(description))
    assert "ErrorBody" in references
    assert set(references) <= schemas.keys()


async def test_wrong_bodies_are_400_in_openai_s_shape(client: httpx2.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    session = (await client.post("/sessions")).json()["id"]
    wrong = (
        b"",
        b"no json",
        b"[1]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"a": 1e999}',
        b"[" * 100_000,
        b'{"text": "\\ud800", "title": 7, "messages": [{"role": 7}], "approved": []}',
    )
    tried = 0
    for path, methods in description["paths"].items():
        for method in methods:
            if not methods[method].get("requestBody", {}).get("required"):
                continue
            url = path.replace("{session_id}", session)
            for body in wrong:
                answer = await client.request(
                    method, url, content=body, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code in {400, 404}, (method, path, body[:40])
                assert answer.json()["error"]["message"]
                tried += 1
    assert tried

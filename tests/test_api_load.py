"""The API under load: 200 streamed conversations at once, none mixed up, nothing kept of them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import httpx2
import pytest

from tests.api_program import running_api

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

# Says back what it hears, in a few pieces with pauses, so that answers come in turns.
PROVIDER = """
from llmgine.providers.scripted import ScriptedProvider

def echo(config):
    def said(request):
        provider.requests.clear()  # which a double keeps, and a provider doesn't
        return f"You said: {request.messages[-1].text}."

    provider = ScriptedProvider([said] * 100_000, delay=0.02)
    return provider
"""
Hold: TypeAlias = Callable[[httpx2.AsyncClient, str], Awaitable[None]]

AT_ONCE = 200
ROUNDS = 2
MOST_KEPT = 6 * 1024 * 1024  # 15 KB of each conversation would be something that is kept


async def events(answer: httpx2.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def completed(client: httpx2.AsyncClient, messages: list[dict[str, str]]) -> str:
    """Return the answer to a conversation, streamed from the OpenAI-compatible endpoint."""
    body = {"model": "scripted", "messages": messages, "stream": True}
    text = ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        async for data in events(answer):
            if data == "[DONE]":
                return text
            for choice in json.loads(data)["choices"]:
                text += choice["delta"].get("content") or ""
    raise AssertionError("the stream has no end")


async def conversation(client: httpx2.AsyncClient, name: str) -> None:
    """Hold a conversation of two turns, whose history the client keeps."""
    messages: list[dict[str, str]] = []
    for turn in range(2):
        marker = f"marker-{name}-{turn}-end"
        messages.append({"role": "user", "content": f"Say {marker}"})
        text = await completed(client, messages)
        assert marker in text
        assert text.count("marker-") == text.count(marker), "another conversation's words"
        messages.append({"role": "assistant", "content": text})


async def session(client: httpx2.AsyncClient, name: str) -> None:
    """Hold a conversation that the server keeps, watch its events, and have it forgotten."""
    url = f"/sessions/{(await client.post('/sessions')).json()['id']}"
    marker = f"marker-{name}-end"
    async with client.stream("GET", f"{url}/events") as feed:
        started = await client.post(f"{url}/turns", json={"text": f"Say {marker}"})
        assert started.status_code == 202
        heard = [data async for data in _until_ended(feed)]
    assert any(marker in data for data in heard)
    assert all(data.count("marker-") == data.count(marker) for data in heard)
    messages = (await client.get(f"{url}/messages")).json()["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant"]
    assert all(marker in json.dumps(each) for each in messages)
    assert (await client.delete(url)).status_code == 204


async def _until_ended(feed: httpx2.Response) -> AsyncIterator[str]:
    async for data in events(feed):
        yield data
        if "turn_id" in json.loads(data):
            return


def memory(process_id: int) -> int:
    """Return the bytes of memory that a process has in use."""
    lines = Path(f"/proc/{process_id}/status").read_text("utf-8").splitlines()
    (line,) = (each for each in lines if each.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("hold", [conversation, session])
async def test_many_at_once_keep_apart_and_leave_nothing(tmp_path: Path, hold: Hold) -> None:
    (tmp_path / "theirs.py").write_text(PROVIDER)
    with running_api(tmp_path, "--provider", "theirs:echo") as api:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx2.AsyncClient(
            base_url=api.url, trust_env=False, timeout=120, limits=limits
        ) as client:

            async def each(number: int) -> None:
                await asyncio.gather(
                    *(hold(client, f"{number}-{place}") for place in range(AT_ONCE))
                )

            await each(0)  # what is made once is made now
            before = memory(api.process.pid)
            for number in range(1, 1 + ROUNDS):
                await each(number)
            kept = memory(api.process.pid) - before
            assert (await client.get("/readyz")).json()["status"] == "ready"
    assert kept < MOST_KEPT, f"{kept / AT_ONCE / ROUNDS:,.0f} bytes of each conversation"
    assert "Traceback" not in api.errors.read_text()

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api.sessions import Sessions
from assistant.files import FileReader
from fastapi import FastAPI
from llmgine.bootstrap import ApplicationConfig
from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    Publisher,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from llmgine.providers.scripted import ScriptedProvider
from llmgine.settings import ToolSettings
from llmgine.tools import ToolManager

Start = Callable[..., Coroutine[Any, Any, Any]]

CALL = ToolCall(id="call/1 ü", name="read_file", arguments='{"path": "notes.txt"}')


def seen(request: LLMRequest) -> str:
    """Answer with what the model is told about its call."""
    return "".join(each.text for each in request.messages[-1].tool_results)


class Asked:
    """A session in which the model has asked for a file, and a person hasn't answered."""

    def __init__(self, client: httpx2.AsyncClient, web: FastAPI, session_id: str) -> None:
        self.client = client
        self.sessions: Sessions = web.state.sessions
        self.id = session_id
        self.path = f"/sessions/{session_id}"

    async def ask(self) -> None:
        answer = await self.client.post(f"{self.path}/turns", json={"text": "Read my notes."})
        assert answer.status_code == 202
        await self.heard("ToolApprovalRequestedEvent")

    async def heard(self, kind: str, times: int = 1) -> dict[str, Any]:
        """Wait for an event, and return its data."""
        live = self.sessions.live(self.id)
        assert live is not None
        async for entry in live.log.watch("0"):
            times -= entry.kind == kind
            if times == 0:
                data: dict[str, Any] = json.loads(entry.data)
                return data
        raise AssertionError(f"no {kind}")

    async def waiting(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get(f"{self.path}/approvals")).json()[
            "approvals"
        ]
        session = (await self.client.get(self.path)).json()
        assert session["approvals"] == len(found)
        return found

    async def answer(self, call_id: str = CALL.id, **answer: Any) -> httpx2.Response:
        return await self.client.post(f"{self.path}/approvals/{call_id}", json=answer)

    async def said(self) -> str:
        """Return the turn's last words."""
        assert (await self.heard("TurnEnded"))["status"] == "ok"
        messages = (await self.client.get(f"{self.path}/messages")).json()["messages"]
        text: str = messages[-1]["parts"][0]["text"]
        return text


@pytest.fixture
def start_asked(start_web: Start, start_client: Start, tmp_path: Path) -> Start:
    """A function that starts an application whose model wants to read a file."""
    (tmp_path / "notes.txt").write_text("Buy milk.")

    async def start(**settings: Any) -> Asked:
        script = [ChatMessage.assistant(CALL), seen] * 2
        web = await start_web(
            provider=ScriptedProvider(script), assistant={"folder": tmp_path}, **settings
        )
        client = await start_client(web)
        asked = Asked(client, web, (await client.post("/sessions")).json()["id"])
        await asked.ask()
        return asked

    return start


async def test_a_call_waits_and_runs_once_it_is_approved(start_asked: Start) -> None:
    asked = await start_asked()
    (waiting,) = await asked.waiting()
    assert waiting.pop("expires_at") > time.time()
    assert waiting == {"call_id": CALL.id, "name": CALL.name, "arguments": CALL.arguments}
    answer = await asked.answer(approved=True)
    assert (answer.status_code, answer.json()) == (200, {"approved": True, "reason": ""})
    assert await asked.waiting() == []
    assert "Buy milk." in await asked.said()
    resolved = await asked.heard("ToolApprovalResolvedEvent")
    assert (resolved["call"]["id"], resolved["approved"]) == (CALL.id, True)


async def test_a_call_that_is_denied_is_not_run_and_the_model_hears_why(start_asked: Start) -> None:
    asked = await start_asked()
    answer = await asked.answer(approved=False, reason="those are private")
    assert answer.status_code == 200
    said = await asked.said()
    assert "those are private" in said
    assert "Buy milk." not in said


async def test_a_call_is_answered_once(start_asked: Start) -> None:
    asked = await start_asked()
    answers = await asyncio.gather(*(asked.answer(approved=n % 2 == 0) for n in range(8)))
    codes = [each.status_code for each in answers]
    assert (codes.count(200), codes.count(404)) == (1, 7)
    assert ("Buy milk." in await asked.said()) == (codes.index(200) % 2 == 0)
    late = await asked.answer(approved=True)
    assert late.status_code == 404
    assert "waits for approval" in late.json()["error"]["message"]
    await asked.ask()  # the same id once more, in another turn
    await asked.heard("ToolApprovalRequestedEvent", 2)
    assert (await asked.answer(approved=False)).status_code == 200


async def test_only_the_call_that_waits_can_be_answered(start_asked: Start) -> None:
    asked = await start_asked()
    other = (await asked.client.post("/sessions")).json()["id"]
    async with asked.sessions.used(other):
        path = f"/sessions/{other}/approvals/{CALL.id}"
        assert (await asked.client.post(path, json={"approved": True})).status_code == 404
    for name in ("other", "call", "%00", "x" * 5000, ".."):
        assert (await asked.answer(name, approved=True)).status_code in {404, 405}
    assert len(await asked.waiting()) == 1
    assert (await asked.answer(approved=False)).status_code == 200


async def test_a_turn_that_is_stopped_asks_no_more(start_asked: Start) -> None:
    asked = await start_asked()
    assert (await asked.client.delete(f"{asked.path}/turns")).status_code == 202
    assert (await asked.heard("TurnEnded"))["status"] == "cancelled"
    assert await asked.waiting() == []
    assert (await asked.answer(approved=True)).status_code == 404


async def test_an_answer_that_comes_with_the_session_s_end_finds_nothing(
    start_asked: Start,
) -> None:
    asked = await start_asked()
    live = asked.sessions.live(asked.id)
    assert live is not None
    assert (await asked.client.delete(asked.path)).status_code == 204
    assert not await live.resolve(CALL.id, approved=True, reason="")
    assert (await asked.answer(approved=True)).status_code == 404


async def test_tools_that_never_ask_have_nothing_to_answer(
    start_web: Start, start_client: Start
) -> None:
    class Tools:
        def get_tools(self, *, strict: bool = False) -> list[ToolDefinition]:
            return []

        async def execute_tool_call(self, call: ToolCall) -> ToolResult:
            raise NotImplementedError

    web = await start_web(tools=Tools())
    client = await start_client(web)
    asked = Asked(client, web, (await client.post("/sessions")).json()["id"])
    async with asked.sessions.used(asked.id):
        assert (await asked.answer(approved=True)).status_code == 404


async def test_a_call_that_nobody_answers_runs_out(start_asked: Start) -> None:
    def tools(_: ApplicationConfig, *, publisher: Publisher) -> ToolManager:
        manager = ToolManager(publisher=publisher, settings=ToolSettings(approval_timeout=0.05))
        manager.register_tool(FileReader(Path()).read_file, needs_approval=True)
        return manager

    asked = await start_asked(tools=tools)
    assert "in time" in await asked.said()
    assert await asked.waiting() == []


async def test_a_session_in_which_a_call_waits_is_not_let_go(start_asked: Start) -> None:
    asked = await start_asked(api={"session_idle": 0.01})
    live = asked.sessions.live(asked.id)
    await asyncio.sleep(0.05)
    assert asked.sessions.live(asked.id) is live
    assert (await asked.answer(approved=False)).status_code == 200

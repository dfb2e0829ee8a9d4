from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

import assistant
import httpx2
import pytest
from api.sessions import Sessions, registry
from api.settings import ApiConfig
from api.web import make_web
from fastapi import FastAPI
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession, MessageBus
from llmgine.context import InMemoryContextStore
from llmgine.contracts import (
    ChatMessage,
    Event,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    MediaPart,
    OpaquePart,
    RefusalPart,
    StreamStart,
    TextDelta,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.errors import RateLimitError
from llmgine.observability import ObservabilityEventHandler
from llmgine.providers.scripted import ScriptedProvider

Start = Callable[..., Coroutine[Any, Any, Any]]


class Held:
    """A provider that begins to answer, and doesn't end before the test wants it to."""

    name = "held"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        yield StreamStart(id="1", model="held", provider="held")
        yield TextDelta(text="Half an answer")
        self.asked.set()
        await self.go_on.wait()
        async for chunk in ScriptedProvider([" and the rest."]).stream(request):
            if not isinstance(chunk, StreamStart):
                yield chunk


class Plain:
    """A store with the four methods of every store, and no other."""

    def __init__(self) -> None:
        self._store = InMemoryContextStore()

    async def add_message(self, session_id: str, message: ChatMessage) -> None:
        await self._store.add_message(session_id, message)

    async def add_messages(
        self,
        session_id: str,
        messages: Sequence[ChatMessage],
        *,
        expected_version: int | None = None,
    ) -> int:
        return await self._store.add_messages(
            session_id, messages, expected_version=expected_version
        )

    async def get_context(self, session_id: str, *, last: int | None = None) -> list[ChatMessage]:
        return await self._store.get_context(session_id, last=last)

    async def clear_context(self, session_id: str) -> None:
        await self._store.clear_context(session_id)


def sessions_of(web: FastAPI) -> Sessions:
    sessions: Sessions = web.state.sessions
    return sessions


async def ended(web: FastAPI, session_id: str, turn_id: str) -> str:
    """Wait for a turn's end, and return what is told of it."""
    live = sessions_of(web).live(session_id)
    assert live is not None
    async for entry in live.log.watch("0"):
        if entry.kind == "TurnEnded" and turn_id in entry.data:
            return entry.data
    raise AssertionError("the session ended before its turn")


async def made(client: httpx2.AsyncClient) -> str:
    answer = await client.post("/sessions")
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def said(client: httpx2.AsyncClient, web: FastAPI, session_id: str, text: str) -> str:
    """Have a turn, and return what is told of its end."""
    answer = await client.post(f"/sessions/{session_id}/turns", json={"text": text})
    assert answer.status_code == 202, answer.text
    return await ended(web, session_id, answer.json()["turn_id"])


def wrong(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """Return what was wrong, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# -- What there is


async def test_a_new_session_is_empty_and_listed(client: httpx2.AsyncClient) -> None:
    before = time.time()
    answer = await client.post("/sessions", json={})
    session = answer.json()
    assert before - 1 <= session.pop("created_at") <= session.pop("updated_at") <= time.time() + 1
    session_id = session.pop("id")
    assert session == {"title": "", "messages": 0, "running": False, "approvals": 0}
    assert (await client.get(f"/sessions/{session_id}")).json()["id"] == session_id
    listed = (await client.get("/sessions")).json()
    assert [each["id"] for each in listed["sessions"]] == [session_id]
    assert listed["next"] is None
    assert (await client.get("/sessions?after=")).json() == listed
    messages = await client.get(f"/sessions/{session_id}/messages")
    assert messages.json() == {"messages": [], "version": 0}


async def test_a_turn_gives_a_session_its_title(start_web: Start, start_client: Start) -> None:
    web = await start_web(provider=ScriptedProvider(["Hello!"]))
    client = await start_client(web)
    session_id = await made(client)
    text = "  What\n\tis\x07 this,  please? " + "and so on " * 20
    await said(client, web, session_id, text)
    session = (await client.get(f"/sessions/{session_id}")).json()
    assert session["title"] == "What is this, please? and so on and so on and so on and so…"
    assert len(session["title"]) <= 60
    assert (session["messages"], session["running"]) == (2, False)
    found = (await client.get(f"/sessions/{session_id}/messages")).json()
    assert found == {
        "messages": [
            {"role": "user", "parts": [{"type": "text", "text": text}]},
            {"role": "assistant", "parts": [{"type": "text", "text": "Hello!"}]},
        ],
        "version": 2,
    }


@pytest.mark.parametrize("store", [InMemoryContextStore, Plain])
async def test_the_list_comes_in_pages_the_newest_first(
    start_web: Start, start_client: Start, store: type[Any]
) -> None:
    web = await start_web(context=store(), provider=ScriptedProvider(["a"] * 9))
    client = await start_client(web)
    ids = [await made(client) for _ in range(7)]
    for session_id in ids[::2]:
        await said(client, web, session_id, f"I am {session_id}")
    expected = [*reversed(ids[::2]), *reversed(ids[1::2])]
    found: list[dict[str, Any]] = []
    query = ""
    while True:
        page = (await client.get(f"/sessions?limit=3{query}")).json()
        found += page["sessions"]
        assert len(page["sessions"]) <= 3
        if page["next"] is None:
            break
        query = f"&after={quote(page['next'])}"
    assert [each["id"] for each in found] == expected
    assert [each["messages"] for each in found] == [2] * 4 + [0] * 3
    assert found[0]["title"] == f"I am {ids[6]}"
    assert all(each["updated_at"] >= each["created_at"] > 0 for each in found)


async def test_conversations_of_others_are_found_in_the_store(
    start_web: Start, start_client: Start
) -> None:
    store = InMemoryContextStore()
    for name in ("from-the-terminal", "a/b", "..", "two\nlines", "ünï 1"):
        await store.add_message(name, ChatMessage.user(f"this is {name}"))
    client = await start_client(await start_web(context=store))
    found = {each["id"] for each in (await client.get("/sessions")).json()["sessions"]}
    assert found == {"from-the-terminal", "ünï 1"}  # what a path can't name is left out
    for name in found:
        session = (await client.get(f"/sessions/{quote(name)}")).json()
        assert (session["id"], session["title"]) == (name, f"this is {name}")


async def test_a_store_that_lists_nothing_still_has_its_conversations(
    start_web: Start, start_client: Start
) -> None:
    store = Plain()
    await store.add_messages("old", [ChatMessage.system("x"), ChatMessage.user("Once")])
    client = await start_client(await start_web(context=store))
    assert (await client.get("/sessions")).json()["sessions"] == []
    assert (await client.get("/sessions/old")).json() == {
        "id": "old",
        "title": "Once",
        "created_at": None,
        "updated_at": None,
        "messages": 2,
        "running": False,
        "approvals": 0,
    }
    wrong(await client.get("/sessions/new"), 404)


async def test_every_kind_of_part_is_shown(start_web: Start, start_client: Start) -> None:
    store = InMemoryContextStore()
    result = ToolResult(tool_call_id="1", name="look", content="seen", is_error=True)
    parts = (
        ThinkingPart(text="hm"),
        ToolCall(id="1", name="look", arguments='{"a":'),
        RefusalPart(text="no"),
        MediaPart(kind="image", url="https://example.org/x.png"),
        OpaquePart(provider="p", data={}),
    )
    await store.add_message("s", ChatMessage.user("half: \ud83d"))
    await store.add_message("s", ChatMessage(role="assistant", parts=parts))
    await store.add_message("s", ChatMessage.tool(result))
    client = await start_client(await start_web(context=store))
    found = (await client.get("/sessions/s/messages")).json()
    assert found["version"] == 3
    assert [part for message in found["messages"] for part in message["parts"]] == [
        {"type": "text", "text": r"half: \ud83d"},
        {"type": "thinking", "text": "hm"},
        {"type": "tool_call", "id": "1", "name": "look", "arguments": '{"a":'},
        {"type": "text", "text": "no"},
        {"type": "other", "kind": "image"},
        {"type": "other", "kind": "opaque"},
        {
            "type": "tool_result",
            "tool_call_id": "1",
            "name": "look",
            "text": "seen",
            "is_error": True,
        },
    ]
    assert (await client.get("/sessions/s")).json()["title"] == "half:"


async def test_a_fork_goes_its_own_way(start_web: Start, start_client: Start) -> None:
    web = await start_web(provider=ScriptedProvider(["one", "two", "three"]))
    client = await start_client(web)
    first = await made(client)
    for text in ("a", "b"):
        await said(client, web, first, text)
    whole = (await client.post(f"/sessions/{first}/fork")).json()
    half = (await client.post(f"/sessions/{first}/fork", json={"at": 2})).json()
    none = (await client.post(f"/sessions/{first}/fork", json={"at": 0})).json()
    assert [each["messages"] for each in (whole, half, none)] == [4, 2, 0]
    await said(client, web, half["id"], "c")
    texts: list[list[str]] = []
    for session_id in (first, whole["id"], half["id"], none["id"]):
        found = (await client.get(f"/sessions/{session_id}/messages")).json()["messages"]
        texts.append([each["parts"][0]["text"] for each in found])
    assert texts == [["a", "one", "b", "two"]] * 2 + [["a", "one", "c", "three"], []]
    error = wrong(await client.post(f"/sessions/{first}/fork", json={"at": 5}), 400)
    assert error["param"] == "at"
    assert "up to 4, found 5" in error["message"]


async def test_clearing_keeps_the_session_and_deleting_does_not(
    start_web: Start, start_client: Start
) -> None:
    web = await start_web(provider=ScriptedProvider(["one", "two"]))
    client = await start_client(web)
    session_id = await made(client)
    await said(client, web, session_id, "a")
    assert (await client.delete(f"/sessions/{session_id}/messages")).status_code == 204
    session = (await client.get(f"/sessions/{session_id}")).json()
    assert (session["messages"], session["title"]) == (0, "")
    await said(client, web, session_id, "b")
    assert (await client.delete(f"/sessions/{session_id}")).status_code == 204
    for method, path in (
        ("GET", ""),
        ("GET", "/messages"),
        ("GET", "/events"),
        ("GET", "/approvals"),
        ("DELETE", ""),
        ("DELETE", "/turns"),
        ("DELETE", "/messages"),
        ("POST", "/fork"),
    ):
        wrong(await client.request(method, f"/sessions/{session_id}{path}"), 404)
    wrong(await client.post(f"/sessions/{session_id}/turns", json={"text": "c"}), 404)
    assert (await client.get("/sessions")).json() == {"sessions": [], "next": None}


async def test_a_conversation_outlives_the_program() -> None:
    store = InMemoryContextStore()
    quiet: dict[str, Any] = {"console": {"enabled": False}, "file": {"enabled": False}}
    session_id = ""
    for answer in ("one", "two"):
        app = ApplicationBootstrap(
            ApiConfig(settings_file=None, **quiet),
            bus=MessageBus.isolated(),
            context=store,
            provider=ScriptedProvider([answer]),
            setup=assistant.register,
        )
        web = make_web(app)
        transport = httpx2.ASGITransport(web)
        async with (
            web.router.lifespan_context(web),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            session_id = session_id or await made(client)
            await said(client, web, session_id, "hello")
            last = (await client.get(f"/sessions/{session_id}")).json()
    assert (last["messages"], last["title"]) == (4, "hello")


# -- Turns


async def test_one_turn_at_a_time(start_web: Start, start_client: Start) -> None:
    provider = Held()
    web = await start_web(provider=provider)
    client = await start_client(web)
    session_id = await made(client)
    path = f"/sessions/{session_id}/turns"
    answers = await asyncio.gather(*(client.post(path, json={"text": f"{n}"}) for n in range(9)))
    (started,) = (each.json()["turn_id"] for each in answers if each.status_code == 202)
    for each in answers:
        if each.status_code != 202:
            error = wrong(each, 409)
            assert error["code"] == "turn_running"
            assert started in error["message"]
    await provider.asked.wait()
    session = (await client.get(f"/sessions/{session_id}")).json()
    assert session["running"] is True
    assert session["title"] in "012345678"
    error = wrong(await client.delete(f"/sessions/{session_id}/messages"), 409)
    assert started in error["message"]
    provider.go_on.set()
    assert '"status":"ok"' in await ended(web, session_id, started)
    assert '"status":"ok"' in await said(client, web, session_id, "again")
    texts = [
        each["parts"][0]["text"]
        for each in (await client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    ]
    assert texts[1::2] == ["Half an answer and the rest."] * 2


async def test_a_turn_can_be_stopped(start_web: Start, start_client: Start) -> None:
    provider = Held()
    web = await start_web(provider=provider)
    client = await start_client(web)
    session_id = await made(client)
    path = f"/sessions/{session_id}/turns"
    wrong(await client.delete(path), 404)
    turn = (await client.post(path, json={"text": "go"})).json()
    await provider.asked.wait()
    stopped = await client.delete(path)
    assert (stopped.status_code, stopped.json()) == (202, turn)
    told = await ended(web, session_id, turn["turn_id"])
    assert '"status":"cancelled","error":null' in told
    wrong(await client.delete(path), 404)
    found = (await client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    assert [each["parts"][0]["text"] for each in found] == ["go", "Half an answer"]
    provider.go_on.set()
    assert '"status":"ok"' in await said(client, web, session_id, "again")


async def test_a_turn_that_is_stopped_before_it_began_has_an_end(
    start_web: Start, start_client: Start
) -> None:
    web = await start_web()
    client = await start_client(web)
    session_id = await made(client)
    async with sessions_of(web).used(session_id) as live:
        turn_id = live.start_turn("go")
        assert live.stop_turn() is not None
        assert '"status":"cancelled"' in await ended(web, session_id, turn_id)
    assert (await client.get(f"/sessions/{session_id}")).json()["messages"] == 0


async def test_a_turn_that_fails_says_why_and_leaves_the_session_usable(
    start_web: Start, start_client: Start
) -> None:
    secret = "sk-proj-" + "a1B2" * 10
    script = [RateLimitError(f"too many of {secret}"), "Hello!"]
    web = await start_web(provider=ScriptedProvider(script))
    client = await start_client(web)
    session_id = await made(client)
    told = await said(client, web, session_id, "go")
    assert '"status":"error","error":{"type":"RateLimitError","message":"too many of ' in told
    assert secret not in told
    assert '"usage":null' in told
    assert (await client.get(f"/sessions/{session_id}")).json()["messages"] == 0
    told = await said(client, web, session_id, "go")
    assert '"usage":{"input_tokens":' in told
    assert (await client.get(f"/sessions/{session_id}")).json()["messages"] == 2


class Joining(ObservabilityEventHandler):
    """A handler that follows other processes' traces."""

    inside: ContextVar[str] = ContextVar("inside", default="no trace")

    def handle(self, event: Event) -> None:
        pass

    def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
        token = self.inside.set(carried["traceparent"])
        return lambda: self.inside.reset(token)


async def test_a_turn_belongs_to_the_trace_of_who_asked_for_it(
    start_web: Start, start_client: Start
) -> None:
    def whose(_: LLMRequest) -> str:
        return Joining.inside.get()

    web = await start_web(provider=ScriptedProvider([whose] * 2), handlers=[Joining()])
    client = await start_client(web)
    session_id = await made(client)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.headers["traceparent"] = trace
    await said(client, web, session_id, "a")
    del client.headers["traceparent"]
    await said(client, web, session_id, "b")
    found = (await client.get(f"/sessions/{session_id}/messages")).json()["messages"]
    assert [each["parts"][0]["text"] for each in found] == ["a", trace, "b", "no trace"]


async def test_deleting_a_session_stops_its_turn(start_web: Start, start_client: Start) -> None:
    provider = Held()
    web = await start_web(provider=provider)
    client = await start_client(web)
    session_id = await made(client)
    await client.post(f"/sessions/{session_id}/turns", json={"text": "go"})
    await provider.asked.wait()
    assert (await client.delete(f"/sessions/{session_id}")).status_code == 204
    wrong(await client.get(f"/sessions/{session_id}"), 404)
    assert (await client.get("/sessions")).json()["sessions"] == []


async def test_the_end_of_the_program_keeps_what_was_said(bus: MessageBus) -> None:
    store, provider = InMemoryContextStore(), Held()
    quiet: dict[str, Any] = {"console": {"enabled": False}, "file": {"enabled": False}}
    config = ApiConfig(settings_file=None, **quiet)
    app = ApplicationBootstrap(
        config, bus=bus, context=store, provider=provider, setup=assistant.register
    )
    web = make_web(app)
    async with web.router.lifespan_context(web):
        sessions_of(web).note("s")
        async with sessions_of(web).used("s") as live:
            live.start_turn("go")
        await provider.asked.wait()
    assert [each.text for each in await store.get_context("s")] == ["go", "Half an answer"]
    kinds = [entry.kind async for entry in live.log.watch("0")]
    assert kinds[-2:] == ["TurnEnded", "SessionEndEvent"]


async def test_a_program_that_ends_takes_no_turn(start_web: Start, start_client: Start) -> None:
    web = await start_web()
    client = await start_client(web)
    session_id = await made(client)
    async with sessions_of(web):
        pass
    sessions_of(web).note(session_id)
    error = wrong(await client.post(f"/sessions/{session_id}/turns", json={"text": "a"}), 503)
    assert error["code"] == "stopping"


# -- Life


async def test_a_session_that_nobody_uses_is_let_go(start_web: Start, start_client: Start) -> None:
    provider = ScriptedProvider(["one", "two"])
    web = await start_web(provider=provider, api={"session_idle": 0.02})
    client = await start_client(web)
    session_id = await made(client)
    await client.post(f"/sessions/{session_id}/turns", json={"text": "a"})
    live = sessions_of(web).live(session_id)
    assert live is not None
    async with sessions_of(web).used(session_id):
        await asyncio.sleep(0.1)
        assert sessions_of(web).live(session_id) is live  # somebody watches
    await live.task
    assert sessions_of(web).live(session_id) is None
    assert (await client.get(f"/sessions/{session_id}")).json()["messages"] == 2
    assert web.state.application.bus.stats().sessions == 0
    await said(client, web, session_id, "b")


async def test_a_session_that_closes_is_waited_for(start_web: Start, start_client: Start) -> None:
    web = await start_web()
    client = await start_client(web)
    session_id = await made(client)
    sessions = sessions_of(web)
    async with sessions.used(session_id) as first:
        pass
    first.leave()
    assert sessions.live(session_id) is None
    async with sessions.used(session_id) as second:
        assert first.task.done()
        assert second is not first


async def test_a_session_is_gone_from_the_moment_it_is_deleted(
    start_web: Start, start_client: Start
) -> None:
    class Slow(InMemoryContextStore):
        async def clear_context(self, session_id: str) -> None:
            clearing.set()
            await go_on.wait()
            await super().clear_context(session_id)

    clearing, go_on = asyncio.Event(), asyncio.Event()
    web = await start_web(context=Slow(), provider=ScriptedProvider(["one"]))
    client = await start_client(web)
    session_id = await made(client)
    await said(client, web, session_id, "a")
    sessions = sessions_of(web)
    async with sessions.used(session_id) as live:
        deleting = asyncio.create_task(client.delete(f"/sessions/{session_id}"))
        async for _ in live.log.watch():
            pass
        # Who watched comes back at once, and must not bring it back.
        for method in ("GET", "DELETE"):
            wrong(await client.request(method, f"/sessions/{session_id}"), 404)
        wrong(await client.get(f"/sessions/{session_id}/events"), 404)
        await clearing.wait()
        wrong(await client.get(f"/sessions/{session_id}/events"), 404)
    go_on.set()
    assert (await deleting).status_code == 204
    assert sessions.live(session_id) is None
    wrong(await client.get(f"/sessions/{session_id}"), 404)


async def test_the_longest_unused_sessions_are_let_go_where_there_are_too_many(
    start_web: Start, start_client: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_MOST_UNUSED", 3)
    web = await start_web()
    client = await start_client(web)
    sessions = sessions_of(web)
    ids = [await made(client) for _ in range(6)]
    async with sessions.used(ids[0]):
        for session_id in ids[1:]:
            async with sessions.used(session_id):
                pass
        open_still = [each for each in ids if sessions.live(each) is not None]
        assert open_still == [ids[0], *ids[3:]]
    assert web.state.application.bus.stats().sessions <= 6


async def test_a_session_that_is_open_elsewhere_is_left_alone(
    start_web: Start, start_client: Start, bus: MessageBus
) -> None:
    client = await start_client(await start_web())
    session_id = await made(client)
    turn = {"text": "a"}
    async with BusSession(session_id, bus=bus):
        for answer in (
            await client.post(f"/sessions/{session_id}/turns", json=turn),
            await client.get(f"/sessions/{session_id}/events"),
        ):
            assert wrong(answer, 409)["code"] == "session_in_use"
    assert (await client.post(f"/sessions/{session_id}/turns", json=turn)).status_code == 202


# -- What can't be meant


IDS = {
    "nobody": 404,
    "%2e%2e%2e": 404,
    "%25": 404,
    "%F0%9F%98%80": 404,
    "%ED%A0%80": 404,
    "%FF": 404,
    "a%2Fb": 404,
    "x" * 200: 404,
    "x" * 300: 400,
    "%00": 400,
    "a%0D%0Ab": 400,
    "%1B%5B31m": 400,
    "%E2%80%AE": 400,
}
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("GET", "/messages", None),
    ("GET", "/events", None),
    ("POST", "/turns", {"text": "a"}),
    ("GET", "/approvals", None),
    ("POST", "/approvals/x", {"approved": True}),
]


async def test_ids_of_any_kind(client: httpx2.AsyncClient) -> None:
    for name, status in IDS.items():
        for method, path, body in ROUTES:
            answer = await client.request(method, f"/sessions/{name}{path}", json=body)
            assert wrong(answer, status)["message"].isprintable()


BODIES: list[tuple[str, bytes, str | None]] = [
    ("/turns", b'{"text": " \\n "}', "text"),
    ("/turns", b'{"text": 3}', "text"),
    ("/turns", b'{"text": "\\ud800"}', "text"),
    ("/turns", b'{"text": "a", "more": 1}', "more"),
    ("/turns", b"{}", "text"),
    ("/turns", b"[]", None),
    ("/turns", b"", None),
    ("/turns", b"{", None),
    ("/turns", b'{"text": "\xff"}', None),
    ("/turns", b"[" * 100_000, None),
    ("/fork", b'{"at": -1}', "at"),
    ("/fork", b'{"at": 1.5}', "at"),
    ("/fork", b'{"at": "1"}', "at"),
    ("/fork", b'{"at": true}', "at"),
    ("/fork", b'{"at": 1e400}', "at"),
    ("/fork", b'{"at": 1' + b"0" * 5000 + b"}", None),
    ("/approvals/x", b'{"approved": "yes"}', "approved"),
    ("/approvals/x", b'{"approved": false, "reason": "%s"}' % (b"x" * 2001), "reason"),
    ("/approvals/x", b'{"approved": false, "reason": "\\udc00"}', "reason"),
]


async def test_bodies_of_any_kind(client: httpx2.AsyncClient) -> None:
    session_id = await made(client)
    kind = {"content-type": "application/json"}
    for path, body, param in BODIES:
        answer = await client.post(f"/sessions/{session_id}{path}", content=body, headers=kind)
        error = wrong(answer, 400)
        if param is not None:
            assert error["param"] == param
            assert error["message"].startswith(f"{param}: ")


async def test_lists_that_cannot_be_meant(client: httpx2.AsyncClient) -> None:
    limits = [f"limit={each}" for each in ("0", "101", "x", "1e9", "")]
    places = [f"after={each}" for each in ("x", "%00", "W10=", "%C3%A4", "WzEsMl0=")]
    for query in limits + places:
        wrong(await client.get(f"/sessions?{query}"), 400)


async def test_a_title_cannot_be_given(client: httpx2.AsyncClient) -> None:
    assert wrong(await client.post("/sessions", json={"title": "x"}), 400)["param"] == "title"

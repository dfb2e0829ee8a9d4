"""Attempts, fallbacks, accounts and cassettes around the official SDK and a server that fails."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ChatMessage,
    LLMCallResultEvent,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    ToolDefinition,
    fold,
)
from llmgine.errors import AuthenticationError, OverloadedError, StreamInterruptedError
from llmgine.testing.cassettes import CassettePlayer, CassetteRecorder
from llmgine.testing.fixtures import quiet_config
from llmgine.testing.loopback import LoopbackServer, Reply
from llmgine.testing.recording import RecordingHandler

if importlib.util.find_spec("openai") is None:
    pytest.skip("the extra `openai` isn't installed", allow_module_level=True)

KEY = "sk-test-0123456789"
REQUEST = LLMRequest(messages=(ChatMessage.user("Hello"),), timeout=50)
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
WEATHER: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look out of the window.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"place": "Rome"}'},
}


def whole(**message: object) -> Reply:
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
    }
    about = {"id": "c1", "created": 7, "model": "m-2026-01-01", "object": "chat.completion"}
    return Reply.json({**about, "choices": [choice], "usage": USAGE})


def streamed(*texts: str, breaks: bool = False) -> Reply:
    about = {"id": "c1", "created": 7, "model": "m-2026-01-01", "object": "chat.completion.chunk"}

    def event(**more: object) -> bytes:
        return f"data: {json.dumps({**about, **more})}\n\n".encode()

    deltas: list[dict[str, str]] = [
        {"role": "assistant", "content": ""},
        *({"content": text} for text in texts),
    ]

    def piece(delta: dict[str, str], finish: str | None = None) -> bytes:
        return event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])

    pieces = [piece(delta) for delta in deltas]
    if breaks:
        return Reply.events(pieces, ending="drop")
    usage = event(choices=[], usage=USAGE)
    return Reply.events([*pieces, piece({}, "stop"), usage, b"data: [DONE]\n\n"])


def failed(status: int, **headers: str) -> Reply:
    return Reply.json({"error": {"message": "no"}}, status=status, **headers)


@asynccontextmanager
async def application(
    server: LoopbackServer, *, provider: Mapping[str, object] | None = None, **settings: object
) -> AsyncGenerator[ApplicationBootstrap]:
    """An application whose settings name the provider, without pauses between attempts."""
    options = {"api_key": KEY, "base_url": f"{server.url}/v1"}
    named = {"name": "openai", "model": "m", "options": options, **(provider or {})}
    config = quiet_config(provider=named, **{"retry": {"delay": 0}, **settings})
    handlers = [RecordingHandler()]
    async with ApplicationBootstrap(config, bus=MessageBus.isolated(), handlers=handlers) as app:
        yield app


def outcomes(app: ApplicationBootstrap) -> list[str]:
    (handler,) = app.observability.handlers
    assert isinstance(handler, RecordingHandler)
    events = handler.of(LLMCallResultEvent)
    return [type(event.error or event.response).__name__ for event in events]


async def read(stream: AsyncIterator[LLMChunk]) -> LLMResponse:
    return fold([chunk async for chunk in stream])


async def test_a_server_that_asks_to_wait_is_asked_again() -> None:
    busy = failed(429, retry_after_ms="1")
    async with LoopbackServer(busy, failed(500), whole(content="Hi")) as server:
        async with application(server) as app:
            assert (await app.provider.complete(REQUEST)).text == "Hi"
            assert outcomes(app) == ["RateLimitError", "ProviderServerError", "LLMResponse"]
        assert len(server.heard) == 3


async def test_it_is_asked_no_more_often_than_the_settings_allow() -> None:
    async with LoopbackServer(failed(503)) as server:
        async with application(server, retry={"attempts": 2, "delay": 0}) as app:
            with pytest.raises(OverloadedError):
                await app.provider.complete(REQUEST)
            with pytest.raises(OverloadedError):
                await read(app.provider.stream(REQUEST))
        assert len(server.heard) == 4


async def test_a_wrong_key_is_not_tried_again() -> None:
    async with LoopbackServer(failed(401)) as server:
        async with application(server) as app:
            with pytest.raises(AuthenticationError):
                await app.provider.complete(REQUEST)
        assert len(server.heard) == 1


async def test_a_stream_that_broke_off_at_its_beginning_is_begun_again() -> None:
    replies = (streamed(breaks=True), streamed("Hi", " there"))
    async with LoopbackServer(*replies) as server, application(server) as app:
        assert (await read(app.provider.stream(REQUEST))).text == "Hi there"
        assert outcomes(app) == ["StreamInterruptedError", "LLMResponse"]


async def test_a_stream_that_broke_off_later_is_not() -> None:
    async with LoopbackServer(streamed("Hi", breaks=True)) as server:
        async with application(server, provider={"fallback": ["scripted"]}) as app:
            with pytest.raises(StreamInterruptedError) as caught:
                await read(app.provider.stream(REQUEST))
            assert caught.value.partial is not None
            assert caught.value.partial.text == "Hi"
        assert len(server.heard) == 1


@pytest.mark.parametrize("status", [401, 402, 429, 503])
async def test_another_provider_answers_where_the_server_can_t(status: int) -> None:
    other = {"fallback": ["scripted"]}
    async with LoopbackServer(failed(status)) as server, application(server, provider=other) as app:
        assert (await app.provider.complete(REQUEST)).provider == "scripted"
        assert (await read(app.provider.stream(REQUEST))).provider == "scripted"


async def test_a_server_may_fall_back_on_another_of_its_kind() -> None:
    async with LoopbackServer(failed(503)) as server, LoopbackServer(whole(content="Hi")) as other:
        options = {"api_key": KEY, "base_url": f"{other.url}/v1", "model": "small"}
        provider = {"fallback": ["openai"], "fallback_options": {"openai": options}}
        async with application(server, provider=provider) as app:
            assert (await app.provider.complete(REQUEST)).text == "Hi"
        assert other.heard[0].json()["model"] == "small"


async def test_what_a_server_reports_is_what_was_spent() -> None:
    budget = {"prices": {"m": {"input": 1, "output": 10}}}
    replies = (whole(content="Hi"), streamed("Hi"))
    async with LoopbackServer(*replies) as server, application(server, budget=budget) as app:
        await app.provider.complete(REQUEST)
        await read(app.provider.stream(REQUEST))
        total = app.usage.total
        assert (total.calls, total.tokens, total.estimated) == (2, 26, 0)
        assert total.cost == Decimal("0.000098")


async def test_what_the_sdk_brings_is_recorded_without_the_key(tmp_path: Path) -> None:
    path = tmp_path / "cassette.json"
    request = LLMRequest(messages=REQUEST.messages, tools=(WEATHER,))
    replies = (whole(content=None, tool_calls=[CALL]), streamed("Hi"), failed(429))
    async with LoopbackServer(*replies) as server, application(server) as app:
        recorder = CassetteRecorder(app.provider, path)
        called = await recorder.complete(request)
        streaming = await read(recorder.stream(REQUEST))
        with pytest.raises(Exception, match="no"):
            await recorder.complete(REQUEST)
    recorder.save()
    assert KEY not in text_of(path)
    player = CassettePlayer(path)
    assert await player.complete(request) == called
    assert called.tool_calls[0].arguments == '{"place": "Rome"}'
    assert await read(player.stream(REQUEST)) == streaming
    with pytest.raises(Exception, match="no"):
        await player.complete(REQUEST)
    player.assert_finished()


def text_of(path: Path) -> str:
    return path.read_text("utf-8")

"""LiteLLM itself against a server on this machine that speaks OpenAI's or Anthropic's protocol."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    RefusalPart,
    TextDelta,
    ToolCall,
    ToolDefinition,
    ToolResult,
    closing,
    fold_stream,
)
from llmgine.contracts.chat import JsonValue
from llmgine.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextLengthError,
    InvalidRequestError,
    OverloadedError,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.settings import ProviderSettings
from llmgine.testing.loopback import Heard, LoopbackServer, Reply
from llmgine.testing.provider_suite import ProviderSuite

if any(importlib.util.find_spec(package) is None for package in ("litellm", "openai")):
    pytest.skip("the extra `litellm` isn't installed", allow_module_level=True)

from llmgine.providers.litellm import LiteLLMProvider, build

pytestmark = [
    pytest.mark.timeout(300),  # LiteLLM takes its time to be imported
    pytest.mark.filterwarnings("default"),  # and warns of its own code
]

Wire = dict[str, JsonValue]
KEY = "sk-test-0123456789"
HELLO = LLMRequest(messages=(ChatMessage.user("Hello"),))
COUNTS: Wire = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
TOOL: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def whole(message: Wire, finish: str = "stop") -> Wire:
    choice: Wire = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": finish,
    }
    about: Wire = {"id": "c1", "object": "chat.completion", "created": 7, "model": "m-1"}
    return {**about, "choices": [choice], "usage": COUNTS}


def piece(delta: Wire, finish: str | None = None) -> bytes:
    choice: Wire = {"index": 0, "delta": delta, "finish_reason": finish}
    return chunk(choices=[choice])


def chunk(**fields: JsonValue) -> bytes:
    about: Wire = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m-1"}
    return f"data: {json.dumps({**about, **fields})}\n\n".encode()


def streamed(*pieces: bytes) -> Reply:
    about = {"content-type": "text/event-stream"}
    end = (chunk(choices=[], usage=COUNTS), b"data: [DONE]\n\n")
    return Reply(headers=about, pieces=(*pieces, *end))


def broken(*pieces: bytes, ending: str) -> Reply:
    about = {"content-type": "text/event-stream"}
    if ending == "end":
        return Reply(headers=about, pieces=pieces)
    return Reply(headers=about, pieces=pieces, ending="drop" if ending == "drop" else "hold")


def both(heard: Heard) -> Reply:
    """Answer like a server that can do both."""
    if heard.json().get("stream"):
        return streamed(piece({"role": "assistant", "content": "Hello"}), piece({}, "stop"))
    return Reply.json(whole({"content": "Hello"}))


@asynccontextmanager
async def talking(
    *answers: Reply | Callable[[Heard], Reply], model: str = "openai/m"
) -> AsyncGenerator[tuple[LoopbackServer, LiteLLMProvider]]:
    async with LoopbackServer(*answers) as server:
        url = server.url if model.startswith("anthropic") else f"{server.url}/v1"
        async with LiteLLMProvider(model, api_key=KEY, base_url=url) as provider:
            yield server, provider


async def ask(provider: LLMProvider, request: LLMRequest, *, stream: bool) -> LLMResponse:
    if not stream:
        return await provider.complete(request)
    async with closing(provider.stream(request)) as chunks:
        return await fold_stream(chunks)


class TestLiteLLMProvider(ProviderSuite):
    """The conformance tests, against a server that both streams and doesn't."""

    def make_provider(self) -> LLMProvider:
        return self.provider

    @pytest.fixture(autouse=True)
    async def _serve(self) -> AsyncGenerator[None]:
        async with talking(both) as (_, self.provider):
            yield


@pytest.mark.parametrize("stream", [False, True])
async def test_a_round_trip_with_a_tool(stream: bool) -> None:
    function: Wire = {"name": "add", "arguments": '{"a":  1}'}
    call: Wire = {"id": "call_1", "type": "function", "function": function}

    def answer(heard: Heard) -> Reply:
        if "tool_call_id" in json.dumps(heard.json()):
            return both(heard)
        if heard.json().get("stream"):
            first: Wire = {**call, "index": 0, "function": {**function, "arguments": '{"a":'}}
            second: Wire = {"index": 0, "function": {"arguments": "  1}"}}
            pieces = [piece({"tool_calls": [each]}) for each in (first, second)]
            return streamed(*pieces, piece({}, "tool_calls"))
        return Reply.json(whole({"content": None, "tool_calls": [call]}, "tool_calls"))

    async with talking(answer) as (server, provider):
        question = replace(HELLO, tools=(TOOL,), max_output_tokens=5)
        response = await ask(provider, question, stream=stream)
        assert response.tool_calls == (ToolCall(id="call_1", name="add", arguments='{"a":  1}'),)
        assert response.finish_reason == "tool_calls"
        assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 4)
        result = ChatMessage.tool(ToolResult(tool_call_id="call_1", name="add", content="1"))
        messages = (*question.messages, response.message, result)
        again = await ask(provider, replace(question, messages=messages), stream=stream)
        assert again.text == "Hello"
    first, second = (heard.json() for heard in server.heard)
    assert (first["model"], first["tools"], first["max_tokens"]) == ("m", [TOOL], 5)
    assert json.dumps(call["function"]) in json.dumps(second["messages"])
    assert server.heard[0].headers["authorization"] == f"Bearer {KEY}"


async def test_refusals_are_parts() -> None:
    async with talking(Reply.json(whole({"content": None, "refusal": "I won't."}))) as (
        _,
        provider,
    ):
        response = await provider.complete(HELLO)
    assert response.message.parts == (RefusalPart(text="I won't."),)
    assert response.finish_reason == "refusal"


# -- Another protocol behind it: reasoning is signed there, and has to come back as it was


THOUGHT: Wire = {"type": "thinking", "thinking": "Let me see.", "signature": "sealed"}


def anthropic_events() -> list[bytes]:
    usage: Wire = {"input_tokens": 9, "output_tokens": 1}
    message: Wire = {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m",
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    deltas: list[tuple[int, Wire]] = [
        (0, {"type": "thinking_delta", "thinking": "Let me"}),
        (0, {"type": "thinking_delta", "thinking": " see."}),
        (0, {"type": "signature_delta", "signature": "sealed"}),
        (1, {"type": "text_delta", "text": "Hello"}),
    ]
    blocks: list[Wire] = [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
    ]
    events: list[Wire] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        for at, delta in deltas:
            if at == index:
                events.append({"type": "content_block_delta", "index": at, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    stop: Wire = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 4}})
    events.append({"type": "message_stop"})
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]


def anthropic(heard: Heard) -> Reply:
    if heard.json().get("stream"):
        return Reply(headers={"content-type": "text/event-stream"}, pieces=(*anthropic_events(),))
    content: list[JsonValue] = [THOUGHT, {"type": "text", "text": "Hello"}]
    return Reply.json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 4, "cache_read_input_tokens": 5},
        }
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_signed_reasoning_goes_back_as_it_came(stream: bool) -> None:
    async with talking(anthropic, model="anthropic/claude-test") as (server, provider):
        response = await ask(provider, HELLO, stream=stream)
        assert response.text == "Hello"
        assert response.finish_reason == "stop"
        messages = (*HELLO.messages, response.message, ChatMessage.user("And?"))
        await ask(provider, replace(HELLO, messages=messages), stream=stream)
    sent = server.heard[1].json()["messages"]
    assert isinstance(sent, list)
    assert sent[1] == {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "Hello"}]}


# -- What goes wrong


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "odd"}, InvalidRequestError),
        (400, {"message": "long", "code": "context_length_exceeded"}, ContextLengthError),
        (401, {"message": f"wrong key {KEY}"}, AuthenticationError),
        (429, {"message": "slow"}, RateLimitError),
        (500, {"message": "broken"}, ProviderServerError),
        (503, {"message": "full"}, OverloadedError),
    ],
)
async def test_a_status_is_the_error_of_its_row(
    status: int, error: JsonValue, kind: type[ProviderError], stream: bool
) -> None:
    reply = Reply.json({"error": error}, status=status, retry_after="2", x_request_id="req-1")
    async with talking(reply) as (server, provider):
        with pytest.raises(ProviderError) as caught:
            await ask(provider, HELLO, stream=stream)
    assert type(caught.value) is kind
    assert caught.value.retry_after == 2.0
    assert caught.value.request_id == "req-1"
    assert caught.value.provider == "litellm"
    assert KEY not in str(caught.value)
    assert len(server.heard) == 1, "LiteLLM or its SDK tried again by itself"


async def test_nobody_there_is_a_connection_error() -> None:
    async with LoopbackServer(both) as server:
        url = server.url
    async with LiteLLMProvider("openai/m", api_key=KEY, base_url=url) as provider:
        with pytest.raises((ProviderConnectionError, ProviderServerError)) as caught:
            await provider.complete(HELLO)
    assert caught.value.retryable


BEGUN = piece({"role": "assistant", "content": "Half an"})


@pytest.mark.parametrize(
    "reply",
    [
        broken(BEGUN, ending="end"),
        broken(BEGUN, b'data: {"choices": [{"del\n\n', ending="end"),
        broken(BEGUN, ending="drop"),
    ],
    ids=["ends early", "corrupt", "dropped"],
)
async def test_however_a_stream_breaks_off_the_error_is_the_same(reply: Reply) -> None:
    async with talking(reply) as (_, provider):
        with pytest.raises(StreamInterruptedError) as caught:
            await ask(provider, HELLO, stream=True)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Half an"
    assert not caught.value.retryable


async def test_leaving_a_stream_closes_the_connection_at_once() -> None:
    async with talking(broken(BEGUN, ending="hold")) as (server, provider):
        async with closing(provider.stream(HELLO)) as chunks:
            async for each in chunks:
                if isinstance(each, TextDelta):
                    break
        await server.left.wait()


async def test_the_timeout_of_a_request_is_for_the_whole_call() -> None:
    async with talking(broken(BEGUN, ending="hold")) as (server, provider):
        with pytest.raises(ProviderTimeoutError) as caught:
            await ask(provider, replace(HELLO, timeout=1.0), stream=True)
        await server.left.wait()
    assert caught.value.partial is not None


async def test_what_would_be_dropped_is_refused_before_the_call() -> None:
    async with talking(both) as (server, provider):
        for request in (replace(HELLO, metadata={"a": "b"}), replace(HELLO, top_k=3)):
            with pytest.raises(InvalidRequestError):
                await provider.complete(request)
        with pytest.raises(InvalidRequestError, match="'api_key'"):
            await provider.complete(replace(HELLO, provider_options={"api_key": "x"}))
    assert server.heard == []


async def test_closing_one_leaves_the_connections_of_others() -> None:
    async with talking(both) as (server, provider):
        url = f"{server.url}/v1"
        async with LiteLLMProvider("openai/m", api_key=KEY, base_url=url) as other:
            await other.complete(HELLO)
        await provider.complete(HELLO)
        await provider.aclose()
        async with LiteLLMProvider("openai/m", api_key=KEY, base_url=url) as later:
            assert (await later.complete(HELLO)).text == "Hello"


# -- Settings


def test_settings_that_cannot_be_used_are_refused() -> None:
    for settings, named in (
        (ProviderSettings(name="litellm"), "provider.model"),
        (ProviderSettings(name="litellm", model="gpt"), "gpt"),
        (ProviderSettings(name="litellm", model="a/b", options={"x": "y"}), "options.x"),
    ):
        with pytest.raises(ConfigurationError, match=named):
            build(settings)


async def test_keys_are_looked_for_by_the_names_that_litellm_gives_them() -> None:
    lacking = build(ProviderSettings(name="litellm", model="openai/m"))
    assert isinstance(lacking, LiteLLMProvider)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await lacking.__aenter__()
    async with LoopbackServer(both) as server:
        options = {"base_url": f"{server.url}/v1"}
        settings = ProviderSettings(name="litellm", model="openai/m", options=options)
        for variables, expected in (({"OPENAI_API_KEY": KEY}, KEY), ({}, "none")):
            made = build(replace(settings, variables=variables))
            assert isinstance(made, LiteLLMProvider)
            async with made:
                await made.complete(HELLO)
            assert server.heard[-1].headers["authorization"] == f"Bearer {expected}"
    assert "OPENAI_API_KEY" not in os.environ


async def test_one_of_several_keys_is_enough() -> None:
    with pytest.raises(ConfigurationError, match="GOOGLE_API_KEY or GEMINI_API_KEY"):
        await LiteLLMProvider("gemini/g").__aenter__()
    with pytest.raises(ConfigurationError, match=r"GEMINI_API_KEY in \.env: expected a key"):
        await LiteLLMProvider("gemini/g", variables={"GEMINI_API_KEY": "a key"}).__aenter__()
    async with LiteLLMProvider("gemini/g", variables={"GEMINI_API_KEY": KEY}) as provider:
        assert provider.name == "litellm"


async def test_an_address_is_no_key() -> None:
    async with LiteLLMProvider("ollama/m") as provider:
        assert provider.name == "litellm"
    address = {"OLLAMA_API_BASE": "http://10.0.0.9:11434"}
    with pytest.raises(ConfigurationError, match="OLLAMA_API_BASE from the environment alone"):
        await LiteLLMProvider("ollama/m", variables=address).__aenter__()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_goes_to_its_own_provider_alone(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    variables = {"GEMINI_API_KEY": "key-of-gemini"}
    elsewhere = replace(HELLO, model="openai/m")
    async with LoopbackServer(both) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        async with LiteLLMProvider("gemini/g", variables=variables) as provider:
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                await ask(provider, elsewhere, stream=stream)
        assert server.heard == []
        variables["OPENAI_API_KEY"] = KEY
        async with LiteLLMProvider("gemini/g", variables=variables) as provider:
            await ask(provider, elsewhere, stream=stream)
    assert server.heard[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_of_the_environment_stands_in_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = Reply.json({"error": {"message": f"no such key: {KEY}"}}, status=401)
    async with (
        LoopbackServer(said) as server,
        LiteLLMProvider("openai/m", base_url=f"{server.url}/v1") as provider,
    ):
        with pytest.raises(AuthenticationError, match=r"\[redacted\]") as caught:
            await provider.complete(HELLO)
    assert KEY not in str(caught.value)

"""The official SDK against a server on this machine: what is sent, and what is made of answers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import math
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from typing import TypedDict, Unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    MediaPart,
    OpaquePart,
    RefusalPart,
    StreamStart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
    closing,
    fold,
)
from llmgine.contracts.chat import JsonValue, Part
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, NamedTool, Reasoning
from llmgine.errors import (
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    ConflictError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.settings import ProviderSettings
from llmgine.testing.loopback import Heard, LoopbackServer, Reply
from llmgine.testing.provider_suite import ProviderSuite

if importlib.util.find_spec("openai") is None:
    pytest.skip("the extra `openai` isn't installed", allow_module_level=True)

from httpx2 import AsyncClient, MockTransport, Request, Response
from llmgine.providers._chat.dialect import Dialect
from llmgine.providers._chat.messages import MessageWriter
from llmgine.providers._chat.response import ChunkReader, response_of
from llmgine.providers._sdk.errors import Failures, SdkErrors
from llmgine.providers._sdk.shape import fields, items
from llmgine.providers.openai import OpenAIProvider, build
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

Wire = dict[str, JsonValue]
KEY = "sk-test-0123456789"
# Never used, and not made anew for each client: that takes far longer than a call.
TLS = ssl.create_default_context()
HELLO = LLMRequest(messages=(ChatMessage.user("Hello"),), model="m")
COUNTS: Wire = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
USAGE = Usage(
    input_tokens=9,
    output_tokens=4,
    cache_read_tokens=5,
    reasoning_tokens=0,
    details={"prompt_tokens_details.audio_tokens": 0},
)
ABOUT: Wire = {"id": "c1", "created": 7, "model": "m-1", "service_tier": "default"}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def whole(message: Wire, finish: str = "stop", **more: JsonValue) -> Wire:
    """Return the body of an answer."""
    choice: Wire = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": finish,
    }
    return {**ABOUT, "object": "chat.completion", "choices": [choice], "usage": COUNTS, **more}


def piece(delta: Wire, finish: str | None = None, **more: JsonValue) -> Wire:
    """Return a piece of a streamed answer."""
    choice: Wire = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**ABOUT, "object": "chat.completion.chunk", "choices": [choice], **more}


def counted() -> Wire:
    """Return the piece that carries the usage, as OpenAI ends a stream."""
    return {**ABOUT, "object": "chat.completion.chunk", "choices": [], "usage": COUNTS}


def event(data: Wire | str) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def streamed(*pieces: Wire | str | bytes, done: bool = True, ending: str = "end") -> Reply:
    sent = [each if isinstance(each, bytes) else event(each) for each in pieces]
    about = {"content-type": "text/event-stream", "x-request-id": "req-1"}
    pieces_ = (*sent, event("[DONE]")) if done else tuple(sent)
    if ending == "drop":
        return Reply(headers=about, pieces=pieces_, ending="drop")
    return Reply(headers=about, pieces=pieces_, ending="hold" if ending == "hold" else "end")


def failed(status: int, error: JsonValue, **headers: str) -> Reply:
    return Reply.json({"error": error}, status=status, x_request_id="req-1", **headers)


class Options(TypedDict, total=False):
    """Those of `OpenAIProvider` that change what is sent, and how long is waited."""

    limit_field: str
    read_timeout: float
    send_reasoning: bool
    stream_usage: bool


@asynccontextmanager
async def talking(
    *answers: Reply | Callable[[Heard], Reply], **options: Unpack[Options]
) -> AsyncGenerator[tuple[LoopbackServer, OpenAIProvider]]:
    """Give a server, and a provider that talks to it."""
    async with LoopbackServer(*answers) as server:
        url = f"{server.url}/v1"
        client = AsyncClient(verify=TLS)
        async with OpenAIProvider(
            api_key=KEY, base_url=url, model="default-model", http_client=client, **options
        ) as provider:
            yield server, provider


async def sent(request: LLMRequest, **options: Unpack[Options]) -> Wire:
    """Return the body that a request becomes."""
    async with talking(Reply.json(whole({"content": "Hi"})), **options) as (server, provider):
        await provider.complete(request)
    body = server.heard[0].json()
    return json.loads(json.dumps(body))


async def sent_messages(*messages: ChatMessage, **options: Unpack[Options]) -> JsonValue:
    return (await sent(LLMRequest(messages=messages), **options))["messages"]


async def answer(body: JsonValue) -> LLMResponse:
    async with talking(Reply.json(body, x_request_id="req-1")) as (_, provider):
        return await provider.complete(HELLO)


async def stream_of(*pieces: Wire | str) -> list[LLMChunk]:
    async with talking(streamed(*pieces)) as (_, provider):
        return [chunk async for chunk in provider.stream(HELLO)]


async def error_of(reply: Reply, *, stream: bool = False) -> ProviderError:
    async with talking(reply) as (server, provider):
        with pytest.raises(ProviderError) as caught:
            await ask(provider, HELLO, stream=stream)
    assert len(server.heard) == 1, "the SDK tried again by itself"
    assert caught.value.provider == "openai"
    assert KEY not in str(caught.value)
    return caught.value


async def ask(provider: LLMProvider, request: LLMRequest, *, stream: bool) -> LLMResponse:
    if stream:
        return fold([chunk async for chunk in provider.stream(request)])
    return await provider.complete(request)


async def refusal(request: LLMRequest, **options: Unpack[Options]) -> str:
    """Return the error of a request that must not even be sent."""
    async with talking(Reply.json(whole({"content": "Hi"})), **options) as (server, provider):
        for stream in (False, True):
            with pytest.raises(InvalidRequestError) as caught:
                await ask(provider, request, stream=stream)
    assert server.heard == []
    return str(caught.value)


def both(heard: Heard) -> Reply:
    """Answer like a server that can do both."""
    if heard.json().get("stream"):
        return streamed(
            piece({"role": "assistant", "content": "Hello"}),
            piece({"content": " you"}, "stop"),
            counted(),
        )
    return Reply.json(whole({"content": "Hello you"}))


class TestOpenAIProvider(ProviderSuite):
    """The conformance tests, against a server that both streams and doesn't."""

    def make_provider(self) -> LLMProvider:
        return self.provider

    @pytest.fixture(autouse=True)
    async def _serve(self) -> AsyncGenerator[None]:
        async with talking(both) as (_, self.provider):
            yield


# -- What is sent


async def test_a_conversation_is_sent_as_openai_wants_it() -> None:
    call = ToolCall(id="call_1", name="add", arguments='{"a": 1,\n "b":\t2}')
    other = ToolCall(id="call_2", name="now", arguments="{broken")
    assert await sent_messages(
        ChatMessage.system("Be brief."),
        ChatMessage(role="user", parts=(TextPart(text="Add."),), name="ada"),
        ChatMessage.assistant(call, other),
        ChatMessage.tool(
            ToolResult(tool_call_id="call_1", name="add", content="3"),
            ToolResult(tool_call_id="call_2", name="now", content="no JSON", is_error=True),
        ),
        ChatMessage.assistant("Three."),
        ChatMessage.assistant(RefusalPart(text="No.")),
        ChatMessage.user("One", "Two"),
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add.", "name": "ada"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": each.id,
                    "type": "function",
                    "function": {"name": each.name, "arguments": each.arguments},
                }
                for each in (call, other)
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "tool", "tool_call_id": "call_2", "content": "Error: no JSON"},
        {"role": "assistant", "content": "Three."},
        {"role": "assistant", "content": None, "refusal": "No."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}],
        },
    ]


async def test_media_are_sent_by_url_and_as_data() -> None:
    picture = MediaPart(kind="image", media_type="image/png", data=b"\x89PNG")
    linked = MediaPart(kind="image", url="https://x.test/a.png", provider_data={"detail": "low"})
    paper = MediaPart(kind="document", media_type="application/pdf", data=b"%PDF", name="a.pdf")
    stored = MediaPart(kind="document", file_id="file-1")
    sound = MediaPart(kind="audio", media_type="audio/mpeg", data=b"ID3")
    assert await sent_messages(ChatMessage.user(picture, linked, paper, stored, sound)) == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://x.test/a.png", "detail": "low"},
                },
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,JVBERg==",
                    },
                },
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            ],
        }
    ]


async def test_pictures_in_a_tool_result_follow_it() -> None:
    picture = MediaPart(kind="image", url="https://x.test/a.png", name="a.png")
    result = ToolResult(
        tool_call_id="1", name="look", content=(TextPart(text="See:"), picture), is_error=True
    )
    _, result_wire, follows = json.loads(
        json.dumps(
            await sent_messages(
                ChatMessage.assistant(ToolCall(id="1", name="look")), ChatMessage.tool(result)
            )
        )
    )
    assert [part["text"] for part in result_wire["content"]] == [
        "Error:",
        "See:",
        "[image a.png: in the user message that follows]",
    ]
    assert follows == {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}],
    }


async def test_pictures_stand_behind_all_results_of_a_turn() -> None:
    def result(call_id: str) -> ChatMessage:
        picture = MediaPart(kind="image", url=f"https://x.test/{call_id}.png")
        return ChatMessage.tool(ToolResult(tool_call_id=call_id, name="look", content=(picture,)))

    calls = [ToolCall(id=each, name="look") for each in ("1", "2")]
    wires = await sent_messages(
        ChatMessage.assistant(*calls), result("1"), result("2"), ChatMessage.assistant("Seen.")
    )
    assert isinstance(wires, list)
    roles = [fields(wire)["role"] for wire in wires]
    assert roles == ["assistant", "tool", "tool", "user", "assistant"]
    shown = [
        fields(fields(part)["image_url"])["url"] for part in items(fields(wires[3])["content"])
    ]
    assert shown == ["https://x.test/1.png", "https://x.test/2.png"]


TOOL: ToolDefinition = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}


async def test_every_field_of_a_request_is_sent() -> None:
    body = await sent(
        LLMRequest(
            messages=(ChatMessage.user("Hi"),),
            tools=(TOOL,),
            tool_choice=NamedTool(name="add"),
            parallel_tool_calls=False,
            max_output_tokens=5,
            temperature=0.0,
            top_p=0.5,
            stop=("END",),
            seed=1,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            response_format=JsonSchemaFormat(name="answer", schema={"type": "object"}),
            reasoning=Reasoning(effort="low"),
            user_id="u1",
            metadata={"team": "a"},
            provider_options={"logprobs": True, "top_k": 3},
        )
    )
    del body["messages"]
    assert body == {
        "model": "default-model",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "max_completion_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["END"],
        "seed": 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
        "user": "u1",
        "metadata": {"team": "a"},
        "logprobs": True,
        "top_k": 3,
    }


async def test_what_is_not_asked_for_is_not_sent() -> None:
    request = LLMRequest(messages=(ChatMessage.user("Hi"),), tool_choice="auto", model="m")
    messages = [{"role": "user", "content": "Hi"}]
    assert await sent(request) == {"model": "m", "messages": messages}
    json_object = LLMRequest(messages=request.messages, response_format=JsonObjectFormat())
    assert (await sent(json_object))["response_format"] == {"type": "json_object"}
    limited = LLMRequest(messages=request.messages, max_output_tokens=3)
    assert (await sent(limited, limit_field="max_tokens"))["max_tokens"] == 3


async def test_streams_ask_for_their_usage_unless_told_not_to() -> None:
    for wanted, expected in ((True, {"include_usage": True}), (False, None)):
        async with talking(both, stream_usage=wanted) as (server, provider):
            await ask(provider, HELLO, stream=True)
        assert server.heard[0].json().get("stream_options") == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (LLMRequest(messages=()), "messages"),
        (LLMRequest(messages=HELLO.messages, top_k=3), "top_k"),
        (LLMRequest(messages=HELLO.messages, reasoning=Reasoning(budget_tokens=9)), "budget"),
        (LLMRequest(messages=HELLO.messages, reasoning=Reasoning(summary="auto")), "summary"),
        (LLMRequest(messages=HELLO.messages, max_output_tokens=0), "max_output_tokens"),
        (LLMRequest(messages=HELLO.messages, tool_choice="required"), "tool_choice"),
        (LLMRequest(messages=HELLO.messages, provider_options={"n": 2}), "n"),
        (LLMRequest(messages=HELLO.messages, provider_options={"model": "x"}), "model"),
        (LLMRequest(messages=HELLO.messages, provider_options={"stream": True}), "stream"),
        (LLMRequest(messages=HELLO.messages, temperature=math.nan), "JSON"),
    ],
)
async def test_what_chat_completions_cannot_do_is_refused_before_the_call(
    changes: LLMRequest, named: str
) -> None:
    assert named in await refusal(changes)


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage.user(MediaPart(kind="image", file_id="f")),
        ChatMessage.user(MediaPart(kind="image", data=b"x")),
        ChatMessage.user(MediaPart(kind="document", url="https://x.test/a.pdf")),
        ChatMessage.user(MediaPart(kind="video", url="https://x.test/a.mp4")),
        ChatMessage.user(MediaPart(kind="audio", data=b"x", media_type="audio/ogg")),
        ChatMessage.user(MediaPart(kind="audio", url="https://x.test/a.mp3")),
        ChatMessage.user(ToolCall(id="1", name="x")),
        ChatMessage.system(MediaPart(kind="image", url="https://x.test/a.png")),
        ChatMessage.assistant(MediaPart(kind="image", url="https://x.test/a.png")),
    ],
)
async def test_parts_that_cannot_be_sent_are_refused_before_the_call(message: ChatMessage) -> None:
    assert "messages" in await refusal(LLMRequest(messages=(message,)))


# -- Histories of other providers


async def test_what_only_another_provider_understands_is_left_out_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs: tuple[Part, ...] = (
        ThinkingPart(text="Hm.", signature="s", provider="anthropic"),
        OpaquePart(provider="anthropic", data={"type": "server_tool_use"}),
        TextPart(text="Hello"),
        ThinkingPart(text="Mine.", provider="openai"),
        OpaquePart(provider="openai", data={"annotations": [{"type": "url_citation"}]}),
        OpaquePart(provider="openai", data={"audio": {"id": "a1", "data": "..."}}),
    )
    history = LLMRequest(messages=(ChatMessage.assistant(*theirs), ChatMessage.user("And?")))
    async with talking(Reply.json(whole({"content": "Hi"}))) as (server, provider):
        with caplog.at_level(logging.WARNING):
            await provider.complete(history)
            await provider.complete(history)
    messages = json.loads(server.heard[1].body)["messages"]
    assert messages[0] == {
        "role": "assistant",
        "content": "Hello",
        "annotations": [{"type": "url_citation"}],
        "audio": {"id": "a1"},
    }
    notes = [each.getMessage() for each in caplog.records if each.name.startswith("llmgine")]
    assert len(notes) == 2
    assert all("anthropic" in note for note in notes)


async def test_reasoning_goes_back_to_a_server_that_wants_it() -> None:
    mine = ChatMessage.assistant(ThinkingPart(text="Mine.", provider="openai"), "Hello")
    expected = {"role": "assistant", "content": "Hello"}
    assert await sent_messages(mine) == [expected]
    assert await sent_messages(mine, send_reasoning=True) == [
        {**expected, "reasoning_content": "Mine."}
    ]


async def test_ids_are_made_legal_the_same_on_both_sides() -> None:
    for odd in ("", "x" * 41, "h\u00e9", "a\nb", "\ud800"):
        call, result = json.loads(
            json.dumps(
                await sent_messages(
                    ChatMessage.assistant(ToolCall(id=odd, name="t")),
                    ChatMessage.tool(ToolResult(tool_call_id=odd, name="t")),
                )
            )
        )
        made = call["tool_calls"][0]["id"]
        assert made == result["tool_call_id"]
        assert 0 < len(made) <= 40
        assert made.isascii()


async def test_characters_that_a_stream_cut_in_halves_are_mended() -> None:
    chunks = await stream_of(
        piece({"content": "\ud83d"}),
        piece({"content": "\ude00 \ud83d"}),
        piece(deltas(part_of_call(0, '"\ud83d', "1", "t"), part_of_call(0, '\ude00"')), "stop"),
    )
    messages = json.loads(json.dumps(await sent_messages(fold(chunks).message)))
    assert messages[0]["content"] == "\U0001f600 \ufffd"
    assert json.loads(messages[0]["tool_calls"][0]["function"]["arguments"]) == "\U0001f600"
    assert "UTF-8" in await refusal(LLMRequest(messages=(ChatMessage.user("\ud83d"),)))


async def test_openai_itself_gets_short_descriptions_and_its_own_fields_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    long: ToolDefinition = {
        "type": "function",
        "function": {"name": "add", "description": "x" * 2000, "parameters": {}},
    }
    marked = TextPart(text="Hi", provider_data={"cache_control": {"type": "ephemeral"}})
    request = LLMRequest(messages=(ChatMessage.user(marked),), tools=(long,), user_id="u")
    body = await sent(request)
    assert body["tools"] == [long]
    assert "cache_control" in json.dumps(body["messages"])
    bodies: list[Wire] = []

    def openai_itself(asked: Request) -> Response:
        assert asked.url == "https://api.openai.com/v1/chat/completions"
        bodies.append(json.loads(asked.content))
        return Response(200, json=whole({"content": "Hi"}))

    client = AsyncClient(transport=MockTransport(openai_itself))
    async with OpenAIProvider(api_key=KEY, http_client=client) as provider:
        with caplog.at_level(logging.WARNING):
            await provider.complete(request)
            await provider.complete(request)
    assert client.is_closed
    function: Wire = {"name": "add", "description": "x" * 1024, "parameters": {}}
    assert bodies[0]["tools"] == [{"type": "function", "function": function}]
    assert bodies[0]["safety_identifier"] == "u"
    assert bodies[0]["messages"] == [{"role": "user", "content": "Hi"}]
    notes = [each.getMessage() for each in caplog.records if each.name.startswith("llmgine")]
    assert len(notes) == 2
    assert "cut" in " ".join(notes)
    assert "cache_control" in " ".join(notes)


# -- Answers


CALLS: list[JsonValue] = [
    {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
]
TOOL_CALLS = (
    ToolCall(id="call_1", name="add", arguments='{"a": 1}'),
    ToolCall(id="call_2", name="now", arguments="{}"),
)


def deltas(*calls: Wire) -> Wire:
    return {"tool_calls": list(calls)}


def part_of_call(index: int | None, arguments: str, call_id: str = "", name: str = "") -> Wire:
    function: Wire = {"arguments": arguments, **({"name": name} if name else {})}
    about: Wire = {} if index is None else {"index": index}
    return {**about, **({"id": call_id} if call_id else {}), "function": function}


async def test_a_whole_answer_and_a_streamed_one_are_the_same() -> None:
    message: Wire = {
        "content": "Hello",
        "reasoning_content": "Hm.",
        "tool_calls": CALLS,
        "annotations": [{"type": "url_citation"}],
    }
    response = await answer(whole(message, "tool_calls", system_fingerprint="fp"))
    assert response == LLMResponse(
        message=response.message,
        id="c1",
        model="m-1",
        provider="openai",
        finish_reason="tool_calls",
        finish_raw="tool_calls",
        usage=USAGE,
        service_tier="default",
        created=7.0,
        request_id="req-1",
        provider_data={"system_fingerprint": "fp"},
    )
    assert response.message.parts == (
        ThinkingPart(text="Hm.", provider="openai"),
        TextPart(text="Hello"),
        *TOOL_CALLS,
        OpaquePart(provider="openai", data={"annotations": [{"type": "url_citation"}]}),
    )
    chunks = await stream_of(
        piece({"role": "assistant", "content": "", "refusal": None}, system_fingerprint="fp"),
        piece({"reasoning_content": "H"}, system_fingerprint="fp"),
        piece({"reasoning_content": "m."}, obfuscation="xyz"),
        piece({"content": "Hel"}),
        piece({"content": "lo"}),
        piece(deltas(part_of_call(0, "", "call_1", "add"), part_of_call(1, "", "call_2", "now"))),
        piece(deltas(part_of_call(0, '{"a"'))),
        piece(deltas(part_of_call(0, ": 1}"))),
        piece({"annotations": [{"type": "url_citation"}]}),
        piece({}, "tool_calls"),
        counted(),
    )
    assert fold(chunks) == response


@given(data=st.data())
async def test_a_stream_may_be_split_anywhere(data: st.DataObject) -> None:
    text = data.draw(st.text(min_size=1))
    arguments = data.draw(st.lists(st.text(), min_size=1, max_size=3))
    pieces = [piece({"content": each}) for each in split(data, text)]
    for index, each in enumerate(arguments):
        first, *rest = split(data, each) or [""]
        begin = part_of_call(index, first, f"call_{index}", "tool")
        pieces += [piece(deltas(begin)), *(piece(deltas(part_of_call(index, s))) for s in rest)]
    reader = ChunkReader("openai")
    chunks = [chunk for each in (*pieces, piece({}, "tool_calls")) for chunk in reader.read(each)]
    calls = (
        ToolCall(id=f"call_{index}", name="tool", arguments=each or "{}")
        for index, each in enumerate(arguments)
    )
    assert fold([*chunks, *reader.end()]).message.parts == (TextPart(text=text), *calls)


def split(data: st.DataObject, text: str) -> list[str]:
    places = st.lists(st.integers(0, len(text)), max_size=4)
    marks = sorted({0, len(text), *data.draw(places)})
    return [text[start:end] for start, end in pairwise(marks)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # No index at all; the id in each piece; one index for every call; no id at first.
        (part_of_call(None, '{"a"', "call_1", "add"), part_of_call(None, ": 1}")),
        (part_of_call(0, '{"a"', "call_1", "add"), part_of_call(0, ": 1}", "call_1", "add")),
        (part_of_call(None, '{"a"', "call_1", "add"), part_of_call(None, ": 1}", "call_1")),
    ],
)
async def test_compatible_servers_call_tools_in_their_own_ways(first: Wire, second: Wire) -> None:
    index = first.get("index")
    other = part_of_call(index if isinstance(index, int) else None, "{}", "call_2", "now")
    chunks = await stream_of(
        piece(deltas(first)), piece(deltas(second)), piece(deltas(other)), piece({}, "stop")
    )
    response = fold(chunks)
    assert response.tool_calls == TOOL_CALLS
    assert (response.finish_reason, response.finish_raw) == ("tool_calls", "stop")


async def test_a_call_s_name_may_follow_its_id() -> None:
    named: Wire = {"index": 0, "function": {"name": "add"}}
    chunks = await stream_of(
        piece(deltas(part_of_call(0, "", "call_1", ""))),
        piece(deltas(named)),
        piece(deltas(part_of_call(0, '{"a": 1}'))),
        piece({}, "tool_calls"),
    )
    assert fold(chunks).tool_calls == (ToolCall(id="call_1", name="add", arguments='{"a": 1}'),)


async def test_what_only_keeps_a_connection_open_is_no_piece() -> None:
    reply = streamed(
        b"retry: 3000\n\n",
        b"id: 1\n" + event(piece({"content": "Hi"})),
        b": still here\n\n",
        b"event: ping\n\n",
        b"data:\n\n",
        event(piece({}, "stop")),
    )
    async with talking(reply) as (_, provider):
        assert (await ask(provider, HELLO, stream=True)).text == "Hi"


async def test_calls_without_an_id_are_given_one() -> None:
    calls: list[JsonValue] = [
        {"function": {"name": "a", "arguments": {"x": "\u00e9"}}},
        {"function": {"name": "b", "arguments": None}},
    ]
    first, second = (await answer(whole({"content": None, "tool_calls": calls}))).tool_calls
    assert (first.name, first.arguments) == ("a", '{"x":"\u00e9"}')
    assert (second.name, second.arguments) == ("b", "{}")
    assert first.id != second.id
    assert first.id.startswith("call_")


async def test_what_is_unknown_survives_and_goes_back() -> None:
    signed: Wire = {
        **fields(CALLS[0]),
        "extra_content": {"google": {"thought_signature": "s"}},
    }
    custom: Wire = {"id": "call_9", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
    thinking: Wire = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    message: Wire = {
        "content": [thinking, {"type": "text", "text": "Hello"}],
        "tool_calls": [signed, custom],
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "e"}],
    }
    response = await answer(whole(message, "something_new"))
    assert (response.finish_reason, response.finish_raw) == ("unknown", "something_new")
    back = json.loads(json.dumps(await sent_messages(response.message)))[0]
    assert back["tool_calls"] == [signed, custom]
    assert back["reasoning_details"] == message["reasoning_details"]
    assert sorted(part["type"] for part in back["content"]) == ["text", "thinking"]
    detail: Wire = {"type": "reasoning.encrypted", "index": 0}
    chunks = await stream_of(
        piece({"content": "Hello", "reasoning_details": [{**detail, "data": "ab"}]}),
        piece({"reasoning_details": [{**detail, "data": "cd"}]}),
        piece(deltas({"index": 0, "id": "call_9", "type": "custom", "custom": {"name": "sql"}})),
        piece(deltas({"index": 0, "custom": {"input": "SELECT"}}), "stop"),
    )
    assert fold(chunks).message.parts == (
        TextPart(text="Hello"),
        OpaquePart(provider="openai", data={"tool_calls": [custom]}),
        OpaquePart(
            provider="openai",
            data={"reasoning_details": [{**detail, "data": "abcd"}]},
        ),
    )


async def test_pieces_without_an_answer_and_with_all_of_it() -> None:
    repeated = piece({"content": "lo"}, "stop")
    choices = repeated["choices"]
    assert isinstance(choices, list)
    fields(choices[0])["message"] = {"role": "assistant", "content": "Hello"}
    chunks = await stream_of(
        {"id": "", "model": "", "choices": [], "prompt_filter_results": []},
        piece({"content": "Hel"}),
        repeated,
    )
    response = fold(chunks)
    assert isinstance(chunks[0], StreamStart)
    assert (response.id, response.model, response.text) == ("c1", "m-1", "Hello")


async def test_refusals_are_parts_and_reasons() -> None:
    response = await answer(whole({"content": None, "refusal": "I won't."}))
    assert response.message.parts == (RefusalPart(text="I won't."),)
    assert (response.finish_reason, response.finish_raw) == ("refusal", "stop")
    chunks = await stream_of(piece({"refusal": "I "}), piece({"refusal": "won't."}, "stop"))
    assert fold(chunks).message == response.message


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("error", "error"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
    ],
)
async def test_finish_reasons(raw: str, expected: str) -> None:
    assert (await answer(whole({"content": "Hi"}, raw))).finish_reason == expected


async def test_usage_that_is_missing_repeated_or_odd() -> None:
    silent = await answer({**whole({"content": "Hi"}), "usage": None})
    assert silent.usage == Usage()
    repeated = await stream_of(
        piece({"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": 1}),
        piece({"content": "b"}, "stop", usage=COUNTS),
    )
    assert fold(repeated).usage == USAGE
    priced = await answer({**whole({"content": "Hi"}), "usage": {**COUNTS, "cost": 0.5}})
    assert priced.usage == USAGE
    assert priced.provider_data == {"usage": {"cost": 0.5}}
    huge: Wire = {"created": 10**400, "usage": {"prompt_tokens": 10**400}}
    for found in (
        await answer({**whole({"content": "Hi"}), **huge}),
        fold(await stream_of({**piece({"content": "Hi"}, "stop"), **huge})),
    ):
        assert (found.text, found.created, found.usage) == ("Hi", None, Usage())


async def test_log_probabilities_are_kept() -> None:
    tokens: list[JsonValue] = [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2.0}]
    first, second = (piece({"content": "x"}, finish) for finish in (None, "stop"))
    for each, token in ((first, tokens[0]), (second, tokens[1])):
        choices = each["choices"]
        assert isinstance(choices, list)
        fields(choices[0])["logprobs"] = {"content": [token]}
    assert fold(await stream_of(first, second)).provider_data == {"logprobs": {"content": tokens}}


# Whatever can be said in both, comes back as it was: what a model said is the history's next part.
TEXTS = st.text(min_size=1)
IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
PART = st.builds(TextPart, text=TEXTS)
REFUSED = st.builds(RefusalPart, text=TEXTS)
CALL = st.builds(ToolCall, id=IDS, name=st.just("tool"), arguments=TEXTS)
SAID = st.tuples(
    st.lists(PART, max_size=1),
    st.lists(REFUSED, max_size=1),
    st.lists(CALL, max_size=3, unique_by=lambda call: call.id),
).map(lambda said: ChatMessage.assistant(*said[0], *said[1], *said[2]))


@given(SAID)
def test_what_a_model_said_comes_back_as_it_was(message: ChatMessage) -> None:
    dialect = Dialect(provider="openai")
    wire = MessageWriter(dialect, InvalidRequestError).written([message])[0]
    response = response_of(whole(wire), ChunkReader("openai"))
    assert response is not None
    assert response.message == message


# -- Errors


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "bad", "type": "invalid_request_error"}, InvalidRequestError),
        (400, {"message": "long", "code": "context_length_exceeded"}, ContextLengthError),
        (400, {"message": "This model's maximum context length is 10"}, ContextLengthError),
        (400, {"message": "no", "code": "content_policy_violation"}, ContentFilterError),
        (400, {"message": "no", "code": "invalid_prompt"}, ContentFilterError),
        (401, {"message": f"wrong key {KEY}", "code": "invalid_api_key"}, AuthenticationError),
        (402, {"message": "pay"}, QuotaExceededError),
        (403, {"message": "not you"}, PermissionDeniedError),
        (404, {"message": "no model", "code": "model_not_found"}, NotFoundError),
        (408, {"message": "slow"}, ProviderTimeoutError),
        (409, {"message": "twice"}, ConflictError),
        (413, {"message": "big"}, InvalidRequestError),
        (422, {"message": "odd"}, InvalidRequestError),
        (429, {"message": "slower", "code": "rate_limit_exceeded"}, RateLimitError),
        (429, {"message": "paid?", "code": "insufficient_quota"}, QuotaExceededError),
        (500, {"message": "broken"}, ProviderServerError),
        (503, {"message": "full"}, OverloadedError),
        (504, {"message": "slow"}, ProviderTimeoutError),
        (502, "not even an object", ProviderServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_status_is_the_error_of_its_row(
    status: int, error: JsonValue, kind: type[ProviderError], stream: bool
) -> None:
    found = await error_of(failed(status, error), stream=stream)
    assert type(found) is kind
    assert (found.status, found.request_id) == (status, "req-1")
    assert found.retryable is kind.retryable
    assert found.provider_code == (fields(error).get("code") or fields(error).get("type"))


async def test_too_many_tokens_at_a_time_are_no_long_conversation() -> None:
    words: Wire = {"message": "Too many tokens, please wait before trying again."}
    assert type(await error_of(failed(429, words))) is RateLimitError
    assert type(await error_of(failed(400, words))) is ContextLengthError


async def test_a_server_says_how_long_to_wait_and_whether_to_try_again() -> None:
    slow: Wire = {"message": "slow down"}
    assert (await error_of(failed(429, slow, retry_after="2"))).retry_after == 2.0
    exact = await error_of(failed(429, slow, retry_after="2", retry_after_ms="1500"))
    assert exact.retry_after == 1.5
    dated = await error_of(failed(429, slow, retry_after=formatdate(time.time() + 90, usegmt=True)))
    assert dated.retry_after is not None
    assert 0 < dated.retry_after <= 90
    for odd in ("nan", "inf", "soon", ""):
        assert (await error_of(failed(429, slow, retry_after=odd))).retry_after is None
    assert not (await error_of(failed(500, slow, x_should_retry="false"))).retryable
    assert (await error_of(failed(400, slow, x_should_retry="true"))).retryable


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({}),
        Reply.json([]),
        Reply.json({"choices": []}),
        Reply.json({"choices": [{"message": {"content": "Hi"}}]}),
        Reply(headers={"content-type": "application/json"}, pieces=(b'{"choices": [',)),
        Reply(headers={"content-type": "text/html"}, pieces=(b"<html>Welcome</html>",)),
        Reply(headers={"content-type": "application/json"}, pieces=(b"\xff\xfe",)),
        Reply(headers={"content-type": "application/json"}, pieces=(b"[" * 100_000,)),
    ],
    ids=["empty", "list", "no choices", "no end", "cut", "html", "no text", "deep"],
)
async def test_an_answer_that_is_none_is_a_bad_response(reply: Reply) -> None:
    assert type(await error_of(reply)) is BadResponseError


async def test_an_error_within_an_answer_is_that_error() -> None:
    error = await error_of(Reply.json({"error": {"code": 429, "message": "slow down"}}))
    assert type(error) is RateLimitError
    assert error.retryable


async def test_nobody_there_is_a_connection_error() -> None:
    async with LoopbackServer(both) as server:
        url = server.url
    async with OpenAIProvider(base_url=url) as provider:
        for stream in (False, True):
            with pytest.raises(ProviderConnectionError) as caught:
                await ask(provider, HELLO, stream=stream)
            assert caught.value.retryable
            assert isinstance(caught.value, ConnectionError)
            assert f"no connection to {url.removeprefix('http://')} (" in str(caught.value)
    broken = Reply(headers={"content-type": "application/json"}, pieces=(b"{",), ending="drop")
    assert type(await error_of(broken)) is ProviderConnectionError


async def test_long_texts_of_servers_are_cut_and_put_on_one_line() -> None:
    text = str(await error_of(failed(500, {"message": "word\n" * 10_000})))
    assert len(text) < 600
    assert "\n" not in text


# -- Streams that break off


BEGUN = (piece({"role": "assistant", "content": ""}), piece({"content": "Half an"}))


@pytest.mark.parametrize(
    "reply",
    [
        streamed(*BEGUN, done=False),
        streamed(*BEGUN),
        streamed(*BEGUN, '{"choices": [{"delta": {"con', done=False),
        streamed(*BEGUN, b"data: \xff\xfe\n\n", done=False),
        streamed(*BEGUN, done=False, ending="drop"),
        streamed(*BEGUN, {"error": {"message": "gone", "code": "server_error"}}),
        streamed(*BEGUN, done=False, ending="hold"),
    ],
    ids=["ends early", "no end", "corrupt", "no text", "dropped", "error event", "stalled"],
)
async def test_however_a_stream_breaks_off_the_error_is_the_same(reply: Reply) -> None:
    async with talking(reply, read_timeout=0.3) as (_, provider):
        with pytest.raises(StreamInterruptedError) as caught:
            await ask(provider, HELLO, stream=True)
    error = caught.value
    assert isinstance(error.partial, LLMResponse)
    assert error.partial.text == "Half an"
    assert error.partial.finish_reason == "error"
    assert error.partial.request_id == "req-1"
    assert not error.retryable, "the beginning was handed on"


@pytest.mark.parametrize(
    ("reply", "retryable"),
    [
        (streamed(done=False), True),
        (streamed(BEGUN[0], done=False, ending="drop"), True),
        (streamed({"error": {"message": "busy", "code": "overloaded_error"}}), True),
        (streamed({"error": {"message": "slow", "code": 429}}), True),
        (streamed({"error": {"message": "long", "code": "context_length_exceeded"}}), False),
    ],
)
async def test_a_stream_that_showed_nothing_may_be_tried_again(
    reply: Reply, retryable: bool
) -> None:
    error = await error_of(reply, stream=True)
    assert type(error) is StreamInterruptedError
    assert error.retryable is retryable


async def test_leaving_a_stream_closes_the_connection_at_once() -> None:
    async with talking(streamed(*BEGUN, done=False, ending="hold")) as (server, provider):
        async with closing(provider.stream(HELLO)) as chunks:
            async for _ in chunks:
                break
        await server.left.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_closes_the_connection_at_once(stream: bool) -> None:
    asked = asyncio.Event()
    silent = Reply(headers={"content-type": "application/json"}, pieces=(b" ",), ending="hold")

    def reply(_: Heard) -> Reply:
        asked.set()
        return streamed(*BEGUN, done=False, ending="hold") if stream else silent

    async with talking(reply) as (server, provider):
        call = asyncio.create_task(ask(provider, HELLO, stream=stream))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.left.wait()


async def test_the_timeout_of_a_request_is_for_the_whole_call() -> None:
    request = replace(HELLO, timeout=0.3)
    silent = Reply(headers={"content-type": "application/json"}, pieces=(b" ",), ending="hold")
    async with talking(silent) as (server, provider):
        with pytest.raises(ProviderTimeoutError) as caught:
            await provider.complete(request)
        await server.left.wait()
    assert caught.value.retryable
    async with talking(streamed(*BEGUN, done=False, ending="hold")) as (server, provider):
        with pytest.raises(ProviderTimeoutError) as caught:
            await ask(provider, request, stream=True)
        await server.left.wait()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Half an"
    assert not caught.value.retryable


# -- Settings


async def test_the_key_is_looked_for_in_options_the_environment_and_dotenv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def key_sent(**options: str) -> str:
        async with LoopbackServer(both) as server:
            made = build(
                ProviderSettings(
                    name="openai",
                    options={"base_url": server.url, **options},
                    variables={"OPENAI_API_KEY": "from-dotenv"},
                )
            )
            assert isinstance(made, OpenAIProvider)
            async with made:
                await made.complete(HELLO)
        return server.heard[0].headers["authorization"].removeprefix("Bearer ")

    assert await key_sent() == "from-dotenv"
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    assert await key_sent() == "from-environment"
    assert await key_sent(api_key="from-option") == "from-option"


def wrong(variables: dict[str, str] | None = None, **options: str) -> str:
    settings = ProviderSettings(name="openai", options=options, variables=variables or {})
    with pytest.raises(ConfigurationError) as caught:
        build(settings)
    return str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_of_a_line_behind_a_key_is_not_part_of_it(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    async with LoopbackServer(both) as server, OpenAIProvider(base_url=server.url) as provider:
        await ask(provider, HELLO, stream=stream)
    assert server.heard[0].headers["authorization"] == f"Bearer {KEY}"


def test_what_can_t_be_a_key_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigurationError, match="api_key: expected a key") as caught:
        OpenAIProvider(api_key="sk-secret\nkey")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret key")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY: expected a key") as caught:
        OpenAIProvider()
    assert "secret" not in str(caught.value)


def test_a_key_is_hidden_however_its_end_is_shown() -> None:
    errors = SdkErrors(
        api=APIError, status=APIStatusError, timeout=APITimeoutError, connection=APIConnectionError
    )
    failures = Failures("openai", errors, secrets=(f"{KEY}\n",))
    text = str(failures.unusable(f"Illegal header value b'Bearer {KEY}\\n'"))
    assert text == "openai: Illegal header value b'Bearer [redacted]\\n'"


@pytest.mark.parametrize("empty", ["", " "])
async def test_a_variable_that_is_set_to_nothing_says_nothing(
    monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", empty)
    asked: list[str] = []

    def reply(request: Request) -> Response:
        asked.append(str(request.url))
        return Response(200, json=whole({"content": "Hi"}))

    client = AsyncClient(transport=MockTransport(reply), verify=TLS)
    async with OpenAIProvider(api_key=KEY, http_client=client) as provider:
        await provider.complete(HELLO)
    assert asked == ["https://api.openai.com/v1/chat/completions"]


async def test_the_environment_says_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with LoopbackServer(both) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        async with OpenAIProvider() as provider:
            await provider.complete(HELLO)
    assert len(server.heard) == 1
    monkeypatch.setenv("OPENAI_BASE_URL", "http://[")
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        OpenAIProvider(api_key=KEY)


def test_a_missing_key_is_a_line_that_names_the_variable() -> None:
    assert "OPENAI_API_KEY" in wrong()
    assert "\n" not in wrong()
    assert "OPENAI_API_KEY" in wrong({"OPENAI_API_KEY": " "})
    assert "OPENAI_API_KEY" in wrong(base_url="https://llm.example.com/v1")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIProvider()


def test_settings_that_cannot_be_used_are_refused_without_being_shown() -> None:
    assert "secret" not in wrong({"OPENAI_API_KEY": "secret\nkey"})
    assert "ASCII" in wrong(api_key="h\u00e9")
    assert "provider.options.base_url" in wrong(api_key=KEY, base_url="localhost:1234")
    assert "provider.options.base_url" in wrong(api_key=KEY, base_url="http://[")
    assert "`base_url`" in wrong(api_key=KEY, baseurl="x")
    assert "limit_field" in wrong(api_key=KEY, limit_field="tokens")
    assert "read_timeout" in wrong(api_key=KEY, read_timeout="0")
    assert "send_reasoning" in wrong(api_key=KEY, send_reasoning="perhaps")


async def test_options_of_the_settings_reach_the_calls() -> None:
    async with LoopbackServer(both) as server:
        settings = ProviderSettings(
            name="openai",
            model="a-model",
            options={
                "api_key": KEY,
                "base_url": server.url,
                "limit_field": "max_tokens",
                "organization": "org",
                "project": "team",
                "read_timeout": "20",
                "send_reasoning": "true",
                "stream_usage": "false",
            },
        )
        thought = ChatMessage.assistant(ThinkingPart(text="Hm.", provider="openai"))
        request = LLMRequest(messages=(thought,), max_output_tokens=3)
        provider = build(settings)
        assert isinstance(provider, OpenAIProvider)
        async with provider:
            await ask(provider, request, stream=True)
    heard = server.heard[0]
    body = heard.json()
    assert (body["model"], body["max_tokens"]) == ("a-model", 3)
    assert "stream_options" not in body
    assert "reasoning_content" in json.dumps(body["messages"])
    assert heard.headers["openai-organization"] == "org"
    assert heard.headers["openai-project"] == "team"
    assert heard.headers["x-stainless-read-timeout"] == "20.0"

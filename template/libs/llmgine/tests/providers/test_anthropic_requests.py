"""What goes over the wire to Anthropic, and what is refused before anything does."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Generator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    MediaPart,
    OpaquePart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from llmgine.contracts.chat import JsonValue, Part
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, NamedTool, Reasoning
from llmgine.contracts.stream import fold_stream
from llmgine.errors import InvalidRequestError
from llmgine.testing.loopback import Heard, LoopbackServer, Reply

pytest.importorskip("anthropic", reason="the extra `anthropic` isn't installed")

from llmgine.providers.anthropic import AnthropicProvider

HELLO = ChatMessage.user("Hello")
ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
PNG = b"\x89PNG"


def echo(heard: Heard) -> Reply:
    """Answer with what the request says that the assistant said, if it does."""
    messages: Any = heard.json()["messages"]
    said = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    return Reply.json({**ANSWER, "content": said[0] if said else ANSWER["content"]})


class Desk:
    """A provider and its server for many short tests: making a client takes long."""

    def __init__(
        self, runner: asyncio.Runner, provider: AnthropicProvider, server: LoopbackServer
    ) -> None:
        self._runner = runner
        self.provider = provider
        self.server = server

    def asked(self, request: LLMRequest) -> tuple[LLMResponse, Heard]:
        """Return the answer to a request, and what the server heard of it."""
        response = self._runner.run(self.provider.complete(request))
        return response, self.server.heard.pop()

    def sent(self, request: LLMRequest) -> dict[str, Any]:
        """Return the body that a request becomes."""
        return self.asked(request)[1].json()

    def turns(self, *messages: ChatMessage) -> list[dict[str, Any]]:
        """Return what a conversation becomes."""
        return self.sent(LLMRequest(messages=messages))["messages"]

    def repeated(self, *messages: ChatMessage) -> ChatMessage:
        """Return the assistant's first message as it comes back."""
        return self.asked(LLMRequest(messages=(HELLO, *messages)))[0].message

    def refused(self, request: LLMRequest) -> tuple[InvalidRequestError, InvalidRequestError]:
        """Return the errors of a request, from both methods."""
        with pytest.raises(InvalidRequestError) as whole:
            self._runner.run(self.provider.complete(request))
        with pytest.raises(InvalidRequestError) as streamed:
            self._runner.run(fold_stream(self.provider.stream(request)))
        assert not self.server.heard
        return whole.value, streamed.value


@pytest.fixture(scope="module")
def desk() -> Generator[Desk]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(LoopbackServer(echo)))
        provider = AnthropicProvider(api_key="sk-test", base_url=server.url)
        runner.run(stack.enter_async_context(provider))
        yield Desk(runner, provider, server)
        runner.run(stack.aclose())


def tool(name: str, description: str = "") -> ToolDefinition:
    parameters: dict[str, object] = {"properties": {"x": {"type": "integer"}}}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def test_a_plain_request(desk: Desk) -> None:
    _, heard = desk.asked(LLMRequest(messages=(HELLO,)))
    assert (heard.method, heard.path) == ("POST", "/v1/messages")
    assert heard.headers["authorization"] == "Bearer sk-test"
    assert heard.json() == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }


def test_every_setting_has_its_place(desk: Desk) -> None:
    body = desk.sent(
        LLMRequest(
            messages=(HELLO,),
            model="claude-other",
            tools=(tool("add", "Adds."), tool("stop")),
            tool_choice=NamedTool(name="add"),
            parallel_tool_calls=False,
            max_output_tokens=100,
            stop=("END",),
            response_format=JsonSchemaFormat(name="s", schema={"type": "object"}),
            reasoning=Reasoning(effort="low"),
            user_id="ada",
            provider_options={"service_tier": "auto"},
        )
    )
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    del body["messages"]
    assert body == {
        "model": "claude-other",
        "max_tokens": 100,
        "tools": [
            {"name": "add", "description": "Adds.", "input_schema": schema},
            {"name": "stop", "input_schema": schema},
        ],
        "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "output_config": {
            "format": {"type": "json_schema", "schema": {"type": "object"}},
            "effort": "low",
        },
        "thinking": {"type": "adaptive"},
        "metadata": {"user_id": "ada"},
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    ("wanted", "thinking", "longest"),
    [
        (Reasoning(), None, 8192),
        (Reasoning(effort="none"), {"type": "disabled"}, 8192),
        (Reasoning(budget_tokens=2000), {"type": "enabled", "budget_tokens": 2000}, 10192),
        (Reasoning(summary="auto"), {"type": "adaptive", "display": "summarized"}, 8192),
        (Reasoning(summary="omitted"), {"type": "adaptive", "display": "omitted"}, 8192),
    ],
)
def test_reasoning(
    desk: Desk, wanted: Reasoning, thinking: dict[str, object] | None, longest: int
) -> None:
    body = desk.sent(LLMRequest(messages=(HELLO,), reasoning=wanted))
    assert body.get("thinking") == thinking
    assert "output_config" not in body
    assert body["max_tokens"] == longest


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", True, {"type": "any", "disable_parallel_tool_use": False}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (NamedTool(name="add"), None, {"type": "tool", "name": "add"}),
    ],
)
def test_tool_choice(desk: Desk, choice: Any, parallel: bool | None, expected: object) -> None:
    body = desk.sent(
        LLMRequest(
            messages=(HELLO,),
            tools=(tool("add"),),
            tool_choice=choice,
            parallel_tool_calls=parallel,
        )
    )
    assert body.get("tool_choice") == expected


def test_a_tool_may_be_strict(desk: Desk) -> None:
    definition = tool("add")
    definition["function"]["strict"] = True
    body = desk.sent(LLMRequest(messages=(HELLO,), tools=(definition,)))
    assert body["tools"][0]["strict"] is True


def test_anthropics_own_tools_join_the_requests_and_betas_become_a_header(desk: Desk) -> None:
    search: dict[str, JsonValue] = {"type": "web_search_20260318", "name": "web_search"}
    request = LLMRequest(
        messages=(HELLO,),
        tools=(tool("add"),),
        provider_options={"tools": [search], "betas": ["one", "two"], "workspace_id": "w"},
    )
    _, heard = desk.asked(request)
    body: dict[str, Any] = heard.json()
    assert [each["name"] for each in body["tools"]] == ["add", "web_search"]
    assert "betas" not in body
    assert heard.headers["anthropic-beta"] == "one,two"
    assert heard.headers["anthropic-workspace-id"] == "w"


def test_no_penalty_is_nothing_to_refuse(desk: Desk) -> None:
    _, heard = desk.asked(
        LLMRequest(messages=(HELLO,), presence_penalty=0.0, frequency_penalty=0.0)
    )
    assert heard.json().keys() == {"model", "max_tokens", "messages"}


async def test_an_older_version_of_the_api_takes_sampling() -> None:
    request = LLMRequest(messages=(HELLO,), temperature=0.5, top_p=0.9, top_k=3)
    async with (
        LoopbackServer(Reply.json(ANSWER)) as server,
        AnthropicProvider(
            api_key="sk-test", base_url=server.url, api_version="2023-06-01"
        ) as provider,
    ):
        await provider.complete(request)
    body = server.heard[0].json()
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.5, 0.9, 3)
    assert server.heard[0].headers["anthropic-version"] == "2023-06-01"


def test_system_messages_go_to_the_front_and_sides_alternate(desk: Desk) -> None:
    body = desk.sent(
        LLMRequest(
            messages=(
                ChatMessage.system("Be brief."),
                ChatMessage.user("One"),
                ChatMessage.system(TextPart(text="Be kind.")),
                ChatMessage.user("Two"),
                ChatMessage.assistant("Yes"),
                ChatMessage.assistant("indeed"),
                ChatMessage.user(" \n"),
                ChatMessage.assistant("."),
                ChatMessage.user("Three"),
            )
        )
    )
    assert [block["text"] for block in body["system"]] == ["Be brief.", "Be kind."]
    assert [
        (turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]
    ] == [
        ("user", ["One", "Two"]),
        ("assistant", ["Yes", "indeed", "."]),
        ("user", ["Three"]),
    ]


def test_a_cache_may_end_at_any_part_or_message(desk: Desk) -> None:
    mark: dict[str, JsonValue] = {"cache_control": {"type": "ephemeral"}}
    body = desk.sent(
        LLMRequest(
            messages=(
                ChatMessage.system(TextPart(text="Long.", provider_data=mark)),
                ChatMessage(
                    role="user",
                    parts=(TextPart(text="a"), TextPart(text="b")),
                    provider_data=mark,
                ),
            )
        )
    )
    assert body["system"] == [{"type": "text", "text": "Long.", **mark}]
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", **mark},
    ]


def test_two_calls_and_their_results_are_two_turns_with_the_results_in_front(desk: Desk) -> None:
    conversation = desk.turns(
        HELLO,
        ChatMessage.assistant(
            "Let me see.",
            ToolCall(id="a", name="add", arguments='{"x": 1}'),
            ToolCall(id="b", name="stop", arguments=""),
        ),
        ChatMessage.tool(ToolResult(tool_call_id="a", name="add", content="2")),
        ChatMessage.user("Hurry!"),
        ChatMessage.tool(
            ToolResult(
                tool_call_id="b",
                name="stop",
                content=(
                    TextPart(text="broken"),
                    MediaPart(kind="image", data=PNG, media_type="image/png"),
                ),
                is_error=True,
            )
        ),
    )
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    assert conversation[1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "stop", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "2"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [
                        {"type": "text", "text": "broken"},
                        {"type": "image", "source": image},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "Hurry!"},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            MediaPart(kind="image", url="https://x/y.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        ),
        (
            MediaPart(kind="image", url="data:image/png;base64,iVBORw=="),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
            },
        ),
        (
            MediaPart(kind="image", file_id="file_1"),
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            MediaPart(kind="document", data=b"%PDF", name="Report"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "Report",
            },
        ),
        (
            MediaPart(kind="document", url="data:text/plain,caf%C3%A9"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "café"},
            },
        ),
        (
            MediaPart(
                kind="document",
                url="https://x/y.pdf",
                provider_data={"citations": {"enabled": True}, "detail": "high"},
            ),
            {
                "type": "document",
                "source": {"type": "url", "url": "https://x/y.pdf"},
                "citations": {"enabled": True},
            },
        ),
    ],
)
def test_media(desk: Desk, part: MediaPart, block: dict[str, object]) -> None:
    assert (desk.turns(ChatMessage.user(part)))[0]["content"] == [block]


def test_who_of_several_users_speaks_stands_before_the_text(desk: Desk) -> None:
    ada = ChatMessage(role="user", name="Ada", parts=(TextPart(text="Hi."),))
    assert (desk.turns(ada))[0]["content"][0]["text"] == "Ada: Hi."


async def test_a_history_of_another_provider_is_taken_and_what_stays_behind_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = LLMRequest(
        messages=(
            HELLO,
            ChatMessage.assistant(
                ThinkingPart(text="Hm.", provider="openai", signature="x"),
                OpaquePart(provider="openai", data={"type": "web_search_call"}),
                TextPart(text="", provider_data=None),
                RefusalPart(text="Not that."),
                ToolCall(
                    id="call|1.ä", name="add", arguments="{broken", provider_data={"id": "fc_1"}
                ),
            ),
            ChatMessage.tool(ToolResult(tool_call_id="call|1.ä", name="add", content="Bad JSON.")),
        )
    )
    async with (
        LoopbackServer(Reply.json(ANSWER)) as server,
        AnthropicProvider(api_key="sk-test", base_url=server.url) as provider,
    ):
        with caplog.at_level(logging.WARNING, "llmgine"):
            await provider.complete(request)
            await provider.complete(request)
    assert server.heard[0].body == server.heard[1].body
    body: dict[str, Any] = server.heard[0].json()
    _, answer, result = body["messages"]
    refusal, call = answer["content"]
    assert refusal == {"type": "text", "text": "Not that."}
    assert call["input"] == {}
    assert call["id"] == result["content"][0]["tool_use_id"]
    assert call["id"].replace("-", "").replace("_", "").isalnum()
    assert call["id"].isascii()
    notes = [record.message for record in caplog.records]
    assert len(notes) == len(set(notes)) == 4
    # What was given stays as it was: the raw text is still there for whoever can use it.
    assert request.messages[1].tool_calls[0].arguments == "{broken"


@pytest.mark.parametrize("signature", [None, ""])
def test_thoughts_that_were_cut_off_stay_behind(desk: Desk, signature: str | None) -> None:
    thought = ThinkingPart(text="Hm", signature=signature, provider="anthropic")
    turns = desk.turns(HELLO, ChatMessage.assistant(thought, "So"), ChatMessage.user("Go on."))
    assert turns[1]["content"] == [{"type": "text", "text": "So"}]
    turns = desk.turns(HELLO, ChatMessage.assistant(thought), ChatMessage.user("Go on."))
    assert [turn["role"] for turn in turns] == ["user"]


def test_ids_that_come_again_are_told_apart(desk: Desk) -> None:
    def turn(text: str) -> tuple[ChatMessage, ChatMessage]:
        calls = [ToolCall(id="call_0", name="add"), ToolCall(id="call_0", name="add")]
        results = [
            ToolResult(tool_call_id="call_0", name="add", content=f"{text}{at}") for at in (1, 2)
        ]
        return ChatMessage.assistant(*calls), ChatMessage.tool(*results)

    conversation = desk.turns(HELLO, *turn("a"), *turn("b"))
    calls = [block["id"] for at in (1, 3) for block in conversation[at]["content"]]
    results = [
        (block["tool_use_id"], block["content"])
        for at in (2, 4)
        for block in conversation[at]["content"]
    ]
    assert len(set(calls)) == 4
    assert results == list(zip(calls, ("a1", "a2", "b1", "b2"), strict=True))


OTHER = MediaPart(kind="image", data=b"", media_type="image/tiff")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"seed": 1}, "seed"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 1.0}, "provider.options.api_version"),
        ({"top_p": 1.0}, "top_p"),
        ({"top_k": 1}, "top_k"),
        ({"metadata": {"team": "a"}}, "metadata"),
        ({"response_format": JsonObjectFormat()}, "JsonSchemaFormat"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tool_choice": NamedTool(name="missing"), "tools": (tool("add"),)}, "'missing'"),
        ({"provider_options": {"max_tokens": 1}}, "'max_tokens' belongs"),
        ({"provider_options": {"stream": True}}, "'stream' belongs"),
        ({"provider_options": {"tools": ["search"]}}, "list of objects"),
        ({"messages": ()}, "nothing to answer"),
        ({"messages": (ChatMessage.system("Be kind."), ChatMessage.user(""))}, "nothing to answer"),
        ({"messages": (ChatMessage.user(OTHER),)}, "image/png.*'image/tiff'"),
        ({"messages": (ChatMessage.user(MediaPart(kind="audio", url="u")),)}, "audio"),
        (
            {"messages": (ChatMessage.user(MediaPart(kind="image", url="data:x;base64,?")),)},
            "base64",
        ),
        ({"messages": (ChatMessage.system(OTHER),)}, "no MediaPart.*'system'"),
        ({"messages": (ChatMessage.assistant(OTHER),)}, "no MediaPart.*'assistant'"),
        ({"messages": (ChatMessage.user(ToolCall(id="1", name="x")),)}, "no ToolCall.*'user'"),
        ({"messages": (ChatMessage.user("\ud800"),)}, "surrogate"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_the_call(
    desk: Desk, fields: dict[str, Any], reason: str
) -> None:
    fields.setdefault("messages", (HELLO,))
    for error in desk.refused(LLMRequest(**fields)):
        assert re.search(reason, str(error))
        assert not error.retryable


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
TEXTS = st.builds(
    TextPart,
    text=WORDS,
    provider_data=st.sampled_from([None, {"citations": [{"cited_text": "x"}]}]),
)
THOUGHTS = st.builds(
    ThinkingPart, text=st.just("") | WORDS, signature=WORDS, provider=st.just("anthropic")
) | st.builds(ThinkingPart, redacted=WORDS, provider=st.just("anthropic"))
CALLS = st.builds(
    ToolCall,
    id=st.text("abcXYZ019_-", min_size=1, max_size=12),
    name=WORDS,
    arguments=OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False)),
    provider_data=st.sampled_from([None, {"caller": {"type": "direct"}}]),
)
OPAQUE = st.builds(
    OpaquePart,
    provider=st.just("anthropic"),
    data=OBJECTS.map(lambda value: {"type": "server_tool_use", "input": value}),
)


@settings(max_examples=25)
@given(parts=st.lists(TEXTS | THOUGHTS | CALLS | OPAQUE, min_size=1, max_size=5))
def test_what_claude_said_goes_back_as_it_came(desk: Desk, parts: list[Part]) -> None:
    told_apart = [
        replace(part, id=f"{part.id}{at}") if isinstance(part, ToolCall) else part
        for at, part in enumerate(parts)
    ]
    said = ChatMessage.assistant(*told_apart)
    assert desk.repeated(said) == said


@given(
    call_id=st.text(),
    arguments=st.text()
    | st.sampled_from(["NaN", "[1]", '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 9_999, "1" * 9_999]),
)
def test_no_history_is_too_broken_to_be_sent(desk: Desk, call_id: str, arguments: str) -> None:
    call = ToolCall(id=call_id, name="add", arguments=arguments)
    result = ToolResult(tool_call_id=call_id, name="add", content="Error.", is_error=True)
    again = desk.repeated(ChatMessage.assistant(call, call), ChatMessage.tool(result, result))
    ids = [each.id for each in again.tool_calls]
    assert len(set(ids)) == 2
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in ids)
    assert all(isinstance(json.loads(each.arguments), dict) for each in again.tool_calls)


@pytest.mark.parametrize("depth", [64, 400, 100_000])
def test_deep_arguments_are_sent_or_left_out(desk: Desk, depth: int) -> None:
    arguments = '{"a":' * depth + "1" + "}" * depth
    again = desk.repeated(ChatMessage.assistant(ToolCall(id="1", name="add", arguments=arguments)))
    (call,) = again.tool_calls
    assert call.arguments == "{}" or json.loads(call.arguments) == json.loads(arguments)

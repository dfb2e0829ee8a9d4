"""The provider without a model: its own few words, and other people's scripts."""

from __future__ import annotations

import json

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    MediaPart,
    TextDelta,
    ToolCall,
    ToolDefinition,
    ToolResult,
    closing,
    fold_stream,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, NamedTool, ToolChoice
from llmgine.errors import (
    ConfigurationError,
    InvalidRequestError,
    RateLimitError,
    ScriptError,
    StreamInterruptedError,
)
from llmgine.providers import ScriptedProvider
from llmgine.providers.scripted import BrokenStream, build
from llmgine.settings import ProviderSettings
from llmgine.testing.provider_suite import ProviderSuite


class TestScriptedProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return ScriptedProvider()


def tool(name: str, **properties: JsonValue) -> ToolDefinition:
    schema: dict[str, object] = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }
    return {
        "type": "function",
        "function": {"name": name, "description": "", "parameters": schema},
    }


ADD = tool("add_numbers", a={"type": "integer"}, b={"type": "number", "maximum": 4})
TIME = tool("currentTime", zone={"type": "string", "enum": ["UTC", "CET"]})


def request(text: str, *tools: ToolDefinition, choice: ToolChoice | None = None) -> LLMRequest:
    return LLMRequest(messages=(ChatMessage.user(text),), tools=tools, tool_choice=choice)


async def ask(text: str, *tools: ToolDefinition, choice: ToolChoice | None = None) -> LLMResponse:
    return await ScriptedProvider().complete(request(text, *tools, choice=choice))


async def test_it_says_what_it_is_and_how_to_switch() -> None:
    answer = await ask("hello")
    assert answer.text.startswith("Hello!")
    assert "scripted" in answer.text
    assert "settings.toml" in answer.text
    assert answer.usage.output_tokens
    assert answer.usage.details == {"estimated": 1}


async def test_it_repeats_and_is_brief_the_second_time() -> None:
    first = await ask("The bus is late")
    history = (ChatMessage.user("The bus is late"), first.message, ChatMessage.user("Still late"))
    second = await ScriptedProvider().complete(LLMRequest(messages=history))
    assert "You said: The bus is late" in first.text
    assert second.text == "You said: Still late\n\n(scripted: no model was asked)"


async def test_the_same_request_has_the_same_answer() -> None:
    provider = ScriptedProvider()
    whole = await provider.complete(request("add 1 and 2", ADD))
    streamed = await fold_stream(provider.stream(request("add 1 and 2", ADD)))
    assert whole.message == streamed.message
    assert whole == await ScriptedProvider().complete(request("add 1 and 2", ADD))


async def test_it_streams_a_word_at_a_time() -> None:
    chunks = [chunk async for chunk in ScriptedProvider().stream(request("hello"))]
    pieces = [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]
    assert len(pieces) > 10
    assert all(len(piece.split()) <= 1 for piece in pieces)


@pytest.mark.parametrize("text", ["", "   "])
async def test_silence_is_answered_too(text: str) -> None:
    assert "repeat" in (await ask(text)).text
    assert (await ScriptedProvider().complete(LLMRequest(messages=()))).text


async def test_a_long_text_is_not_repeated_whole() -> None:
    assert len((await ask("x" * 10_000)).text) < 1_000


async def test_a_tool_that_is_named_is_called() -> None:
    answer = await ask("Please add 3 and 7.5", TIME, ADD)
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("add_numbers", {"a": 3, "b": 4})
    (call,) = (await ask("what time is it in CET?", ADD, TIME)).tool_calls
    assert (call.name, json.loads(call.arguments)) == ("currentTime", {"zone": "CET"})
    assert (await ask("use a tool", ADD)).tool_calls
    assert not (await ask("what is it?", ADD, TIME)).tool_calls


CALCULATE = tool("calculate", expression={"type": "string"})
READ = tool("read_file", path={"type": "string"}, first_line={"type": "integer"})
NOW: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "current_time",
        "description": "",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
}


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("what is 12*34?", "calculate", {"expression": "12*34"}),
        ("What's (1.5 + 2) * -3, please?", "calculate", {"expression": "(1.5 + 2) * -3"}),
        ("5 - 3 or 2^10", "calculate", {"expression": "5 - 3"}),
        ("What time is it?", "current_time", {}),
        ("and in Asia/Tokyo?", "current_time", {"zone": "Asia/Tokyo"}),
        ("Read docs/concepts.md", "read_file", {"path": "docs/concepts.md", "first_line": 1}),
    ],
)
async def test_what_a_text_holds_becomes_an_argument(
    text: str, name: str, arguments: dict[str, JsonValue]
) -> None:
    (call,) = (await ask(text, CALCULATE, READ, NOW)).tool_calls
    assert (call.name, json.loads(call.arguments)) == (name, arguments)


@pytest.mark.parametrize("text", ["on 2026-11-22 at 555-1234", "version 3.14", "e.g. this", "a/b"])
async def test_what_only_looks_like_an_argument_is_none(text: str) -> None:
    assert not (await ask(text, CALCULATE, READ, NOW)).tool_calls


@pytest.mark.parametrize("piece", ["x", "1", "1*", "(", "a.", "A/"])
async def test_a_long_text_is_searched_in_no_time(piece: str) -> None:
    assert (await ask(piece * 20_000, CALCULATE, READ, NOW)).message.parts


async def test_it_offers_questions_that_lead_to_calls() -> None:
    tools = (NOW, ADD, READ, CALCULATE)
    offer = (await ask("hello", *tools)).text.partition("try ")[2]
    questions = [each.strip('".') for each in offer.split(", ")]
    assert questions[1:] == ["Use add_numbers", "Read README.md", "What is 12*34?"]
    for question, wanted in zip(questions, tools, strict=True):
        (call,) = (await ask(question, *tools)).tool_calls
        assert call.name == wanted["function"]["name"]
    assert "tools" not in (await ask("hello")).text
    assert "tools" not in (await ask("hello", *tools, choice="none")).text


async def test_tool_choice_is_obeyed() -> None:
    assert (await ask("hi", ADD, TIME, choice="required")).tool_calls[0].name == "add_numbers"
    named = await ask("hi", ADD, TIME, choice=NamedTool(name="currentTime"))
    assert named.tool_calls[0].name == "currentTime"
    assert not (await ask("add 1 and 2", ADD, choice="none")).tool_calls
    with pytest.raises(InvalidRequestError, match="no tools"):
        await ask("hi", choice="required")


async def test_it_reports_what_tools_answered() -> None:
    call = ToolCall(id="1", name="add_numbers")
    history = (
        ChatMessage.user("add 1 and 2"),
        ChatMessage.assistant(call),
        ChatMessage.tool(
            ToolResult(tool_call_id="1", name="add_numbers", content="3"),
            ToolResult(tool_call_id="2", name="other", content="boom", is_error=True),
            ToolResult(tool_call_id="3", name="long", content="x" * 10_000),
        ),
    )
    answer = await ScriptedProvider().complete(LLMRequest(messages=history, tools=(ADD,)))
    assert "`add_numbers` answered: 3" in answer.text
    assert "`other` failed: boom" in answer.text
    assert len(answer.text) < 1_000
    assert not answer.tool_calls


SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "$defs": {"point": {"properties": {"x": {"$ref": "#/$defs/x"}}, "required": ["x"]}, "x": {}},
    "properties": {
        "name": {"type": "string", "maxLength": 3, "minLength": 2},
        "n": {"type": "integer", "minimum": 5},
        "kind": {"const": "k"},
        "tags": {"type": "array", "minItems": 2, "items": {"type": "string"}},
        "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "on": {"type": ["boolean", "null"]},
        "where": {"$ref": "#/$defs/point"},
        "loop": {"$ref": "#/properties/loop"},
    },
    "required": ["name", "n", "kind", "tags", "either", "on", "where", "loop"],
}


async def test_json_is_made_up_where_asked_for() -> None:
    wanted = LLMRequest(
        messages=(ChatMessage.user('call it "Ada"'),),
        response_format=JsonSchemaFormat(name="s", schema=SCHEMA),
    )
    made_up = json.loads((await ScriptedProvider().complete(wanted)).text)
    assert made_up == {
        "name": "Ada",
        "n": 5,
        "kind": "k",
        "tags": ['call it "Ada"', 'call it "Ada"'],
        "either": None,
        "on": True,
        "where": {"x": 'call it "Ada"'},
        "loop": None,
    }
    free = LLMRequest(messages=(ChatMessage.user("hi"),), response_format=JsonObjectFormat())
    assert json.loads((await ScriptedProvider().complete(free)).text)["text"] == "hi"


async def test_limits_of_the_answer_hold() -> None:
    short = LLMRequest(messages=(ChatMessage.user("hello"),), max_output_tokens=1)
    answer = await ScriptedProvider().complete(short)
    assert (answer.text, answer.finish_reason) == ("Hell", "length")
    stopped = LLMRequest(messages=(ChatMessage.user("hello"),), stop=("lo", "!", ""))
    answer = await ScriptedProvider().complete(stopped)
    assert (answer.text, answer.finish_reason, answer.stop_sequence) == ("Hel", "stop", "lo")


async def test_a_script_is_followed_step_by_step() -> None:
    response = LLMResponse(message=ChatMessage.assistant("whole"), id="7", provider="other")
    provider = ScriptedProvider(
        [
            "text",
            ChatMessage.assistant(ToolCall(id="1", name="look")),
            response,
            RateLimitError("slow down", retry_after=2.0),
            lambda asked: f"{len(asked.messages)} message(s)",
            lambda _: RateLimitError("again"),
        ],
        name="double",
    )
    first = await provider.complete(request("a"))
    assert (first.text, first.provider, first.model) == ("text", "double", "double")
    second = await fold_stream(provider.stream(request("b")))
    assert second.finish_reason == "tool_calls"
    assert await fold_stream(provider.stream(request("c"))) == response
    with pytest.raises(RateLimitError, match="slow down"):
        await provider.complete(request("d"))
    with pytest.raises(ScriptError, match=r"2 step\(s\)"):
        provider.assert_finished()
    assert (await provider.complete(request("e"))).text == "1 message(s)"
    with pytest.raises(RateLimitError, match="again"):
        await fold_stream(provider.stream(request("f")))
    provider.assert_finished()
    assert [asked.messages[0].text for asked in provider.requests] == list("abcdef")


async def test_an_unexpected_call_fails_loudly() -> None:
    provider = ScriptedProvider([])
    with pytest.raises(ScriptError, match="asked: 'why'"):
        await provider.complete(request("why"))
    with pytest.raises(AssertionError):
        await fold_stream(provider.stream(LLMRequest(messages=())))


async def test_a_stream_breaks_off_where_the_script_says() -> None:
    provider = ScriptedProvider(
        [
            BrokenStream("one two three", after=2),
            BrokenStream("short", after=99, error=RateLimitError("late")),
            BrokenStream("never"),
        ]
    )
    heard: list[str] = []

    async def hear() -> None:
        async for chunk in provider.stream(request("a")):
            heard.extend([chunk.text] if isinstance(chunk, TextDelta) else [])

    with pytest.raises(StreamInterruptedError) as caught:
        await hear()
    assert heard == ["one", " two"]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"
    with pytest.raises(RateLimitError, match="late"):
        await fold_stream(provider.stream(request("b")))
    with pytest.raises(StreamInterruptedError):
        await provider.complete(request("c"))


async def test_its_default_words_keep_no_requests() -> None:
    provider = ScriptedProvider()
    await provider.complete(request("a"))
    assert provider.requests == []
    provider.assert_finished()


async def test_pictures_are_counted_as_words_they_are_not() -> None:
    picture = ChatMessage.user("see", MediaPart(kind="image", url="u"))
    answer = await ScriptedProvider().complete(LLMRequest(messages=(picture,)))
    assert "You said: see" in answer.text


async def test_the_factory_reads_its_option() -> None:
    provider = build(ProviderSettings(options={"delay": "0"}))
    async with closing(provider.stream(request("hello"))) as chunks:
        assert (await fold_stream(chunks)).text.startswith("Hello!")
    assert (await fold_stream(build(ProviderSettings()).stream(request("", choice="none")))).text


@pytest.mark.parametrize("delay", ["soon", "-1", "nan", "inf"])
def test_a_bad_option_is_named(delay: str) -> None:
    with pytest.raises(ConfigurationError, match=r"provider\.options\.delay: expected seconds"):
        build(ProviderSettings(options={"delay": delay}))
    with pytest.raises(ConfigurationError, match=r"provider\.options\.key"):
        build(ProviderSettings(options={"key": "x"}))

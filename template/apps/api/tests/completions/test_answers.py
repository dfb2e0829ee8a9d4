"""Whole answers, asked for by an unmodified OpenAI client of a real server."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import openai
import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMResponse,
    MediaPart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    Usage,
)
from llmgine.contracts.llm import JsonObjectFormat, JsonSchemaFormat, NamedTool, Reasoning
from llmgine.contracts.protocols import ProviderCapabilities
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from pydantic import BaseModel

if TYPE_CHECKING:
    from conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

Create: TypeAlias = Callable[..., Awaitable[ChatCompletion]]
HI: list[Any] = [{"role": "user", "content": "Hi"}]
PIXEL = b"\x89PNG..."
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find something.",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
}
FOUND = ToolCall(id="call-1", name="find", arguments='{"what": "keys"}')


def creating(stage: Stage) -> Create:
    return stage.client.chat.completions.create


async def ask(stage: Stage, messages: list[Any] | None = None, **fields: Any) -> ChatCompletion:
    return await creating(stage)(model=stage.model, messages=messages or HI, **fields)


async def said(stage: Stage, messages: list[Any] | None = None, **fields: Any) -> str | None:
    return (await ask(stage, messages, **fields)).choices[0].message.content


# -- What an answer says


async def test_an_answer_has_openai_s_shape(stage: Stage) -> None:
    stage.script("Hello!")
    answer = await ask(stage)
    (choice,) = answer.choices
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.created > 1_700_000_000
    assert answer.model == stage.model
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello!")
    assert (choice.message.refusal, choice.message.tool_calls) == (None, None)


async def test_no_key_and_no_script_are_needed(stage: Stage) -> None:
    assert "scripted stand-in" in str(await said(stage))


async def test_the_model_is_called_what_the_provider_calls_it(stage: Stage) -> None:
    stage.script(
        LLMResponse(
            message=ChatMessage.assistant("ok"),
            model="model-1-2026",
            provider_data={"system_fingerprint": "fp_1"},
        )
    )
    answer = await ask(stage)
    assert (answer.model, answer.system_fingerprint) == ("model-1-2026", "fp_1")


async def test_usage(stage: Stage) -> None:
    usage = Usage(input_tokens=7, output_tokens=5, cache_read_tokens=3, reasoning_tokens=2)
    stage.script(LLMResponse(message=ChatMessage.assistant("ok"), usage=usage))
    told = (await ask(stage)).usage
    assert told is not None
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (7, 5, 12)
    assert told.prompt_tokens_details is not None
    assert told.prompt_tokens_details.cached_tokens == 3
    assert told.completion_tokens_details is not None
    assert told.completion_tokens_details.reasoning_tokens == 2


async def test_usage_that_nobody_reports_is_not_zero(stage: Stage) -> None:
    stage.script(LLMResponse(message=ChatMessage.assistant("ok")))
    assert (await ask(stage)).usage is None


async def test_reasoning_is_told_as_other_servers_do(stage: Stage) -> None:
    stage.script(ChatMessage.assistant(ThinkingPart(text="Hm."), "Yes."))
    message = (await ask(stage)).choices[0].message
    assert message.content == "Yes."
    assert message.model_dump()["reasoning_content"] == "Hm."


async def test_a_refusal(stage: Stage) -> None:
    refused = ChatMessage.assistant(RefusalPart(text="I won't."))
    stage.script(LLMResponse(message=refused, finish_reason="refusal"))
    (choice,) = (await ask(stage)).choices
    assert (choice.message.content, choice.message.refusal) == (None, "I won't.")
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("refusal", "content_filter"),
        ("pause", "length"),
        ("unknown", "stop"),
    ],
)
async def test_why_an_answer_ended(stage: Stage, reason: Any, told: str) -> None:
    stage.script(LLMResponse(message=ChatMessage.assistant("so far"), finish_reason=reason))
    assert (await ask(stage)).choices[0].finish_reason == told


async def test_half_a_character_in_an_answer_comes_through(stage: Stage) -> None:
    stage.script("\ud83d")
    assert await said(stage) == "\ud83d"


# -- What a model is asked


async def test_the_history_is_the_request_s(stage: Stage) -> None:
    script = stage.script("four")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?", "name": "ada"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And 2 + 2?"},
    ]
    assert await said(stage, messages) == "four"
    assert script.requests[0].model == stage.model
    assert script.requests[0].messages == (
        ChatMessage.system("Be brief."),
        ChatMessage(role="user", parts=(TextPart(text="1 + 1?"),), name="ada"),
        ChatMessage.assistant("Two."),
        ChatMessage.user("And 2 + 2?"),
    )


async def test_nothing_is_kept_between_requests(stage: Stage) -> None:
    script = stage.script("a", "b")
    answers = [await ask(stage), await ask(stage)]
    assert script.requests[0].messages == script.requests[1].messages
    for answer in answers:
        session_id = answer.id.removeprefix("chatcmpl-")
        assert await stage.app.context.get_context(session_id) == []


async def test_developers_instruct_as_systems_do(stage: Stage) -> None:
    script = stage.script("ok")
    await ask(stage, [{"role": "developer", "content": "Be brief."}, *HI])
    assert script.requests[0].messages[0] == ChatMessage.system("Be brief.")


async def test_content_in_parts(stage: Stage) -> None:
    script = stage.script("ok")
    two = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "system", "content": two},
        {"role": "user", "content": two},
        {"role": "assistant", "content": [*two, {"type": "refusal", "refusal": "No."}]},
        *HI,
    ]
    await ask(stage, messages)
    system, user, assistant, _ = script.requests[0].messages
    assert system == ChatMessage.system("a", "b")
    assert user == ChatMessage.user("a", "b")
    assert assistant == ChatMessage.assistant("a", "b", RefusalPart(text="No."))


async def test_what_shapes_an_answer_reaches_the_provider(stage: Stage) -> None:
    script = stage.script("ok")
    await ask(
        stage,
        temperature=0,
        top_p=0.5,
        presence_penalty=-1,
        frequency_penalty=1.5,
        seed=7,
        stop=["a", "b"],
        max_completion_tokens=9,
        reasoning_effort="low",
        safety_identifier="somebody",
        parallel_tool_calls=False,
        tools=[TOOL],
    )
    (request,) = script.requests
    assert (request.temperature, request.top_p, request.seed) == (0, 0.5, 7)
    assert (request.presence_penalty, request.frequency_penalty) == (-1, 1.5)
    assert (request.stop, request.max_output_tokens) == (("a", "b"), 9)
    assert request.reasoning == Reasoning(effort="low")
    assert (request.user_id, request.parallel_tool_calls) == ("somebody", False)


async def test_labels_and_defaults_are_taken(stage: Stage) -> None:
    script = stage.script("ok")
    await ask(
        stage,
        metadata={"team": "a"},
        store=True,
        user="somebody",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        n=1,
        logprobs=False,
        logit_bias={},
        modalities=["text"],
        service_tier="auto",
        verbosity="medium",
        response_format={"type": "text"},
        stream=False,
        max_tokens=None,
    )
    assert script.requests[0].user_id == "somebody"


async def test_an_answer_ends_at_a_stop_text(stage: Stage) -> None:
    assert await said(stage, [{"role": "user", "content": "one two three"}], stop="two") == (
        "You said: one "
    )


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_ends_at_its_limit(stage: Stage, name: str) -> None:
    answer = await ask(stage, extra_body={name: 2})
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "Hello!\n\n"[:8]


# -- Forms


async def test_a_json_object(stage: Stage) -> None:
    text = await said(stage, response_format={"type": "json_object"})
    assert json.loads(str(text))["scripted"] is True


async def test_a_json_schema(stage: Stage) -> None:
    script = stage.script("{}", "{}")
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": {}}}
    await ask(stage, response_format=form)
    form["json_schema"] |= {"description": "A city.", "strict": True}
    await ask(stage, response_format=form)
    first, second = (request.response_format for request in script.requests)
    assert first == JsonSchemaFormat(name="city", schema={}, strict=False)
    assert second == JsonSchemaFormat(name="city", schema={"description": "A city."}, strict=True)


class City(BaseModel):
    name: str
    people: int


async def test_an_answer_parsed_by_the_client(stage: Stage) -> None:
    script = stage.script('{"name": "Rome", "people": 3}')
    answer = await stage.client.chat.completions.parse(
        model=stage.model, messages=HI, response_format=City
    )
    assert answer.choices[0].message.parsed == City(name="Rome", people=3)
    form = script.requests[0].response_format
    assert isinstance(form, JsonSchemaFormat)
    assert (form.name, form.strict) == ("City", True)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own class
async def test_what_the_client_parsed_can_be_sent_again(stage: Stage) -> None:
    stage.script('{"name": "Rome", "people": 3}')
    parsing = stage.client.chat.completions.parse
    first = await parsing(model=stage.model, messages=HI, response_format=City)
    messages: list[Any] = [*HI, first.choices[0].message, *HI]
    tools: Any = [openai.pydantic_function_tool(City, name="find")]
    call = ToolCall(id="1", name="find", arguments='{"name": "Rome", "people": 3}')
    stage.script(ChatMessage.assistant(call), "ok")
    second = await parsing(model=stage.model, messages=messages, tools=tools)
    calls = second.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == City(name="Rome", people=3)
    result = {"role": "tool", "tool_call_id": "1", "content": "ok"}
    assert await said(stage, [*messages, second.choices[0].message, result]) == "ok"


async def test_a_provider_without_forms_is_not_asked_for_one(stage: Stage) -> None:
    stage.actor.capabilities = ProviderCapabilities(response_format=False)
    assert await ask(stage, response_format={"type": "text"})
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(stage, response_format={"type": "json_object"})
    assert caught.value.param == "response_format"


async def test_a_form_of_any_shape(stage: Stage) -> None:
    script = stage.script("{}")
    await ask(stage, response_format={"type": "json_object"})
    assert script.requests[0].response_format == JsonObjectFormat()


# -- Pictures, sound and documents


def data_url(kind: str) -> str:
    return f"data:{kind};base64,{b64encode(PIXEL).decode()}"


MEDIA = [
    (
        {"type": "image_url", "image_url": {"url": data_url("image/png")}},
        MediaPart(kind="image", media_type="image/png", data=PIXEL),
    ),
    (
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        MediaPart(kind="image", url="https://example.org/a.png", provider_data={"detail": "low"}),
    ),
    (
        {
            "type": "input_audio",
            "input_audio": {"data": b64encode(PIXEL).decode(), "format": "mp3"},
        },
        MediaPart(kind="audio", media_type="audio/mpeg", data=PIXEL),
    ),
    (
        {
            "type": "file",
            "file": {"file_data": data_url("application/pdf"), "filename": "a.pdf"},
        },
        MediaPart(kind="document", media_type="application/pdf", data=PIXEL, name="a.pdf"),
    ),
    (
        {"type": "file", "file": {"file_id": "file-1"}},
        MediaPart(kind="document", file_id="file-1"),
    ),
]


@pytest.mark.parametrize(("sent", "read"), MEDIA)
async def test_what_a_user_shows(stage: Stage, sent: Any, read: MediaPart) -> None:
    script = stage.script("I see.")
    content = [{"type": "text", "text": "What is this?"}, sent]
    assert await said(stage, [{"role": "user", "content": content}]) == "I see."
    assert script.requests[0].messages[0] == ChatMessage.user("What is this?", read)


@pytest.mark.parametrize("sent", [sent for sent, _ in MEDIA])
async def test_a_provider_that_reads_text_only_is_not_shown_more(stage: Stage, sent: Any) -> None:
    stage.actor.capabilities = ProviderCapabilities(media=False)
    with pytest.raises(openai.BadRequestError, match="reads text only") as caught:
        await ask(stage, [{"role": "user", "content": [{"type": "text", "text": "a"}, sent]}])
    assert caught.value.param == "messages[0].content[1]"


# -- Tools of the caller's


async def test_calls_of_the_caller_s_tools_come_back(stage: Stage) -> None:
    script = stage.script(ChatMessage.assistant(FOUND, ToolCall(id="call-2", name="find")))
    answer = await ask(stage, tools=[TOOL])
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = [each for each in choice.message.tool_calls or () if each.type == "function"]
    assert [(call.id, call.function.name) for call in calls] == [
        ("call-1", "find"),
        ("call-2", "find"),
    ]
    assert [call.function.arguments for call in calls] == ['{"what": "keys"}', "{}"]
    assert script.requests[0].tools == (TOOL,)


async def test_a_tool_s_shortest_form(stage: Stage) -> None:
    script = stage.script("ok")
    await ask(stage, tools=[{"type": "function", "function": {"name": "go", "strict": True}}])
    assert script.requests[0].tools[0]["function"] == {
        "name": "go",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
        "strict": True,
    }


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("none", "none"),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "find"}}, NamedTool(name="find")),
    ],
)
async def test_whether_tools_are_called(stage: Stage, sent: Any, read: object) -> None:
    script = stage.script("ok")
    await ask(stage, tools=[TOOL], tool_choice=sent)
    assert script.requests[0].tool_choice == read


async def test_results_go_back_to_the_model(stage: Stage) -> None:
    stage.script(ChatMessage.assistant("Let me see.", FOUND))
    first = (await ask(stage, tools=[TOOL])).choices[0].message
    script = stage.script("There.")
    result = {"role": "tool", "tool_call_id": "call-1", "content": "under the sofa"}
    assert await said(stage, [*HI, first, result], tools=[TOOL]) == "There."
    assert script.requests[0].messages[1:] == (
        ChatMessage.assistant("Let me see.", FOUND),
        ChatMessage.tool(ToolResult(tool_call_id="call-1", name="find", content="under the sofa")),
    )


async def test_results_of_calls_at_once_stand_together(stage: Stage) -> None:
    script = stage.script("ok")
    calls = [
        {"id": name, "type": "function", "function": {"name": "find", "arguments": "{}"}}
        for name in ("a", "b")
    ]
    texts = [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]
    messages = [
        *HI,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        {"role": "tool", "tool_call_id": "a", "content": texts},
    ]
    await ask(stage, messages)
    _, calling, answering = script.requests[0].messages
    assert len(calling.parts) == 2
    assert [(each.tool_call_id, each.text) for each in answering.tool_results] == [
        ("b", "B"),
        ("a", "12"),
    ]


async def test_what_came_back_can_be_sent_again(stage: Stage) -> None:
    stage.script(ChatMessage.assistant(ThinkingPart(text="Hm."), "So.", RefusalPart(text="No.")))
    message: ChatCompletionMessage = (await ask(stage)).choices[0].message
    script = stage.script("ok")
    await ask(stage, [*HI, message, *HI])
    again = script.requests[0].messages[1]
    assert again == ChatMessage.assistant(
        ThinkingPart(text="Hm.", provider="actor"), "So.", RefusalPart(text="No.")
    )


async def test_a_model_without_tools_is_offered_none(stage: Stage) -> None:
    stage.actor.capabilities = ProviderCapabilities(tools=False)
    assert await ask(stage)
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(stage, tools=[TOOL])
    assert caught.value.param == "tools"


# -- Tools of the server's


async def test_the_server_s_own_tools_are_run(stage: Stage) -> None:
    call = ToolCall(id="1", name="weather")
    script = stage.script(
        LLMResponse(
            message=ChatMessage.assistant("Let me see.", call),
            finish_reason="tool_calls",
            usage=Usage(input_tokens=10, output_tokens=2),
        ),
        LLMResponse(
            message=ChatMessage.assistant("It is sunny."),
            usage=Usage(input_tokens=20, output_tokens=3),
        ),
    )
    answer = await ask(stage)
    (choice,) = answer.choices
    assert choice.message.content == "Let me see.\n\nIt is sunny."
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (30, 5)
    names = [tool["function"]["name"] for tool in script.requests[0].tools]
    assert names == ["weather", "erase"]


async def test_a_tool_that_needs_approval_is_refused(stage: Stage) -> None:
    script = stage.script(ChatMessage.assistant(ToolCall(id="1", name="erase")), "I may not.")
    assert await said(stage) == "I may not."
    (result,) = script.requests[1].messages[-1].tool_results
    assert result.is_error
    assert "nobody can be asked here" in result.text


async def test_the_server_s_tools_can_be_kept_from_the_model(stage: Stage) -> None:
    script = stage.script("ok")
    await ask(stage, tool_choice="none")
    assert script.requests[0].tools == ()


# -- At once


async def test_answers_at_once_are_not_mixed_up(stage: Stage) -> None:
    async def one(number: int) -> None:
        text = f"number {number}"
        content = await said(stage, [{"role": "user", "content": text}], tool_choice="none")
        assert str(content).startswith(f"You said: {text}\n")

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_the_synchronous_client(stage: Stage) -> None:
    stage.script("Hello!")

    def ask_at_once() -> str | None:
        with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none") as client:
            answer = client.chat.completions.create(model=stage.model, messages=HI)
            return answer.choices[0].message.content

    assert await asyncio.to_thread(ask_at_once) == "Hello!"

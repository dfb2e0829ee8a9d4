"""Requests that are refused: by which error, and about which field."""

from __future__ import annotations

import json
from base64 import b64encode
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_type_hints

import httpx2
import openai
import pytest
from api.completions import body, schema
from api.problems import Problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llmgine.errors import (
    AuthenticationError,
    BadResponseError,
    BudgetExceededError,
    BusStoppedError,
    CircuitOpenError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    LlmgineError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from openai.types import chat
from openai.types.chat import completion_create_params as sdk
from pydantic import BaseModel

if TYPE_CHECKING:
    from conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HI: list[Any] = [{"role": "user", "content": "Hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "ok"}


async def post(stage: Stage, sent: bytes, kind: str = "application/json") -> httpx2.Response:
    return await stage.raw.post(
        "/v1/chat/completions", content=sent, headers={"content-type": kind}
    )


async def ask(stage: Stage, **fields: Any) -> httpx2.Response:
    return await stage.raw.post("/v1/chat/completions", json={"model": stage.model, **fields})


def tool(name: str = "find") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def user(*parts: object) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def picture(url: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


# -- Fields


FIELDS: list[tuple[Any, str]] = [
    ({"n": 2}, "n"),
    ({"n": True}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities[1]"),
    ({"prediction": {"type": "content", "content": "a"}}, "prediction"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"moderation": {"model": "a"}}, "moderation"),
    ({"verbosity": "low"}, "verbosity"),
    ({"functions": [{"name": "a"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"bogus": 1}, "bogus"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": True}, "frequency_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 2**63}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"seed": 2**64}, "seed"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"stop": 5}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"user": 5}, "user"),
    ({"reasoning_effort": "hard"}, "reasoning_effort"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
    ),
    ({"tools": []}, "tools"),
    ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type"),
    ({"tools": [tool(""), tool()]}, "tools[0].function.name"),
    ({"tools": [tool("a b")]}, "tools[0].function.name"),
    ({"tools": [tool(), tool()]}, "tools[1].function.name"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": tool()}, "tool_choice"),
    ({"tool_choice": tool("other"), "tools": [tool()]}, "tool_choice"),
    ({"tool_choice": "always", "tools": [tool()]}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools"}, "tools": [tool()]}, "tool_choice.type"),
]


@pytest.mark.parametrize(
    ("fields", "param"),
    FIELDS,
)
async def test_a_field_that_can_t_be_met_is_named(
    stage: Stage, fields: dict[str, Any], param: str
) -> None:
    script = stage.script()
    answer = await ask(stage, messages=HI, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{param}: ")
    assert script.requests == []


MESSAGES: list[tuple[Any, str]] = [
    ([], "messages"),
    ("Hi", "messages"),
    ([5], "messages[0]"),
    ([{"content": "Hi"}], "messages[0]"),
    ([{"role": "wizard", "content": "Hi"}], "messages[0]"),
    ([{"role": "function", "name": "a", "content": "Hi"}], "messages[0]"),
    ([{"role": "user"}], "messages[0].content"),
    ([{"role": "user", "content": None}], "messages[0].content"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
    ([{"role": "user", "content": []}], "messages[0].content"),
    ([{"role": "user", "content": "Hi", "bogus": 1}], "messages[0].bogus"),
    ([{"role": "user", "content": "Hi", "name": 1}], "messages[0].name"),
    ([*HI, {"role": "assistant"}], "messages[1].content"),
    ([*HI, {"role": "assistant", "tool_calls": []}], "messages[1].tool_calls"),
    (
        [*HI, {"role": "assistant", "function_call": {"name": "a", "arguments": ""}}],
        "messages[1].function_call",
    ),
    (
        [{"role": "system", "content": [picture("https://a.example")]}],
        "messages[0].content[0].type",
    ),
    (user({"type": "text"}), "messages[0].content[0].text"),
    (user({"type": "text", "text": 5}), "messages[0].content[0].text"),
    (user({"type": "film", "film": 5}), "messages[0].content[0]"),
    (user(picture(5)), "messages[0].content[0].image_url.url"),
    (user(picture("a.png")), "messages[0].content[0].image_url.url"),
    (user(picture("file:///etc/passwd")), "messages[0].content[0].image_url.url"),
    (user(picture("data:image/png;base64,***")), "messages[0].content[0].image_url.url"),
    (user(picture("data:image/png;base64,")), "messages[0].content[0].image_url.url"),
    (user(picture("data:text/html;base64,YQ==")), "messages[0].content[0].image_url.url"),
    (user({"type": "file", "file": {}}), "messages[0].content[0].file"),
    (
        user({"type": "input_audio", "input_audio": {"data": "YQ==", "format": "ogg"}}),
        "messages[0].content[0].input_audio.format",
    ),
    ([*HI, RESULT], "messages[1].tool_call_id"),
    ([*HI, CALLING, {**RESULT, "tool_call_id": "2"}], "messages[2].tool_call_id"),
    ([*HI, CALLING, RESULT, RESULT], "messages[3].tool_call_id"),
    ([*HI, CALLING], "messages[1].tool_calls"),
    ([*HI, CALLING, *HI, RESULT], "messages[1].tool_calls"),
    (
        [*HI, {"role": "assistant", "tool_calls": [CALL, CALL]}, RESULT],
        "messages[1].tool_calls",
    ),
    (
        [*HI, {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}],
        "messages[1].tool_calls[0].type",
    ),
]


@pytest.mark.parametrize(
    ("messages", "param"),
    MESSAGES,
)
async def test_a_message_that_can_t_be_meant_is_named(
    stage: Stage, messages: Any, param: str
) -> None:
    script = stage.script()
    answer = await ask(stage, messages=messages)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert script.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_raises_its_own_class(stage: Stage, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await stage.client.chat.completions.create(
            model=stage.model, messages=HI, n=2, stream=stream
        )
    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")


async def test_a_message_says_what_was_expected(stage: Stage) -> None:
    answer = await ask(stage, messages=HI, n=3)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "n: Input should be less than or equal to 1. Refused above 1.",
            "type": "invalid_request_error",
            "param": "n",
            "code": None,
        }
    }


UNCLEAR: list[tuple[dict[str, Any], str]] = [
    ({"response_format": {}}, "response_format: expected a `type`"),
    ({"messages": [{}]}, "messages[0]: expected a `type`, or a `role` in a message."),
    ({"logit_bias": {"1": 1}}, "logit_bias: expected none. Refused"),
]


@pytest.mark.parametrize(("fields", "said"), UNCLEAR)
async def test_a_message_speaks_of_the_request_alone(
    stage: Stage, fields: dict[str, Any], said: str
) -> None:
    answer = await ask(stage, **{"messages": HI, **fields})
    assert answer.json()["error"]["message"].startswith(said)


def shapes(kind: type[BaseModel], known: Any) -> None:
    """Check that each field that the SDK can send has a place, in which it is taken or refused."""
    names = {field.alias or name for name, field in kind.model_fields.items()}
    assert get_type_hints(known).keys() <= names


async def test_there_is_an_opinion_on_every_field_of_openai_s(stage: Stage) -> None:
    shapes(schema.CompletionRequest, sdk.CompletionCreateParamsNonStreaming)
    shapes(schema.CompletionRequest, sdk.CompletionCreateParamsStreaming)
    for kind, known in (
        (schema.SystemMessage, chat.ChatCompletionSystemMessageParam),
        (schema.SystemMessage, chat.ChatCompletionDeveloperMessageParam),
        (schema.UserMessage, chat.ChatCompletionUserMessageParam),
        (schema.AssistantMessage, chat.ChatCompletionAssistantMessageParam),
        (schema.ToolMessage, chat.ChatCompletionToolMessageParam),
        (schema.TextContent, chat.ChatCompletionContentPartTextParam),
        (schema.ImagePart, chat.ChatCompletionContentPartImageParam),
        (schema.AudioPart, chat.ChatCompletionContentPartInputAudioParam),
        (schema.FunctionTool, chat.ChatCompletionFunctionToolParam),
        (schema.StreamOptions, chat.ChatCompletionStreamOptionsParam),
    ):
        shapes(kind, known)


# -- Bodies


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "JSON"),
        (b"{", "line 1, column 2"),
        (b"[]", "JSON object"),
        (b"5", "JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": %s}' % (b"9" * 5000), "has 5000 digits."),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b'{"a": "\xff"}', "0xff"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b"[" * 90_000, "64 levels"),
        (b"[%s1]" % (b"[]," * 50_000), "50,000 objects and lists"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64 levels"),
        (b'{"a": [' + b'"\\"[[[[[[[[", ' * 20 + b"1" + b"[" * 70, "64 levels"),
        (b'"' + b'\\"' * 50_000, "Unterminated"),
        (b"{" + b",".join(b'"%d":0' % at for at in range(10_001)) + b"}", "10,000 members"),
    ],
)
async def test_a_body_that_can_t_be_read(stage: Stage, sent: bytes, said: str) -> None:
    answer = await post(stage, sent)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


async def test_what_is_no_json_by_its_own_word_is_not_read(stage: Stage) -> None:
    sent = json.dumps({"model": stage.model, "messages": HI}).encode()
    answer = await post(stage, sent, "text/plain")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_brackets_in_texts_are_no_nesting(stage: Stage) -> None:
    stage.script("ok")
    answer = await ask(stage, messages=[{"role": "user", "content": '"[' * 500}])
    assert answer.status_code == 200


async def test_whole_characters_may_be_escaped(stage: Stage) -> None:
    script = stage.script("ok")
    sent = {"model": stage.model, "messages": [{"role": "user", "content": "\U0001f600"}]}
    assert (await post(stage, json.dumps(sent).encode())).status_code == 200
    assert script.requests[0].messages[0].text == "\U0001f600"


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "text", "auto", b64encode(b"a").decode()])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["role", "content", "type", "text"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.sampled_from([*schema.CompletionRequest.model_fields]), JSON, max_size=4
).map(lambda fields: {"model": "m", "messages": HI, **fields})


@given(sent=BODIES | JSON)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_body_is_read_or_refused_whatever_it_is(sent: Any) -> None:
    found: Problem | None = None
    try:
        body.read(schema.CompletionRequest, body.parsed(json.dumps(sent).encode()))
    except Problem as problem:
        found = problem
    assert found is None or found.status == 400
    assert found is None or found.response().body


# -- Models that there are not, and what goes wrong behind


async def test_an_unknown_model(stage: Stage) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await stage.client.chat.completions.create(model="gpt-4", messages=HI, stream=True)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize(
    ("error", "kind", "code", "again"),
    [
        (InvalidRequestError("top_k: no"), openai.BadRequestError, "invalid_request", False),
        (
            ContextLengthError("too long"),
            openai.BadRequestError,
            "context_length_exceeded",
            False,
        ),
        (ContentFilterError("no"), openai.BadRequestError, "content_filter", False),
        (NotFoundError("gone"), openai.NotFoundError, "model_not_found", False),
        (RateLimitError("secret"), openai.RateLimitError, "rate_limit_exceeded", True),
        (
            RateExceededError("secret", key="k", retry_after=1.5),
            openai.RateLimitError,
            "rate_limit_exceeded",
            True,
        ),
        (QuotaExceededError("secret"), openai.RateLimitError, "insufficient_quota", False),
        (AuthenticationError("secret"), openai.InternalServerError, "provider_access", False),
        (PermissionDeniedError("secret"), openai.InternalServerError, "provider_access", False),
        (ProviderTimeoutError("slow"), openai.InternalServerError, "provider_timeout", True),
        (OverloadedError("secret"), openai.InternalServerError, "provider_unavailable", True),
        (
            ProviderConnectionError("secret"),
            openai.InternalServerError,
            "provider_unavailable",
            True,
        ),
        (
            CircuitOpenError("secret", key="k", retry_after=1.5),
            openai.InternalServerError,
            "provider_unavailable",
            True,
        ),
        (ProviderServerError("secret"), openai.InternalServerError, "provider_failed", True),
        (BadResponseError("secret"), openai.InternalServerError, "provider_failed", True),
        (StreamInterruptedError("secret"), openai.InternalServerError, "provider_failed", False),
        (BusStoppedError("secret"), openai.InternalServerError, "stopping", True),
        (LlmgineError("secret"), openai.InternalServerError, "internal_error", True),
    ],
)
async def test_an_error_of_the_provider_s_is_told_as_openai_tells_it(
    stage: Stage,
    error: LlmgineError,
    kind: type[openai.APIStatusError],
    code: str,
    again: bool,
) -> None:
    stage.script(error)
    with pytest.raises(kind) as caught:
        await stage.client.chat.completions.create(model=stage.model, messages=HI)
    assert caught.value.code == code
    assert ("x-should-retry" not in caught.value.response.headers) is again
    assert "secret" not in caught.value.response.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProviderTimeoutError("slow"), 504),
        (OverloadedError("full", retry_after=7), 503),
        (ProviderServerError("down"), 502),
        (AuthenticationError("no"), 500),
        (BudgetExceededError("budget.process_cost", spent=Decimal(5), limit=Decimal(5)), 429),
    ],
)
async def test_statuses(stage: Stage, error: LlmgineError, status: int) -> None:
    stage.script(error)
    answer = await ask(stage, messages=HI)
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)


async def test_what_callers_are_not_told_is_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.script(
        AuthenticationError("401: wrong key"),
        LlmgineError("a bug"),
        RateLimitError("429: acme asks too often"),
    )
    for status in (500, 500, 429):
        answer = await ask(stage, messages=HI)
        assert answer.status_code == status
    assert "AuthenticationError: 401: wrong key" in caplog.text
    assert "LlmgineError: a bug" in caplog.text
    assert "RateLimitError: 429: acme asks too often" in caplog.text


async def test_an_error_that_nobody_foresaw_leaks_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.script(ZeroDivisionError("secret"))
    with pytest.raises(openai.InternalServerError) as caught:
        await stage.client.chat.completions.create(model=stage.model, messages=HI)
    assert caught.value.code == "internal_error"
    assert "secret" not in caught.value.response.text
    assert "ZeroDivisionError: secret" in caplog.text

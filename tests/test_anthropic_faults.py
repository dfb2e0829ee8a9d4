"""The Anthropic provider against a server that breaks on demand, found as a user's would be."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    TextDelta,
    ToolDefinition,
    ToolResult,
    closing,
)
from llmgine.contracts.stream import ResponseBuilder, fold_stream
from llmgine.errors import (
    ContextLengthError,
    OverloadedError,
    ProviderError,
    ProviderTimeoutError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.providers.anthropic import AnthropicProvider, build
from llmgine.settings import ProviderSettings
from llmock.pytest_plugin import LLMock

QUESTION = ChatMessage.user("What is the weather in Paris?")
REQUEST = LLMRequest(messages=(QUESTION,))
WEATHER: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def provider() -> AnthropicProvider:
    made: LLMProvider = build(ProviderSettings(name="anthropic"))
    assert isinstance(made, AnthropicProvider)
    return made


async def show(chunks: AsyncIterator[LLMChunk], shown: ResponseBuilder) -> None:
    async for chunk in chunks:
        shown.add(chunk)


async def test_a_tool_is_called_and_its_result_taken(llmock: LLMock) -> None:
    async with provider() as claude:
        request = LLMRequest(messages=(QUESTION,), tools=(WEATHER,))
        asked = await fold_stream(claude.stream(request))
        (call,) = asked.tool_calls
        assert asked.finish_reason == "tool_calls"
        result = ToolResult(tool_call_id=call.id, name=call.name, content="21 degrees")
        history = (QUESTION, asked.message, ChatMessage.tool(result))
        told = await claude.complete(LLMRequest(messages=history, tools=(WEATHER,)))
    assert told.text
    assert told.usage.input_tokens
    assert asked.usage.output_tokens
    llmock.assert_resilient()


async def test_a_rate_limit_says_how_long_to_wait_and_is_not_tried_again(llmock: LLMock) -> None:
    llmock.rate_limit(retry_after=2)
    async with provider() as claude:
        with pytest.raises(RateLimitError) as caught:
            await claude.complete(REQUEST)
        assert caught.value.retry_after == 2.0
        assert caught.value.retryable
        assert len(llmock.requests) == 1
        assert (await claude.complete(REQUEST)).text


@pytest.mark.parametrize("status", [503, 529])
async def test_an_outage_is_an_overload(llmock: LLMock, status: int) -> None:
    llmock.outage(status=status)
    async with provider() as claude:
        for call in (claude.complete(REQUEST), fold_stream(claude.stream(REQUEST))):
            with pytest.raises(OverloadedError):
                await call


async def test_a_prompt_that_is_too_long(llmock: LLMock) -> None:
    llmock.context_overflow()
    async with provider() as claude:
        with pytest.raises(ContextLengthError) as caught:
            await claude.complete(REQUEST)
    assert not caught.value.retryable


@pytest.mark.parametrize("fault", ["truncate", "disconnect", "corrupt"])
async def test_a_stream_that_breaks_is_one_error_with_what_had_arrived(
    llmock: LLMock, fault: str
) -> None:
    faults = {
        "truncate": llmock.truncate,
        "disconnect": llmock.disconnect,
        "corrupt": llmock.corrupt,
    }
    faults[fault](after_chunks=5)
    shown = ResponseBuilder()
    async with provider() as claude:
        with pytest.raises(StreamInterruptedError) as caught:
            await show(claude.stream(REQUEST), shown)
        assert shown.response().text
        assert caught.value.partial is not None
        assert caught.value.partial.text == shown.response().text
        assert not caught.value.retryable
        assert (await fold_stream(claude.stream(REQUEST))).finish_reason == "stop"
    llmock.assert_resilient()


async def test_a_stream_that_stalls_ends_with_the_requests_time(llmock: LLMock) -> None:
    llmock.stall(after_chunks=4, seconds=60)
    request = LLMRequest(messages=(QUESTION,), timeout=3.0)
    async with provider() as claude:
        with pytest.raises(ProviderTimeoutError):
            await fold_stream(claude.stream(request))


async def test_a_stream_that_stalls_can_be_left(llmock: LLMock) -> None:
    llmock.stall(after_chunks=4, seconds=60)
    async with provider() as claude, asyncio.timeout(30):
        async with closing(claude.stream(REQUEST)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextDelta):
                    break
        assert (await claude.complete(REQUEST)).text


async def test_every_failure_is_a_provider_error(llmock: LLMock) -> None:
    async with provider() as claude:
        for status in (400, 401, 403, 404, 409, 422, 429, 500, 502, 504):
            llmock.fail(status)
            with pytest.raises(ProviderError) as caught:
                await claude.complete(REQUEST)
            assert (caught.value.status, caught.value.provider) == (status, "anthropic")

"""`OpenAIProvider` against llmock: a server that others wrote, breaking off in its own ways."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    ToolDefinition,
    ToolResult,
    closing,
    fold_stream,
)
from llmgine.errors import (
    ContextLengthError,
    OverloadedError,
    ProviderTimeoutError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.providers.openai import OpenAIProvider, build
from llmgine.settings import ProviderSettings
from llmock.pytest_plugin import LLMock

REQUEST = LLMRequest(messages=(ChatMessage.user("Tell me a story."),), model="gpt-test")
WEATHER: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest_asyncio.fixture
async def provider(llmock: LLMock) -> AsyncGenerator[OpenAIProvider]:
    options = {"base_url": llmock.base_url("openai"), "api_key": "test", "read_timeout": "2"}
    made = build(ProviderSettings(name="openai", options=options))
    assert isinstance(made, OpenAIProvider)
    async with made:
        yield made


async def streamed(provider: OpenAIProvider, request: LLMRequest = REQUEST) -> LLMResponse:
    async with closing(provider.stream(request)) as chunks:
        return await fold_stream(chunks)


async def test_text_whole_and_streamed(llmock: LLMock, provider: OpenAIProvider) -> None:
    llmock.reply("Once upon a time", times=None)
    whole = await provider.complete(REQUEST)
    pieces = await streamed(provider)
    assert whole.text == pieces.text == "Once upon a time"
    assert whole.usage.output_tokens == pieces.usage.output_tokens
    assert pieces.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_round_trip_with_a_tool(
    llmock: LLMock, provider: OpenAIProvider, stream: bool
) -> None:
    async def ask(request: LLMRequest) -> LLMResponse:
        return await (streamed(provider, request) if stream else provider.complete(request))

    llmock.call_tool("weather", {"city": "Z\u00fcrich"}).reply("Sunny.")
    question = LLMRequest(messages=REQUEST.messages, model="gpt-test", tools=(WEATHER,))
    answer = await ask(question)
    (call,) = answer.tool_calls
    assert (answer.finish_reason, call.name) == ("tool_calls", "weather")
    assert "rich" in call.arguments
    result = ToolResult(tool_call_id=call.id, name=call.name, content="sunny")
    messages = (*question.messages, answer.message, ChatMessage.tool(result))
    assert (await ask(LLMRequest(messages=messages, tools=(WEATHER,)))).text == "Sunny."


async def test_a_rate_limit_says_how_long_to_wait_and_is_asked_once(
    llmock: LLMock, provider: OpenAIProvider
) -> None:
    llmock.rate_limit(times=1, retry_after=3.0)
    with pytest.raises(RateLimitError) as caught:
        await provider.complete(REQUEST)
    assert caught.value.retry_after == 3.0
    assert len(llmock.requests) == 1


async def test_outages_and_long_prompts(llmock: LLMock, provider: OpenAIProvider) -> None:
    llmock.fail(503).context_overflow()
    with pytest.raises(OverloadedError):
        await streamed(provider)
    with pytest.raises(ContextLengthError):
        await provider.complete(REQUEST)


@pytest.mark.parametrize("fault", ["truncate", "disconnect", "malformed", "stall"])
async def test_every_broken_stream_is_the_same_error(
    llmock: LLMock, provider: OpenAIProvider, fault: str
) -> None:
    llmock.reply("Once upon a time there was a bus")
    faults = {
        "truncate": llmock.truncate,
        "disconnect": llmock.disconnect,
        "malformed": llmock.corrupt,
        "stall": llmock.stall,
    }
    faults[fault](after_chunks=3)
    with pytest.raises(StreamInterruptedError) as caught:
        await streamed(provider)
    assert caught.value.partial is not None
    assert "Once upon a time there".startswith(caught.value.partial.text.strip())
    assert caught.value.partial.text
    assert not caught.value.retryable


async def test_the_timeout_of_a_request_holds_while_the_server_thinks(
    llmock: LLMock, provider: OpenAIProvider
) -> None:
    llmock.delay(5.0)
    with pytest.raises(ProviderTimeoutError):
        await provider.complete(LLMRequest(messages=REQUEST.messages, timeout=0.2))

"""`OpenAIProvider` against aimock, a fake server in another language with exact answers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    ToolDefinition,
    ToolResult,
    closing,
    fold_stream,
)
from llmgine.errors import BadResponseError, ProviderError, RateLimitError, StreamInterruptedError
from llmgine.providers.openai import OpenAIProvider

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

PACKAGE = "@copilotkit/aimock@1.43.0"
FIXTURES = {
    "fixtures": [
        {"match": {"toolCallId": "call_1"}, "response": {"content": "Sunny."}},
        {
            "match": {"userMessage": "weather"},
            "response": {
                "toolCalls": [
                    {"id": "call_1", "name": "weather", "arguments": {"city": "Z\u00fcrich"}}
                ]
            },
        },
        {"match": {"userMessage": "hello"}, "response": {"content": "Hello! How are you today?"}},
    ]
}
WEATHER: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
HELLO = LLMRequest(messages=(ChatMessage.user("hello"),), model="gpt-test")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("aimock needs node and npm")
    folder = tmp_path_factory.mktemp("aimock")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, PACKAGE]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own arguments
    (folder / "fixtures.json").write_text(json.dumps(FIXTURES))
    return folder


@asynccontextmanager
async def talking(program: Path, *options: str) -> AsyncGenerator[OpenAIProvider]:
    """Run the server on a free port, and give a provider that talks to it."""
    server = await asyncio.create_subprocess_exec(
        program / "node_modules/.bin/llmock",
        *("--port", "0", "--strict", "--fixtures", program / "fixtures.json", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert server.stdout is not None
    try:
        url = await _listening(server.stdout)
        async with OpenAIProvider(api_key="test", base_url=f"{url}/v1") as provider:
            yield provider
    finally:
        server.kill()
        await server.wait()


async def _listening(said: asyncio.StreamReader) -> str:
    async for line in said:
        _, found, address = line.decode().strip().partition("http://")
        if found:
            return f"http://{address.split()[0].rstrip('/')}"
    raise AssertionError("aimock ended before it listened")


async def ask(provider: OpenAIProvider, request: LLMRequest, *, stream: bool) -> LLMResponse:
    if not stream:
        return await provider.complete(request)
    async with closing(provider.stream(request)) as chunks:
        return await fold_stream(chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_text_and_a_round_trip_with_a_tool(program: Path, stream: bool) -> None:
    async with talking(program, "--chunk-size", "3") as provider:
        assert (await ask(provider, HELLO, stream=stream)).text == "Hello! How are you today?"
        question = replace(HELLO, messages=(ChatMessage.user("weather"),), tools=(WEATHER,))
        answer = await ask(provider, question, stream=stream)
        (call,) = answer.tool_calls
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Z\u00fcrich"})
        assert answer.finish_reason == "tool_calls"
        result = ToolResult(tool_call_id=call.id, name=call.name, content="sunny")
        messages = (*question.messages, answer.message, ChatMessage.tool(result))
        again = await ask(provider, replace(question, messages=messages), stream=stream)
        assert again.text == "Sunny."


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ("ratelimit", (RateLimitError,)),
        ("malformed", (BadResponseError, StreamInterruptedError)),
        ("disconnect", (ProviderError,)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_its_faults_are_typed_and_may_be_tried_again(
    program: Path, fault: str, kinds: tuple[type[ProviderError], ...], stream: bool
) -> None:
    async with talking(program, f"--chaos-{fault}", "1") as provider:
        with pytest.raises(kinds) as caught:
            await ask(provider, HELLO, stream=stream)
    assert caught.value.retryable

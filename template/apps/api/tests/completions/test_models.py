"""The list of models, as OpenAI's client reads it; and what the settings say of answers."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
import openai
import pytest
from api.completions import answering
from api.completions.wire import ChunkWriter
from assistant import AnswerRequest
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    StreamStart,
)
from llmgine.contracts.stream import unfold
from llmgine.providers.scripted import ScriptedProvider
from starlette.types import Message

if TYPE_CHECKING:
    from conftest import Stage

StartServer: TypeAlias = Callable[..., Awaitable[str]]
StartClient: TypeAlias = Callable[..., Awaitable[httpx2.AsyncClient]]
HI: list[Any] = [{"role": "user", "content": "Hi"}]


class Stubborn(ScriptedProvider):
    """A provider that doesn't heed cancellation."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer when it may, and not before."""
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            await self.may_end.wait()
        return await super().complete(request)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Begin; go on when it may."""
        yield StreamStart()
        for chunk in unfold(await self.complete(request)):
            yield chunk


@pytest.mark.asyncio(loop_scope="module")
async def test_the_model_of_the_settings(stage: Stage) -> None:
    (model,) = [model async for model in stage.client.models.list()]
    assert (model.id, model.object, model.owned_by) == (stage.model, "model", "actor")
    assert await stage.client.models.retrieve(stage.model) == model
    with pytest.raises(openai.NotFoundError) as caught:
        await stage.client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


async def test_a_provider_whose_model_isn_t_set_is_its_own_model(start_client: StartClient) -> None:
    client = await start_client()
    listed = (await client.get("/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == ["scripted"]
    asked = {"model": "scripted", "messages": HI}
    assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200


async def test_the_system_prompt_of_the_settings(
    start_client: StartClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGINE_PROVIDER__MODEL", "m")
    monkeypatch.setenv("LLMGINE_PROVIDER__SYSTEM_PROMPT", "Be brief.")
    provider = ScriptedProvider(["a", "b"])
    client = await start_client(provider=provider)
    own = {"role": "system", "content": "Rhyme."}
    for messages in (HI, [own, *HI]):
        asked = {"model": "m", "messages": messages}
        assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
    first, second = provider.requests
    assert first.messages == (ChatMessage.system("Be brief."), ChatMessage.user("Hi"))
    assert second.messages == (ChatMessage.system("Rhyme."), ChatMessage.user("Hi"))


async def test_a_stream_that_takes_too_long_ends_with_an_error_and_the_model_s_work_too(
    start_server: StartServer, bus: MessageBus
) -> None:
    results: list[CommandResultEvent] = []
    bus.register_event_handler(CommandResultEvent, results.append, inline=True)
    slow = ScriptedProvider(["one " * 1000], delay=0.05)
    url = await start_server(provider=slow, api={"request_timeout": 0.5})
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        helper = client.chat.completions.stream(model="scripted", messages=HI)
        with pytest.raises(openai.APIError, match="not done in"):
            async with helper as stream:
                await stream.until_done()
    await bus.join()
    assert [each.result.status for each in results] == ["cancelled"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_doesn_t_heed_the_limit_keeps_no_caller_waiting(
    start_server: StartServer,
    bus: MessageBus,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
) -> None:
    monkeypatch.setattr(answering, "_PATIENCE", 0.1)
    provider = Stubborn()
    url = await start_server(provider=provider, api={"request_timeout": 0.5})
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=40) as client:
        asked = {"model": "scripted", "messages": HI, "stream": stream}
        answer = await client.post("/v1/chat/completions", json=asked)
        provider.may_end.set()
        assert "not done in 0.5 s" in answer.text
        assert "[DONE]" not in answer.text
        assert answer.status_code == (200 if stream else 504)
    await bus.join()
    assert "the provider works on" in caplog.text


async def test_a_last_piece_that_isn_t_taken_is_given_up(bus: MessageBus) -> None:
    asked = LLMRequest(messages=(ChatMessage.user("Hi"),))
    blocked = asyncio.Event()

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if not message.get("more_body", True):
            blocked.set()
            await asyncio.get_running_loop().create_future()

    async def answer(command: AnswerRequest) -> LLMResponse:
        response = LLMResponse(message=ChatMessage.assistant("Hello!"))
        for chunk in unfold(response):
            if command.hear is not None:
                await command.hear(chunk)
        return response

    bus.register_command_handler(AnswerRequest, answer)
    async with bus:
        writer = ChunkWriter("chatcmpl-1", 0, "m", usage=False)
        sent = answering.Answering(
            BusSession(bus=bus), asked, run_tools=False, name="chatcmpl-1", form=writer
        )
        sending = asyncio.create_task(sent({}, receive, send))
        await blocked.wait()
        sending.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait((sending,))
        assert sending.cancelled()


async def test_the_documentation_knows_every_field(start_client: StartClient) -> None:
    client = await start_client()
    described = (await client.get("/openapi.json")).json()
    operation = described["paths"]["/v1/chat/completions"]["post"]
    form = operation["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "model", "stream", "n", "tools"} <= form["properties"].keys()
    pointer = form["properties"]["stream_options"]["anyOf"][0]["$ref"]
    found: Any = described
    for step in pointer.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/")]
    assert "include_usage" in found["properties"]
    assert {"200", "4XX", "5XX"} <= operation["responses"].keys()


async def test_the_example_of_the_readme_runs(server: str, environment: dict[str, str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    found = re.search(r"^```python\n(from openai import.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    program = found[1].replace("http://127.0.0.1:8000", server)
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    said, _ = await running.communicate()
    assert running.returncode == 0
    assert b"408" in said

"""Answers in pieces, and callers that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from api.completions import answering
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    LLMChunk,
    LLMChunkEvent,
    LLMRequest,
    LLMResponse,
    PartEnd,
    RefusalPart,
    SessionEndEvent,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llmgine.errors import RateLimitError, StreamInterruptedError
from llmgine.providers.scripted import BrokenStream, ScriptedProvider
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

if TYPE_CHECKING:
    from conftest import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

HI: list[Any] = [{"role": "user", "content": "Hi"}]
TOOL: Any = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
PROMPTLY = 30.0
"""A limit for what has no other; the promise itself is a second."""


async def pieces(stage: Stage, **fields: Any) -> list[ChatCompletionChunk]:
    stream = await stage.client.chat.completions.create(
        model=stage.model, messages=HI, stream=True, **fields
    )
    return [chunk async for chunk in stream]


def text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)


def body(stage: Stage, **fields: Any) -> dict[str, Any]:
    return {"model": stage.model, "messages": HI, "stream": True, **fields}


# -- What comes


async def test_a_stream_has_openai_s_shape(stage: Stage) -> None:
    stage.script("one two three")
    chunks = await pieces(stage)
    first, *middle, _ = chunks
    assert first.choices[0].delta.role == "assistant"
    assert [each.choices[0].delta.content for each in middle] == ["one", " two", " three"]
    assert [each.choices[0].finish_reason for each in chunks] == [None] * 4 + ["stop"]
    assert len({each.id for each in chunks}) == 1
    assert {(each.object, each.model) for each in chunks} == {
        ("chat.completion.chunk", stage.model)
    }
    assert all(each.usage is None for each in chunks)


async def test_what_goes_over_the_wire(stage: Stage) -> None:
    stage.script("one\ntwo")
    answer = await stage.raw.post("/v1/chat/completions", json=body(stage))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    *events, rest = answer.text.split("\n\n")
    assert (events[-1], rest) == ("data: [DONE]", "")
    for event in events[:-1]:
        chunk = json.loads(event.removeprefix("data: "))
        assert chunk["object"] == "chat.completion.chunk"
        assert "usage" not in chunk


async def test_usage_where_it_is_asked_for(stage: Stage) -> None:
    used = Usage(input_tokens=7, output_tokens=5)
    stage.script(LLMResponse(message=ChatMessage.assistant("ok"), usage=used))
    *chunks, last = await pieces(stage, stream_options={"include_usage": True})
    assert all(each.usage is None for each in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.total_tokens) == (7, 12)
    stage.script(LLMResponse(message=ChatMessage.assistant("ok"), usage=used))
    chunks = await pieces(stage, stream_options={"include_usage": False})
    assert all(each.choices and each.usage is None for each in chunks)


async def test_tool_calls_in_pieces(stage: Stage) -> None:
    stage.script(
        ChatMessage.assistant(
            "Let me see.",
            ToolCall(id="a", name="find", arguments='{"x": 1}'),
            ToolCall(id="b", name="find", arguments="{}"),
        )
    )
    chunks = await pieces(stage, tools=[TOOL])
    calls = [call for each in chunks for call in each.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id) for call in calls if call.id] == [(0, "a"), (1, "b")]
    assert [call.type for call in calls if call.id] == ["function", "function"]
    for index, arguments in ((0, '{"x": 1}'), (1, "{}")):
        found = [call.function for call in calls if call.index == index]
        assert "".join(each.arguments or "" for each in found if each) == arguments
        assert [each.name for each in found if each and each.name] == ["find"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert text(chunks) == "Let me see."


class City(BaseModel):
    name: str


async def test_the_client_puts_a_stream_together(stage: Stage) -> None:
    stage.script(ChatMessage.assistant(ToolCall(id="a", name="find", arguments='{"name":"Rome"}')))
    tools = [openai.pydantic_function_tool(City, name="find")]
    helper = stage.client.chat.completions.stream
    async with helper(model=stage.model, messages=HI, tools=tools) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == City(name="Rome")
    stage.script('{"name": "Rome"}')
    async with helper(model=stage.model, messages=HI, response_format=City) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Rome")


async def test_a_call_that_nothing_was_given_to_has_no_arguments(stage: Stage) -> None:
    call = ToolCall(id="a", name="find", arguments="")
    stage.script(ChatMessage.assistant(call))
    chunks = await pieces(stage, tools=[TOOL])
    calls = [call for each in chunks for call in each.choices[0].delta.tool_calls or ()]
    assert "".join((each.function and each.function.arguments) or "" for each in calls) == "{}"


async def test_rounds_with_the_server_s_tools_are_one_answer(stage: Stage) -> None:
    call = ToolCall(id="1", name="weather")
    stage.script(
        LLMResponse(
            message=ChatMessage.assistant("Let me see.", call),
            usage=Usage(input_tokens=10, output_tokens=2),
        ),
        LLMResponse(
            message=ChatMessage.assistant("It is sunny."),
            usage=Usage(input_tokens=20, output_tokens=3),
        ),
    )
    chunks = await pieces(stage, stream_options={"include_usage": True})
    assert text(chunks) == "Let me see.\n\nIt is sunny."
    assert [each.choices[0].delta.role for each in chunks if each.choices].count("assistant") == 1
    assert not any(each.choices and each.choices[0].delta.tool_calls for each in chunks)
    ends = [each.choices[0].finish_reason for each in chunks if each.choices]
    assert [end for end in ends if end] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 35


async def test_reasoning_and_refusals_in_pieces(stage: Stage) -> None:
    stage.script(ChatMessage.assistant(ThinkingPart(text="Hm. No."), RefusalPart(text="I won't.")))
    deltas = [each.choices[0].delta for each in await pieces(stage)]
    told = [each.model_dump().get("reasoning_content") for each in deltas]
    assert "".join(filter(None, told)) == "Hm. No."
    assert [each.refusal for each in deltas if each.refusal] == ["I won't."]


async def test_parts_that_come_as_a_whole(stage: Stage) -> None:
    call = ToolCall(id="1", name="find", arguments="{}", provider_data={"x": 1})

    class Whole(ScriptedProvider):
        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            del request
            yield StreamStart()
            for index, part in enumerate((ThinkingPart(text="Hm."), TextPart(text="So."), call)):
                yield PartEnd(index=index, part=part)
            yield ToolCallDelta(index=3, id="2", name="find")
            yield PartEnd(index=3, part=ToolCall(id="2", name="find", provider_data={"x": 1}))
            yield StreamEnd()

    stage.actor.script = Whole()
    chunks = await pieces(stage, tools=[TOOL])
    assert text(chunks) == "So."
    calls = [call for each in chunks for call in each.choices[0].delta.tool_calls or ()]
    assert [call.id for call in calls if call.id] == ["1", "2"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_a_provider_that_doesn_t_say_when_it_starts(stage: Stage) -> None:
    class Abrupt(ScriptedProvider):
        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            del request
            yield TextDelta(index=0, text="So.")
            yield StreamEnd()

    stage.actor.script = Abrupt()
    chunks = await pieces(stage)
    assert text(chunks) == "So."
    assert {each.model for each in chunks} == {stage.model}


async def test_streams_at_once_are_not_mixed_up(stage: Stage) -> None:
    async def one(number: int) -> None:
        words = f"number {number}"
        stream = await stage.client.chat.completions.create(
            model=stage.model,
            messages=[{"role": "user", "content": words}],
            tool_choice="none",
            stream=True,
        )
        assert text([chunk async for chunk in stream]).startswith(f"You said: {words}")

    await asyncio.gather(*(one(number) for number in range(12)))


# -- What breaks off


async def test_an_error_before_the_first_piece_has_its_status(stage: Stage) -> None:
    stage.script(RateLimitError("slow down", retry_after=2.5))
    with pytest.raises(openai.RateLimitError) as caught:
        await pieces(stage)
    assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, "provider_failed"),
        (RateLimitError("secret"), "rate_limit_exceeded"),
        (StreamInterruptedError("no connection to secret"), "provider_failed"),
        (ZeroDivisionError("secret"), "internal_error"),
    ],
)
async def test_an_error_amid_a_stream_is_raised_by_the_client(
    stage: Stage, error: Exception | None, told: str
) -> None:
    stage.script(BrokenStream("one two three", after=2, error=error))
    stream = await stage.client.chat.completions.create(model=stage.model, messages=HI, stream=True)
    said: list[str | None] = []

    async def listen() -> None:
        async for chunk in stream:
            said.append(chunk.choices[0].delta.content)  # noqa: PERF401 - it is cut short

    with pytest.raises(openai.APIError) as caught:
        await listen()
    assert said == ["", "one", " two"]
    assert caught.value.code == told
    assert "secret" not in str(caught.value)


async def test_an_answer_that_the_provider_calls_an_error_is_one(stage: Stage) -> None:
    wrong = LLMResponse(message=ChatMessage.assistant("so far"), finish_reason="error")
    stage.script(wrong, wrong)
    with pytest.raises(openai.APIError, match="broke its answer off"):
        await pieces(stage)
    with pytest.raises(openai.InternalServerError):
        await stage.client.chat.completions.create(model=stage.model, messages=HI)


# -- Who goes away


async def ended(stage: Stage) -> asyncio.Future[SessionEndEvent]:
    """Return what is done when the next session has ended."""
    over: asyncio.Future[SessionEndEvent] = asyncio.get_running_loop().create_future()
    registered = stage.app.bus.register_event_handler(
        SessionEndEvent, lambda event: over.done() or over.set_result(event), inline=True
    )
    over.add_done_callback(lambda _: registered.cancel())
    return over


@pytest.mark.parametrize("hangs_after", [0, 1, 3])
async def test_a_caller_that_leaves_a_stream_ends_the_model_s_work(
    stage: Stage, hangs_after: int
) -> None:
    stage.script("one two three")
    stage.actor.hangs_after = hangs_after
    results: list[CommandResultEvent] = []
    heard = stage.app.bus.register_event_handler(CommandResultEvent, results.append, inline=True)
    over = await ended(stage)
    asking = asyncio.create_task(pieces(stage))
    await stage.actor.hanging.wait()
    asking.cancel()
    async with asyncio.timeout(PROMPTLY):
        await stage.actor.cancelled.wait()
        await over
    heard.cancel()
    assert [each.result.status for each in results] == ["cancelled"]


async def test_a_stream_that_is_left_half_read(stage: Stage) -> None:
    stage.script("one two three")
    stage.actor.hangs_after = 3
    over = await ended(stage)
    stream = await stage.client.chat.completions.create(model=stage.model, messages=HI, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    async with asyncio.timeout(PROMPTLY):
        await stage.actor.cancelled.wait()
        await over


async def test_a_caller_that_leaves_before_a_whole_answer_ends_the_model_s_work(
    stage: Stage,
) -> None:
    stage.script("one two three")
    stage.actor.hangs_after = 2
    over = await ended(stage)
    call = stage.client.chat.completions.create(model=stage.model, messages=HI)
    asking = asyncio.create_task(call)
    await stage.actor.hanging.wait()
    asking.cancel()
    async with asyncio.timeout(PROMPTLY):
        await stage.actor.cancelled.wait()
        await over


async def test_a_caller_that_is_done_doesn_t_cut_off_who_listens_to_the_session(
    stage: Stage,
) -> None:
    stage.script("Hello!")
    may_end = asyncio.Event()
    heard: list[str] = []

    async def listen(event: CommandResultEvent) -> None:
        await may_end.wait()
        heard.append(event.result.status)

    listening = stage.app.bus.register_event_handler(CommandResultEvent, listen)
    over = await ended(stage)
    assert text(await pieces(stage)) == "Hello!"
    may_end.set()
    async with asyncio.timeout(PROMPTLY):
        await over
    listening.cancel()
    assert heard == ["ok"]


async def test_the_model_waits_for_a_caller_that_doesn_t_read(stage: Stage) -> None:
    words = 800
    stage.script(f"{'x' * 40_000} " * words)
    host, port = stage.url.removeprefix("http://").split(":")
    over = await ended(stage)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    sent = json.dumps(body(stage)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\n"
        + f"Content-Length: {len(sent)}\r\n\r\n".encode()
        + sent
    )
    await reader.readuntil(b"\r\n\r\n")
    # What fits between the two is soon full; from then on no further piece is asked for.
    before = -1
    while stage.actor.pieces != before:
        before = stage.actor.pieces
        await asyncio.sleep(0.2)
    assert 0 < stage.actor.pieces < words / 2
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(PROMPTLY):
        await stage.actor.cancelled.wait()
        await over


async def test_silence_is_broken_by_comments(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_SILENCE", 0.01)
    stage.script("one two")
    stage.actor.hangs_after = 0
    over = await ended(stage)
    async with stage.raw.stream("POST", "/v1/chat/completions", json=body(stage)) as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == [": ping", "", ": ping"]
    async with asyncio.timeout(PROMPTLY):
        await over


async def test_the_bus_hears_the_pieces_of_each_answer_in_its_session(stage: Stage) -> None:
    stage.script("one two")
    heard: list[LLMChunkEvent] = []
    listening = stage.app.bus.register_event_handler(LLMChunkEvent, heard.append, inline=True)
    over = await ended(stage)
    chunks = await pieces(stage)
    event = await over
    listening.cancel()
    assert {each.session_id for each in heard} == {event.session_id}
    assert chunks[0].id == f"chatcmpl-{event.session_id}"

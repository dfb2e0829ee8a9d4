"""AG-UI's runs: what is asked, and the events that answer it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from ag_ui.core import (
    AssistantMessage,
    Event,
    FunctionCall,
    Message,
    ReasoningMessageContentEvent,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedEvent,
    RunStartedEvent,
    StateSnapshotEvent,
    SystemMessage,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    Tool,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    ToolMessage,
    UserMessage,
)
from ag_ui.core import ToolCall as Call
from api.agui.writing import RunWriter
from api.problems import Problem
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    MediaPart,
    PartEnd,
    RefusalPart,
    SessionEndEvent,
    StreamEnd,
    StreamStart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
    Usage,
    unfold,
)
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import RateLimitError
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.tools import ToolManager
from pydantic import TypeAdapter

Start = Callable[..., Awaitable[str]]
StartClient = Callable[..., Awaitable[httpx2.AsyncClient]]
StartWeb = Callable[..., Awaitable[FastAPI]]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
HI = UserMessage(id="1", content="Hi")
FIND = Tool(name="find", description="Find.", parameters={"type": "object"})
PROMPTLY = 30.0


def asked(*messages: Message, **fields: Any) -> dict[str, Any]:
    given = RunAgentInput(thread_id="t", run_id="r", messages=[*messages] or [HI], **fields)
    return given.model_dump(mode="json", by_alias=True)


def events_of(text: str) -> list[Event]:
    """Return the events of a run, each as the protocol has it and all in the order it wants."""
    *lines, rest = text.split("\n\n")
    assert rest == ""
    events = [EVENT.validate_json(line.removeprefix("data: ")) for line in lines if line[0] != ":"]
    check(events)
    return events


def check(events: Sequence[Event]) -> None:
    first, *_, last = events
    assert isinstance(first, RunStartedEvent)
    assert isinstance(last, RunFinishedEvent | RunErrorEvent)
    ends = [each for each in events if isinstance(each, RunFinishedEvent | RunErrorEvent)]
    assert len(ends) == 1
    seen: set[str] = set()
    text, calls, closed = None, set[str](), set[str]()
    for event in events:
        if isinstance(event, TextMessageStartEvent):
            assert text is None
            assert event.message_id not in seen
            text = event.message_id
            seen.add(text)
        elif isinstance(event, TextMessageContentEvent):
            assert event.message_id == text
        elif isinstance(event, TextMessageEndEvent):
            assert event.message_id == text
            text = None
        elif isinstance(event, ToolCallStartEvent):
            assert text is None
            assert event.tool_call_id not in calls | closed
            calls.add(event.tool_call_id)
        elif isinstance(event, ToolCallArgsEvent):
            assert event.tool_call_id in calls
        elif isinstance(event, ToolCallEndEvent):
            calls.remove(event.tool_call_id)
            closed.add(event.tool_call_id)
        elif isinstance(event, ToolCallResultEvent):
            assert event.tool_call_id in closed
            assert event.message_id not in seen
    if isinstance(last, RunFinishedEvent):
        assert text is None
        assert not calls


def history(events: Iterable[Event]) -> list[Message]:
    """Return what a client adds to its messages, as AG-UI's own does."""
    messages: list[Message] = []
    answers: dict[str, AssistantMessage] = {}
    calls: dict[str, Call] = {}

    def answer(message_id: str) -> AssistantMessage:
        if message_id not in answers:
            answers[message_id] = AssistantMessage(id=message_id, content="", tool_calls=[])
            messages.append(answers[message_id])
        return answers[message_id]

    for event in events:
        if isinstance(event, TextMessageContentEvent):
            said = answer(event.message_id)
            said.content = f"{said.content}{event.delta}"
        elif isinstance(event, ToolCallStartEvent):
            function = FunctionCall(name=event.tool_call_name, arguments="")
            calls[event.tool_call_id] = Call(id=event.tool_call_id, function=function)
            made = answer(event.parent_message_id or event.tool_call_id)
            made.tool_calls = [*(made.tool_calls or ()), calls[event.tool_call_id]]
        elif isinstance(event, ToolCallArgsEvent):
            calls[event.tool_call_id].function.arguments += event.delta
        elif isinstance(event, ToolCallResultEvent):
            messages.append(
                ToolMessage(
                    id=event.message_id, content=event.content, tool_call_id=event.tool_call_id
                )
            )
    return messages


def tools(bus: MessageBus) -> ToolManager:
    made = ToolManager(publisher=bus)
    made.register_tool(lambda: "sunny", name="weather", description="Tell the weather.")
    made.register_tool(lambda: "gone", name="erase", description="Erase.", needs_approval=True)
    return made


class Model:
    """A provider whose script may change."""

    name = "model"

    def __init__(self) -> None:
        self.script = ScriptedProvider()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await self.script.complete(request)

    def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        return self.script.stream(request)


class Run:
    """A client of an application whose model follows a script."""

    def __init__(self, client: httpx2.AsyncClient, model: Model) -> None:
        self.client = client
        self.model = model

    async def answer(self, body: dict[str, Any], *script: ScriptStep) -> httpx2.Response:
        self.model.script = ScriptedProvider(script)
        return await self.client.post("/agui", json=body)

    async def events(self, body: dict[str, Any], *script: ScriptStep) -> list[Event]:
        answer = await self.answer(body, *script)
        assert answer.status_code == 200, answer.text
        self.model.script.assert_finished()
        return events_of(answer.text)

    @property
    def told(self) -> list[ChatMessage]:
        """What the model was told last."""
        return list(self.model.script.requests[-1].messages)


@pytest_asyncio.fixture
async def run(bus: MessageBus, start_client: StartClient) -> Run:
    model = Model()
    return Run(await start_client(provider=model, tools=tools(bus)), model)


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.type.value for event in events]


def text_of(events: Iterable[Event]) -> str:
    return "".join(each.delta for each in events if isinstance(each, TextMessageContentEvent))


# -- What comes


async def test_an_answer_is_a_run_with_a_message(run: Run) -> None:
    used = Usage(input_tokens=7, output_tokens=5, cache_read_tokens=3)
    answer = LLMResponse(message=ChatMessage.assistant("one two"), model="m", usage=used)
    events = await run.events(asked(parent_run_id="p"), answer)
    assert kinds(events) == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    started, end = events[0], events[-1]
    assert isinstance(started, RunStartedEvent)
    assert isinstance(end, RunFinishedEvent)
    assert (started.thread_id, started.run_id, started.parent_run_id) == ("t", "r", "p")
    assert (end.thread_id, end.run_id, end.result) == ("t", "r", {"finishReason": "stop"})
    (usage,) = end.usage or []
    assert (usage.model, usage.input_tokens, usage.total_tokens) == ("m", 7, 12)
    assert usage.cached_input_tokens == 3
    assert text_of(events) == "one two"


async def test_the_server_s_tools_are_run_and_shown(run: Run) -> None:
    calls = ToolCall(id="a", name="weather"), ToolCall(id="b", name="weather", arguments="{ }")
    script = ChatMessage.assistant("Let me see.", *calls), "It is sunny."
    events = await run.events(asked(), *script)
    assert [kind for kind in kinds(events) if kind != "TEXT_MESSAGE_CONTENT"] == [
        "RUN_STARTED",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_END",
        *["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"] * 2,
        *["TOOL_CALL_RESULT"] * 2,
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    results = [each for each in events if isinstance(each, ToolCallResultEvent)]
    assert [(each.tool_call_id, each.content) for each in results] == [
        ("a", "sunny"),
        ("b", "sunny"),
    ]
    end = events[-1]
    assert isinstance(end, RunFinishedEvent)
    assert end.outcome is not None
    assert end.outcome.model_dump() == {"type": "success"}
    # What a client makes of the events is what the model was told, and is told again.
    more = UserMessage(id="9", content="And now?")
    await run.events(asked(HI, *history(events), more), "Still.")
    first, *rest = run.told
    assert first == ChatMessage.user("Hi")
    assert rest == [
        ChatMessage.assistant("Let me see.", *calls),
        ChatMessage.tool(
            ToolResult(tool_call_id="a", name="weather", content="sunny"),
            ToolResult(tool_call_id="b", name="weather", content="sunny"),
        ),
        ChatMessage.assistant("It is sunny."),
        ChatMessage.user("And now?"),
    ]


async def test_rounds_without_words_are_messages_of_their_own(run: Run) -> None:
    rounds = [ChatMessage.assistant(ToolCall(id=each, name="weather")) for each in "ab"]
    events = await run.events(asked(), *rounds, "So.")
    assert [message.role for message in history(events)] == [
        *("assistant", "tool") * 2,
        "assistant",
    ]


async def test_a_tool_that_needs_approval_is_refused(run: Run) -> None:
    call = ToolCall(id="a", name="erase")
    events = await run.events(asked(), ChatMessage.assistant(call), "I may not.")
    (result,) = [each for each in events if isinstance(each, ToolCallResultEvent)]
    assert "nobody can be asked" in str(result.content)
    assert text_of(events) == "I may not."


async def test_calls_of_the_caller_s_tools_end_the_run(run: Run) -> None:
    calls = (
        ToolCall(id="a", name="find", arguments='{"x": 1}'),
        ToolCall(id="b", name="find", arguments=""),
    )
    script = ChatMessage.assistant("Let me see.", *calls)
    events = await run.events(asked(tools=[FIND]), script)
    end = events[-1]
    assert isinstance(end, RunFinishedEvent)
    assert end.outcome is not None
    assert end.outcome.model_dump(by_alias=True) == {
        "type": "success",
        "pendingToolCallIds": ["a", "b"],
    }
    assert not any(isinstance(each, ToolCallResultEvent) for each in events)
    (offered,) = run.model.script.requests[0].tools
    assert offered["function"]["name"] == "find"
    (answer,) = history(events)
    assert isinstance(answer, AssistantMessage)
    assert [each.function.arguments for each in answer.tool_calls or ()] == ['{"x": 1}', "{}"]
    # The results come with the next run, whose answer may be words.
    results = (
        ToolMessage(id="8", tool_call_id="b", content="", error="not found"),
        ToolMessage(id="9", tool_call_id="a", content="found"),
    )
    said = await run.events(asked(HI, answer, *results, tools=[FIND]), "There.")
    assert text_of(said) == "There."
    told = {each.tool_call_id: each for each in run.told[-1].tool_results}
    assert (told["a"].text, told["a"].is_error) == ("found", False)
    assert (told["b"].text, told["b"].is_error) == ("not found", True)


async def test_reasoning_has_events_of_its_own(run: Run) -> None:
    answer = ChatMessage.assistant(ThinkingPart(text="Hm. No."), RefusalPart(text="I won't."))
    events = await run.events(asked(), answer)
    assert kinds(events) == [
        "RUN_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        *["REASONING_MESSAGE_CONTENT"] * 2,
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    thoughts = [each.delta for each in events if isinstance(each, ReasoningMessageContentEvent)]
    assert "".join(thoughts) == "Hm. No."
    assert text_of(events) == "I won't."


async def test_the_state_comes_back_as_it_was(run: Run) -> None:
    events = await run.events(asked(state={"a": [1, None]}, forwarded_props={"b": 2}), "ok")
    snapshot = events[1]
    assert isinstance(snapshot, StateSnapshotEvent)
    assert snapshot.snapshot == {"a": [1, None]}
    assert run.told == [ChatMessage.user("Hi")]
    assert "STATE_SNAPSHOT" not in kinds(await run.events(asked(state={}), "ok"))


PARTS = st.one_of(
    st.builds(TextPart, text=st.text(st.characters(codec="utf-8"), max_size=9)),
    st.builds(ThinkingPart, text=st.text(st.characters(codec="utf-8"), max_size=9)),
    st.builds(
        ToolCall,
        id=st.uuids().map(str),
        name=st.just("find"),
        arguments=st.sampled_from(["", "{}"]),
    ),
)


def streamed(parts: Sequence[TextPart | ThinkingPart | ToolCall], whole: bool) -> list[LLMChunk]:
    if whole:
        ends = (PartEnd(index=index, part=part) for index, part in enumerate(parts))
        return [StreamStart(), *ends, StreamEnd()]
    return list(unfold(LLMResponse(message=ChatMessage.assistant(*parts))))


@given(parts=st.lists(PARTS, max_size=6), whole=st.booleans())
def test_whatever_a_model_says_is_a_sound_run(
    parts: list[TextPart | ThinkingPart | ToolCall], whole: bool
) -> None:
    writer = RunWriter(RunAgentInput(thread_id="t", run_id="r", messages=[]))
    events = events_of(b"".join(map(writer.written, streamed(parts, whole))).decode())
    said = "".join(part.text for part in parts if isinstance(part, TextPart))
    assert re.sub(r"\s", "", text_of(events)) == re.sub(r"\s", "", said)
    calls = [each.tool_call_id for each in events if isinstance(each, ToolCallStartEvent)]
    assert calls == [part.id for part in parts if isinstance(part, ToolCall)]


async def test_results_that_no_text_can_hold(run: Run) -> None:
    writer = RunWriter(RunAgentInput(thread_id="t", run_id="r", messages=[]))
    picture = MediaPart(kind="image", media_type="image/png", data=b"\x89PNG")
    linked = MediaPart(kind="document", url="https://example.com/a.pdf")
    kept = MediaPart(kind="audio", file_id="file-1")
    content = TextPart(text="Look:"), picture, linked, kept
    call = ToolCall(id="a", name="draw")
    result = ToolResult(tool_call_id="a", name="draw", content=content)
    pieces = ChatMessage.assistant(call), ChatMessage.tool(result), StreamEnd()
    events = events_of(b"".join(map(writer.written, pieces)).decode())
    await run.events(asked(HI, *history(events)), "Nice.")
    assert run.told[-1].tool_results == (result,)


# -- What is asked


async def test_context_and_instructions_stand_first(
    bus: MessageBus, start_client: StartClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGINE_PROVIDER__SYSTEM_PROMPT", "Be brief.")
    model = Model()
    run = Run(await start_client(provider=model, tools=tools(bus)), model)
    context: Any = [{"description": "The page", "value": "/cart"}]
    page = ChatMessage.system("The page:\n/cart")
    await run.events(asked(context=context), "ok")
    assert run.told == [ChatMessage.system("Be brief."), page, ChatMessage.user("Hi")]
    rhyme = SystemMessage(id="0", content="Rhyme.")
    await run.events(asked(rhyme, HI, context=context), "ok")
    assert run.told == [ChatMessage.system("Rhyme."), page, ChatMessage.user("Hi")]
    await run.events(asked(), "ok")
    assert run.told == [ChatMessage.system("Be brief."), ChatMessage.user("Hi")]


async def test_a_history_with_gaps_is_mended(run: Run) -> None:
    function = FunctionCall(name="weather", arguments="{}")
    cut = AssistantMessage(id="2", tool_calls=[Call(id="a", function=function)])
    stray = ToolMessage(id="3", tool_call_id="unknown", content="?")
    body = asked(HI, cut, stray, UserMessage(id="4", content="Well?"))
    body["messages"] += [
        {"id": "5", "role": "reasoning", "content": "Hm."},
        {"id": "6", "role": "activity", "activityType": "plan", "content": {}},
        {"id": "7", "role": "assistant"},
    ]
    await run.events(body, "ok")
    assert [message.role for message in run.told] == ["user", "assistant", "tool", "user"]
    (result,) = run.told[2].tool_results
    assert (result.tool_call_id, result.error_code) == ("a", "interrupted")


async def test_pictures_go_to_the_model(run: Run) -> None:
    picture: Any = {"type": "data", "value": "iVBO", "mimeType": "image/png"}
    linked: Any = {"type": "url", "value": "https://example.com/a.pdf"}
    message = UserMessage.model_validate(
        {
            "id": "1",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": picture},
                {"type": "document", "source": linked},
            ],
        }
    )
    await run.events(asked(message), "ok")
    (told,) = run.told
    assert told == ChatMessage.user(
        "What is this?",
        MediaPart(kind="image", media_type="image/png", data=b"\x89PN"),
        MediaPart(kind="document", url="https://example.com/a.pdf"),
    )


USER = {"id": "1", "role": "user", "content": "Hi"}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("threadId", {"threadId": None}),
    ("messages", {"messages": []}),
    ("messages", {"messages": [{"id": "1", "role": "system", "content": "Rhyme."}]}),
    ("messages[0]", {"messages": [{"id": "1", "role": "robot"}]}),
    ("messages[1].content", {"messages": [USER, {"id": "2", "role": "user", "content": []}]}),
    (
        "messages[0].content[0].source.value",
        {
            "messages": [
                {
                    **USER,
                    "content": [{"type": "image", "source": {"type": "url", "value": "file:///a"}}],
                }
            ]
        },
    ),
    ("tools[0].name", {"tools": [{"name": "a b", "description": ""}]}),
    ("tools[1].name", {"tools": [{"name": "a", "description": ""}] * 2}),
    ("tools[0].parameters", {"tools": [{"name": "a", "description": "", "parameters": [1]}]}),
    ("resume", {"resume": [{"interruptId": "1", "status": "resolved"}]}),
    ("context[0].value", {"context": [{"description": "a"}]}),
]


async def test_what_can_t_be_meant_is_refused_by_name(run: Run) -> None:
    for param, fields in WRONG:
        answer = await run.answer({**asked(), **fields})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == param
        assert error["message"].startswith(param)
        assert run.model.script.requests == []


class TextOnly(ScriptedProvider):
    @property
    def capabilities(self) -> ProviderCapabilities:
        return ProviderCapabilities(tools=False, media=False)


async def test_what_the_model_can_t_do_is_refused(start_client: StartClient) -> None:
    client = await start_client(provider=TextOnly(["ok"]))
    picture: Any = {"type": "image", "source": {"type": "file", "value": "1"}}
    shown = asked(UserMessage(id="1", content=[picture]))
    for param, body in (("messages[0].content[0]", shown), ("tools", asked(tools=[FIND]))):
        answer = await client.post("/agui", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert text_of(events_of((await client.post("/agui", json=asked())).text)) == "ok"


# -- What breaks off


async def test_an_error_before_the_first_event_has_its_status(run: Run) -> None:
    answer = await run.answer(asked(), RateLimitError("slow down", retry_after=2.5))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_run_that_failed_had_begun() -> None:
    writer = RunWriter(RunAgentInput(thread_id="t", run_id="r", messages=[]))
    events = events_of(writer.failed(Problem(message="It is gone.", code="gone")).decode())
    assert kinds(events) == ["RUN_STARTED", "RUN_ERROR"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, "provider_failed"), (ZeroDivisionError("secret"), "internal_error")],
)
async def test_an_error_within_ends_the_run(run: Run, error: Exception | None, code: str) -> None:
    events = await run.events(asked(), BrokenStream("one two three", after=2, error=error))
    assert text_of(events) == "one two"
    end = events[-1]
    assert isinstance(end, RunErrorEvent)
    assert end.code == code
    assert "secret" not in end.message


class Hanging(ScriptedProvider):
    """A model that says a word, and then nothing until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = asyncio.Event()

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        del request
        yield StreamStart()
        for chunk in unfold(LLMResponse(message=ChatMessage.assistant("one"))):
            if isinstance(chunk, StreamEnd):
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            yield chunk


async def test_a_run_whose_time_is_over_ends_with_an_error(
    start_web: StartWeb, start_server: Start
) -> None:
    provider = Hanging()
    web = await start_web(provider=provider, api={"grace": 0.01})
    url = await start_server(web=web)
    lines: list[str] = []
    async with (
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PROMPTLY) as client,
        client.stream("POST", "/agui", json=asked()) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            if "TEXT_MESSAGE_CONTENT" in line:
                web.state.deadlines.end()
    events = events_of("".join(f"{line}\n" for line in lines))
    assert text_of(events) == "one"
    end = events[-1]
    assert isinstance(end, RunErrorEvent)
    assert "server is ending" in end.message
    assert provider.cancelled.is_set()


async def test_a_caller_that_leaves_ends_the_model_s_work(
    start_server: Start, bus: MessageBus
) -> None:
    provider = Hanging()
    url = await start_server(provider=provider)
    over = asyncio.Event()
    results: list[CommandResultEvent] = []
    bus.register_event_handler(CommandResultEvent, results.append, inline=True)
    bus.register_event_handler(SessionEndEvent, lambda _: over.set(), inline=True)
    async with (
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PROMPTLY) as client,
        client.stream("POST", "/agui", json=asked()) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        async for line in answer.aiter_lines():
            if "TEXT_MESSAGE_CONTENT" in line:
                break
    async with asyncio.timeout(PROMPTLY):
        await provider.cancelled.wait()
        await over.wait()
    assert [each.result.status for each in results] == ["cancelled"]


async def test_a_caller_that_leaves_ends_the_tools(start_server: Start, bus: MessageBus) -> None:
    running, ended, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    slow = ToolManager(publisher=bus)
    slow.register_tool(wait, name="wait", description="Wait.")
    script = ChatMessage.assistant(ToolCall(id="a", name="wait"))
    url = await start_server(provider=ScriptedProvider([script]), tools=slow)
    bus.register_event_handler(SessionEndEvent, lambda _: over.set(), inline=True)
    async with (
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PROMPTLY) as client,
        client.stream("POST", "/agui", json=asked()) as answer,
    ):
        async for line in answer.aiter_lines():
            if "TOOL_CALL_END" in line:  # told before the tool is done
                break
        await running.wait()
    async with asyncio.timeout(PROMPTLY):
        await ended.wait()
        await over.wait()


async def test_the_example_of_the_readme_runs(server: str, environment: dict[str, str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n([^`]*from ag_ui[^`]*)^```", readme, re.MULTILINE)
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program.replace("http://127.0.0.1:8000", server),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    said, _ = await running.communicate()
    assert running.returncode == 0
    assert b"TOOL_CALL_RESULT 408" in said

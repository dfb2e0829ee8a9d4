from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from assistant import EmptyTurnError, RunTurn, TurnResult, register
from assistant.rounds import CUT_OFF, MAX_ROUNDS
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    FinishReason,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunkEvent,
    LLMRequest,
    LLMResponse,
    TextDelta,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from llmgine.contracts.history import INTERRUPTED, repaired
from llmgine.errors import (
    CallCancelledError,
    RateLimitError,
    SessionClosedError,
    StreamInterruptedError,
    WouldDeadlockError,
)
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.settings import BusSettings
from llmgine.testing.fixtures import StartApp, quiet_config

DEFINITION: ToolDefinition = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}},
}


def calls(*ids: str) -> ChatMessage:
    return ChatMessage.assistant(
        "Let me see. ", *(ToolCall(id=each, name="add", arguments='{"a": 1}') for each in ids)
    )


class Tools:
    """Answers each call with its id, or does what the test wants."""

    def __init__(self, act: Callable[[ToolCall], object] | None = None) -> None:
        self.act = act
        self.called: list[str] = []
        self.stuck = asyncio.Event()

    def get_tools(self, *, strict: bool = False) -> list[ToolDefinition]:
        return [DEFINITION]

    async def execute_tool_call(self, call: ToolCall) -> ToolResult:
        self.called.append(call.id)
        if call.id == "stuck":
            self.stuck.set()
            await asyncio.Event().wait()
        if self.act is not None:
            outcome = self.act(call)
            if asyncio.iscoroutine(outcome):
                await outcome
        return ToolResult(tool_call_id=call.id, name=call.name, content=f"result {call.id}")


@dataclass
class Stage:
    """An application with a session, and what happened on it."""

    app: ApplicationBootstrap
    provider: ScriptedProvider
    session: BusSession

    async def ask(self, text: str = "Hi") -> TurnResult:
        return await self.session.execute(RunTurn(text=text))

    async def history(self) -> list[ChatMessage]:
        return await self.app.context.get_context("s")

    async def told(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in await self.history()]


class Starter:
    def __init__(self, start_app: StartApp) -> None:
        self._start_app = start_app

    async def __call__(
        self, script: Sequence[ScriptStep], tools: Tools | None = None, **values: object
    ) -> Stage:
        provider = ScriptedProvider(script)
        app = await self._start_app(
            quiet_config(**values), provider=provider, tools=tools, setup=register
        )
        return Stage(app, provider, BusSession("s", bus=app.bus))


@pytest.fixture
def stage(start_app: StartApp) -> Starter:
    return Starter(start_app)


async def test_chunks_and_calls_are_told_in_the_session(stage: Starter) -> None:
    on = await stage(["one two"])
    pieces: list[str] = []
    kinds: list[str] = []
    on.app.bus.register_event_handler(
        LLMChunkEvent,
        lambda event: isinstance(event.chunk, TextDelta) and pieces.append(event.chunk.text),
        session_id="s",
        inline=True,
    )
    for kind in (LLMCallStartedEvent, LLMCallResultEvent, CommandResultEvent):
        on.app.bus.register_event_handler(
            kind, lambda event: kinds.append(type(event).__name__), inline=True
        )
    async with on.session:
        result = await on.ask()
    assert "".join(pieces) == result.text == "one two"
    assert result.finish_reason == "stop"
    assert kinds == ["LLMCallStartedEvent", "LLMCallResultEvent", "CommandResultEvent"]


async def test_the_conversation_goes_on(stage: Starter) -> None:
    on = await stage(["first", lambda request: f"{len(request.messages)} messages"])
    async with on.session:
        await on.ask("a")
        assert (await on.ask("b")).text == "3 messages"


async def test_the_settings_choose_model_and_system_prompt(stage: Starter) -> None:
    on = await stage(["ok"], provider={"model": "m", "system_prompt": "Be brief."})
    async with on.session:
        await on.ask()
    request = on.provider.requests[0]
    assert (request.model, request.messages[0]) == ("m", ChatMessage.system("Be brief."))
    assert [role for role, _ in await on.told()] == ["user", "assistant"]


async def test_a_turn_needs_a_session(stage: Starter) -> None:
    on = await stage([])
    with pytest.raises(SessionClosedError, match="belongs to a session"):
        await on.app.bus.execute(RunTurn(text="Hi"))


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_a_blank_message_is_refused(stage: Starter, text: str) -> None:
    on = await stage([])
    async with on.session:
        with pytest.raises(EmptyTurnError):
            await on.ask(text)


async def test_a_turn_has_no_limit_of_its_own() -> None:
    bus = MessageBus.isolated(BusSettings(command_timeout=0.01))
    slow = ScriptedProvider(["one two three"], delay=0.01)
    app = ApplicationBootstrap(quiet_config(), bus=bus, provider=slow, setup=register)
    async with app, BusSession("s", bus=bus) as session:
        assert (await session.execute(RunTurn(text="Hi"))).text == "one two three"


# -- Tools


async def test_tools_are_run_and_the_model_asked_again(stage: Starter) -> None:
    tools = Tools()
    on = await stage([calls("1", "2"), "Three."], tools)
    async with on.session:
        result = await on.ask("1 + 2?")
    assert result.text == "Three."
    assert [each.text for each in result.tool_results] == ["result 1", "result 2"]
    assert tools.called == ["1", "2"]
    assert on.provider.requests[0].tools == (DEFINITION,)
    history = await on.history()
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
    assert history == repaired(history)
    assert result.usage.output_tokens is not None


async def test_a_tool_that_there_is_not_is_answered_by_an_error(stage: Starter) -> None:
    on = await stage([calls("1"), "Never mind."])
    async with on.session:
        result = await on.ask()
    assert result.text == "Never mind."
    assert [each.error_code for each in result.tool_results] == ["unknown_tool"]
    assert on.provider.requests[0].tools == ()


async def test_calls_at_once_run_at_once(stage: Starter) -> None:
    all_three = asyncio.Barrier(3)

    async def meet() -> None:
        await all_three.wait()

    on = await stage([calls("1", "2", "3"), "Done."], Tools(lambda _: meet()))
    async with on.session:
        result = await on.ask()
    assert [each.text for each in result.tool_results] == ["result 1", "result 2", "result 3"]


async def test_calls_are_kept_before_they_run(stage: Starter) -> None:
    kept: list[list[tuple[str, str]]] = []

    async def look() -> None:
        kept.append(await on.told())

    on = await stage([calls("1"), "Done."], Tools(lambda _: look()))
    async with on.session:
        await on.ask("1 + 2?")
    assert kept == [[("user", "1 + 2?"), ("assistant", "Let me see. ")]]


async def test_a_conversation_that_was_killed_among_its_tools_goes_on(stage: Starter) -> None:
    on = await stage(["Where were we?"])
    await on.app.context.add_messages("s", [ChatMessage.user("1 + 2?"), calls("1")])
    async with on.session:
        assert (await on.ask("Go on.")).text == "Where were we?"
    asked = on.provider.requests[0].messages
    assert [message.role for message in asked] == ["user", "assistant", "tool", "user"]
    assert asked[2].tool_results[0].error_code == INTERRUPTED


async def test_rounds_are_bounded(stage: Starter) -> None:
    tools = Tools()
    on = await stage([calls(str(n)) for n in range(MAX_ROUNDS + 1)], tools)
    async with on.session:
        result = await on.ask()
    on.provider.assert_finished()
    assert len(tools.called) == MAX_ROUNDS
    assert on.provider.requests[-1].tool_choice == "none"
    assert result.finish_reason == "tool_calls"
    history = await on.history()
    assert history == repaired(history)


@pytest.mark.parametrize("reason", sorted(CUT_OFF))
async def test_calls_of_an_answer_that_was_cut_off_are_not_run(
    stage: Starter, reason: FinishReason
) -> None:
    tools = Tools()
    on = await stage([LLMResponse(message=calls("1"), finish_reason=reason)], tools)
    async with on.session:
        result = await on.ask()
    on.provider.assert_finished()
    assert (tools.called, result.finish_reason) == ([], reason)
    history = await on.history()
    assert history == repaired(history)
    assert "cut off" in history[-1].tool_results[0].text


async def test_an_executor_that_raises_is_heard_of_and_the_history_stays_sound(
    stage: Starter,
) -> None:
    def act(call: ToolCall) -> None:
        if call.id == "2":
            raise ZeroDivisionError

    on = await stage([calls("1", "2")], Tools(act))
    async with on.session:
        with pytest.raises(ZeroDivisionError):
            await on.ask()
    history = await on.history()
    results = history[-1].tool_results
    assert [each.error_code for each in results] == [None, "failed"]
    assert history == repaired(history)


# -- Cut off


async def cancel_once(on: Stage, when: asyncio.Event) -> None:
    turn = asyncio.create_task(on.ask("Tell me."))
    await when.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn


async def test_a_cancelled_answer_is_kept_as_far_as_it_came(start_app: StartApp) -> None:
    provider = ScriptedProvider(["one two three", "next"], delay=0.01)
    app = await start_app(provider=provider, setup=register)
    on = Stage(app, provider, BusSession("s", bus=app.bus))
    seen = asyncio.Event()
    ended: list[LLMCallResultEvent] = []
    app.bus.register_event_handler(LLMCallResultEvent, ended.append, inline=True)
    app.bus.register_event_handler(
        LLMChunkEvent,
        lambda event: isinstance(event.chunk, TextDelta) and seen.set(),
        inline=True,
    )
    async with on.session:
        await cancel_once(on, seen)
        (_, said), (_, begun) = await on.told()
        assert said == "Tell me."
        assert "one two three".startswith(begun)
        assert begun
        await on.ask("Go on.")
    assert [role for role, _ in await on.told()] == ["user", "assistant"] * 2
    assert isinstance(ended[0].error, CallCancelledError)


async def test_a_turn_cancelled_before_an_answer_leaves_no_trace(start_app: StartApp) -> None:
    provider = ScriptedProvider(["never"], delay=60)
    app = await start_app(provider=provider, setup=register)
    on = Stage(app, provider, BusSession("s", bus=app.bus))
    asked = asyncio.Event()
    app.bus.register_event_handler(LLMCallStartedEvent, lambda _: asked.set(), inline=True)
    async with on.session:
        await cancel_once(on, asked)
    assert await on.told() == []


async def test_a_turn_cancelled_among_its_tools_has_a_result_for_each_call(
    stage: Starter,
) -> None:
    tools = Tools()
    on = await stage([calls("quick", "stuck"), "next"], tools)
    async with on.session:
        turn = asyncio.create_task(on.ask("Go."))
        await tools.stuck.wait()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        history = await on.history()
        results = history[-1].tool_results
        assert [each.error_code for each in results] == [None, INTERRUPTED]
        assert history == repaired(history)
        assert (await on.ask("Again.")).text == "next"


async def test_a_provider_s_error_comes_through_and_leaves_no_trace(stage: Starter) -> None:
    on = await stage([RateLimitError("slow down", retry_after=2.0), "ok"])
    async with on.session:
        with pytest.raises(RateLimitError) as caught:
            await on.ask()
        assert caught.value.retryable
        assert await on.told() == []
        await on.ask("again")
    assert await on.told() == [("user", "again"), ("assistant", "ok")]


async def test_a_broken_stream_is_kept_as_far_as_it_came(stage: Starter) -> None:
    on = await stage([BrokenStream("one two three", after=2)])
    async with on.session:
        with pytest.raises(StreamInterruptedError):
            await on.ask()
    assert await on.told() == [("user", "Hi"), ("assistant", "one two")]


async def test_an_empty_answer_leaves_no_empty_message(stage: Starter) -> None:
    on = await stage([ChatMessage.assistant()])
    async with on.session:
        assert (await on.ask()).text == ""
    assert await on.told() == []


# -- Two at once


async def test_turns_of_a_session_run_one_after_the_other(stage: Starter) -> None:
    def count(request: LLMRequest) -> str:
        return str(len(request.messages))

    on = await stage([count, count, count])
    async with on.session:
        results = await asyncio.gather(*(on.ask(str(n)) for n in range(3)))
    assert [result.text for result in results] == ["1", "3", "5"]


async def test_sessions_don_t_wait_for_each_other(stage: Starter) -> None:
    both = asyncio.Barrier(2)

    async def meet() -> None:
        await both.wait()

    def act(call: ToolCall) -> object:
        return meet()

    on = await stage([calls("1"), calls("2"), "a", "b"], Tools(act))
    async with on.session:
        other = RunTurn(text="x", session_id="other")
        results = await asyncio.gather(on.ask(), on.app.bus.execute(other))
    assert sorted(result.text for result in results) == ["a", "b"]


async def test_a_turn_inside_a_turn_of_its_session_is_refused(stage: Starter) -> None:
    refused: list[BaseException] = []
    inner: list[TurnResult] = []

    async def again() -> None:
        try:
            await on.ask("inside")
        except WouldDeadlockError as error:
            refused.append(error)
        inner.append(await on.app.bus.execute(RunTurn(text="elsewhere", session_id="other")))

    on = await stage([calls("1"), "elsewhere too", "done"], Tools(lambda _: again()))
    async with on.session:
        result = await on.ask()
        assert result.text == "done"
    assert len(refused) == 1
    assert inner[0].text == "elsewhere too"


async def test_what_a_turn_s_events_lead_to_may_ask_again_afterwards(stage: Starter) -> None:
    on = await stage(["first", "second"])
    answers: list[str] = []

    async def follow(event: LLMCallResultEvent) -> None:
        if not answers:
            answers.append("")
            await first
            answers.append((await on.ask("more")).text)

    on.app.bus.register_event_handler(LLMCallResultEvent, follow, concurrent=True)
    async with on.session:
        first = asyncio.create_task(on.ask())
        await first
        await on.app.bus.join()
    assert answers == ["", "second"]

"""`AnswerRequest`: an answer to a request that brings its own history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from assistant import AnswerRequest, RunTurn, register
from assistant.rounds import CUT_OFF, MAX_ROUNDS
from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    FinishReason,
    LLMCallResultEvent,
    LLMChunk,
    LLMChunkEvent,
    LLMRequest,
    LLMResponse,
    ResolveToolApproval,
    TextDelta,
    TextPart,
    ThinkingPart,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolDefinition,
    Usage,
    fold,
)
from llmgine.errors import CallCancelledError, RateLimitError
from llmgine.providers.scripted import ScriptedProvider, ScriptStep
from llmgine.settings import BusSettings
from llmgine.testing.fixtures import quiet_config
from llmgine.tools import ToolManager

CALLERS: ToolDefinition = {
    "type": "function",
    "function": {"name": "own", "description": "The caller's.", "parameters": {"type": "object"}},
}
HI = LLMRequest(messages=(ChatMessage.user("Hi"),))


def calling(*names: str, text: str = "Let me see.") -> ChatMessage:
    calls = (ToolCall(id=f"{name}-{at}", name=name) for at, name in enumerate(names))
    return ChatMessage.assistant(text, *calls)


@dataclass
class Stage:
    """An application, and what was heard of its answers."""

    app: ApplicationBootstrap
    provider: ScriptedProvider
    tools: ToolManager
    heard: list[LLMChunk] = field(default_factory=list[LLMChunk])

    async def answer(self, request: LLMRequest = HI, *, run_tools: bool = True) -> LLMResponse:
        async def hear(chunk: LLMChunk) -> None:
            self.heard.append(chunk)

        async with BusSession("s", bus=self.app.bus) as session:
            command = AnswerRequest(request=request, run_tools=run_tools, hear=hear)
            return await session.execute(command)


def stage(bus: MessageBus, *script: ScriptStep, **values: object) -> Stage:
    tools = ToolManager(publisher=bus)
    tools.register_tool(lambda: "sunny", name="weather", description="Tell the weather.")
    tools.register_tool(lambda: "gone", name="erase", description="Erase.", needs_approval=True)
    provider = ScriptedProvider(script)
    app = ApplicationBootstrap(
        quiet_config(**values), bus=bus, provider=provider, tools=tools, setup=register
    )
    return Stage(app, provider, tools)


async def test_the_answer_is_heard_piece_by_piece_and_kept_nowhere(bus: MessageBus) -> None:
    on = stage(bus, "one two")
    async with on.app:
        response = await on.answer()
        assert await on.app.context.get_context("s") == []
    assert response.text == "one two"
    pieces = [chunk.text for chunk in on.heard if isinstance(chunk, TextDelta)]
    assert pieces == ["one", " two"]
    assert fold(on.heard) == response


async def test_the_history_is_the_request_s(bus: MessageBus) -> None:
    said = (ChatMessage.user("a"), ChatMessage.assistant("b"), ChatMessage.user("c"))
    on = stage(bus, "d")
    async with on.app:
        await on.answer(LLMRequest(messages=said))
    assert on.provider.requests[0].messages == said


async def test_settings_stand_in_for_what_the_request_leaves_out(bus: MessageBus) -> None:
    own = LLMRequest(messages=(ChatMessage.system("Rhyme."), *HI.messages), model="n")
    on = stage(bus, "a", "b", provider={"model": "m", "system_prompt": "Be brief."})
    async with on.app:
        await on.answer()
        await on.answer(own)
    first, second = on.provider.requests
    assert (first.model, first.messages[0]) == ("m", ChatMessage.system("Be brief."))
    assert (second.model, second.messages) == ("n", own.messages)


async def test_tools_are_run_and_what_is_said_around_them_is_one_answer(bus: MessageBus) -> None:
    spent = [Usage(input_tokens=3, output_tokens=2), Usage(input_tokens=9, output_tokens=1)]
    on = stage(
        bus,
        LLMResponse(message=calling("weather"), id="1", finish_reason="tool_calls", usage=spent[0]),
        LLMResponse(message=ChatMessage.assistant("It is sunny."), id="2", usage=spent[1]),
    )
    async with on.app:
        response = await on.answer()
    assert response.text == "Let me see.\n\nIt is sunny."
    assert response.tool_calls == ()
    assert response.usage == spent[0] + spent[1]
    assert response.finish_reason == "stop"
    assert fold(on.heard) == response
    asked = on.provider.requests[1].messages
    assert [message.role for message in asked] == ["user", "assistant", "tool"]
    assert asked[2].tool_results[0].text == "sunny"


async def test_the_limit_is_that_of_the_whole_answer(bus: MessageBus) -> None:
    used = LLMResponse(
        message=calling("weather"), finish_reason="tool_calls", usage=Usage(output_tokens=30)
    )
    on = stage(bus, used, used, used, "Done.")
    async with on.app:
        await on.answer(LLMRequest(messages=HI.messages, max_output_tokens=70))
    limits = [request.max_output_tokens for request in on.provider.requests]
    assert limits == [70, 40, 10, 1]


async def test_calls_of_the_caller_s_tools_are_the_answer(bus: MessageBus) -> None:
    on = stage(bus, calling("own", "own"))
    async with on.app:
        response = await on.answer(LLMRequest(messages=HI.messages, tools=(CALLERS,)))
    assert [call.id for call in response.tool_calls] == ["own-0", "own-1"]
    assert response.finish_reason == "tool_calls"
    assert on.provider.requests[0].tools == (CALLERS,)
    assert fold(on.heard) == response


async def test_calls_and_results_are_heard_around_the_answer(bus: MessageBus) -> None:
    on = stage(bus, calling("weather", "erase"), "Done.", calling("own"))
    heard: list[ChatMessage] = []

    async def hear_tools(message: ChatMessage) -> None:
        heard.append(message)

    own = LLMRequest(messages=HI.messages, tools=(CALLERS,))
    async with on.app, BusSession("s", bus=on.app.bus) as session:
        await session.execute(AnswerRequest(request=HI, hear_tools=hear_tools))
        await session.execute(AnswerRequest(request=own, hear_tools=hear_tools))
    calls, results = heard
    assert [call.id for call in calls.tool_calls] == ["weather-0", "erase-1"]
    assert [result.tool_call_id for result in results.tool_results] == ["weather-0", "erase-1"]
    assert [result.is_error for result in results.tool_results] == [False, True]


async def test_tools_may_be_left_out(bus: MessageBus) -> None:
    on = stage(bus, "no tools")
    async with on.app:
        await on.answer(run_tools=False)
    assert on.provider.requests[0].tools == ()


async def test_a_call_that_needs_approval_is_refused_at_once(bus: MessageBus) -> None:
    on = stage(bus, calling("erase"), "I may not.")
    async with on.app:
        assert (await on.answer()).text == "Let me see.\n\nI may not."
    (result,) = on.provider.requests[1].messages[-1].tool_results
    assert result.error_code == "denied"
    assert "nobody can be asked here" in result.text


async def test_nobody_can_be_asked_for_a_turn_inside_either(bus: MessageBus) -> None:
    on = stage(bus, calling("delegate"), calling("erase"), "I may not.", "It may not.")

    async def delegate() -> str:
        return (await bus.execute(RunTurn(text="Erase.", session_id="inner"))).text

    on.tools.register_tool(delegate, description="Have it done.")
    async with on.app:
        assert (await on.answer()).text == "Let me see.\n\nIt may not."
    asked = on.provider.requests
    assert [result.error_code for result in asked[2].messages[-1].tool_results] == ["denied"]
    assert [result.text for result in asked[3].messages[-1].tool_results] == ["I may not."]


async def test_what_follows_an_answer_may_ask_again(bus: MessageBus) -> None:
    on = stage(bus, "first", calling("erase"), "Gone.")
    asked = asyncio.Event()

    async def follow(event: CommandResultEvent) -> None:
        if isinstance(event.command, AnswerRequest):
            await bus.execute(RunTurn(text="Erase.", session_id="other"))

    async def agree(event: ToolApprovalRequestedEvent) -> None:
        asked.set()
        await bus.execute(ResolveToolApproval(call_id=event.call.id, approved=True))

    bus.register_event_handler(CommandResultEvent, follow, concurrent=True)
    bus.register_event_handler(ToolApprovalRequestedEvent, agree, concurrent=True)
    async with on.app:
        await on.answer()
        await bus.join()
    assert asked.is_set()
    (result,) = on.provider.requests[2].messages[-1].tool_results
    assert result.text == "gone"


async def test_rounds_are_bounded(bus: MessageBus) -> None:
    on = stage(bus, *([calling("weather")] * (MAX_ROUNDS + 1)))
    async with on.app:
        response = await on.answer()
    on.provider.assert_finished()
    assert on.provider.requests[-1].tool_choice == "none"
    assert (response.finish_reason, response.tool_calls) == ("length", ())


@pytest.mark.parametrize("reason", sorted(CUT_OFF))
async def test_why_an_answer_was_cut_off_amid_a_call_is_told(
    bus: MessageBus, reason: FinishReason
) -> None:
    on = stage(bus, LLMResponse(message=calling("weather"), finish_reason=reason))
    async with on.app:
        response = await on.answer()
    assert (response.finish_reason, response.tool_calls) == (reason, ())


async def test_errors_come_through(bus: MessageBus) -> None:
    on = stage(bus, RateLimitError("slow down"))
    async with on.app:
        with pytest.raises(RateLimitError, match="slow down"):
            await on.answer()


async def test_the_model_waits_for_whoever_listens(bus: MessageBus) -> None:
    on = stage(bus, " ".join(["word"] * 100))
    came = asyncio.Event()
    ended: list[LLMCallResultEvent] = []
    bus.register_event_handler(LLMCallResultEvent, ended.append, inline=True)

    async def hear(chunk: LLMChunk) -> None:
        if isinstance(chunk, TextDelta):
            came.set()
            await asyncio.Event().wait()

    async with on.app:
        answering = asyncio.create_task(bus.execute(AnswerRequest(request=HI, hear=hear)))
        await came.wait()
        await bus.join()
        assert ended == []
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await bus.join()
    (event,) = ended
    assert isinstance(event.error, CallCancelledError)
    assert event.error.partial is not None
    assert event.error.partial.text == "word"


async def test_there_is_no_limit_of_its_own() -> None:
    bus = MessageBus.isolated(BusSettings(command_timeout=0.01))
    slow = ScriptedProvider(["one two three"], delay=0.01)
    app = ApplicationBootstrap(quiet_config(), bus=bus, provider=slow, setup=register)
    async with app, BusSession(bus=bus) as session:
        response = await session.execute(AnswerRequest(request=HI))
    assert response.text == "one two three"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
parts = st.lists(
    st.one_of(
        st.builds(TextPart, text=texts),
        st.builds(ThinkingPart, text=texts, signature=st.none() | texts),
    ),
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(rounds=st.lists(parts, min_size=1, max_size=4))
def test_what_is_heard_makes_up_the_answer_whatever_the_rounds(
    rounds: list[list[TextPart | ThinkingPart]],
) -> None:
    call = ToolCall(id="1", name="weather")
    script = [ChatMessage.assistant(*each, call) for each in rounds[:-1]]

    async def run() -> None:
        bus = MessageBus.isolated()
        on = stage(bus, *script, ChatMessage.assistant(*rounds[-1]))
        async with on.app:
            response = await on.answer()
        on.provider.assert_finished()
        assert fold(on.heard) == response
        said = [message for each in rounds if (message := _text(each))]
        assert response.text == "\n\n".join(said)
        thoughts = [each for each in response.message.parts if isinstance(each, ThinkingPart)]
        assert thoughts == [x for each in rounds for x in each if isinstance(x, ThinkingPart)]

    asyncio.run(run())


def _text(parts: list[TextPart | ThinkingPart]) -> str:
    return "".join(each.text for each in parts if isinstance(each, TextPart))


async def test_what_nobody_hears_is_the_same_answer_and_comes_whole(bus: MessageBus) -> None:
    pieces: list[LLMChunkEvent] = []
    bus.register_event_handler(LLMChunkEvent, pieces.append)
    script = (calling("weather"), ChatMessage.assistant(ThinkingPart(text="Hm."), "It's sunny."))
    heard = stage(bus, *script)
    async with heard.app:
        answer = await heard.answer()
    await bus.join()
    assert pieces
    pieces.clear()
    silent = stage(bus, *script)
    async with silent.app, BusSession("s", bus=bus) as session:
        whole = await session.execute(AnswerRequest(request=HI))
    await bus.join()
    assert not pieces
    assert whole.message.text == answer.message.text == "Let me see.\n\nIt's sunny."
    assert whole.message.parts == answer.message.parts
    assert (whole.usage, whole.finish_reason) == (answer.usage, answer.finish_reason)

"""What an agent of any framework owes the application whose command it answers, as tests."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable

import pytest
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ChatMessage,
    Command,
    CommandResultEvent,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunk,
    LLMChunkEvent,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamStart,
    TextDelta,
    ThinkingPart,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    fold_stream,
)
from llmgine.errors import (
    BudgetExceededError,
    CallCancelledError,
    CommandTimeoutError,
    RateLimitError,
    ToolError,
)
from llmgine.providers import ScriptedProvider
from llmgine.testing.fixtures import StartApp, quiet_config
from llmgine.testing.recording import RecordingHandler
from llmgine.tools import ToolManager

__all__ = ["AgentSuite"]

QUESTION = "How many are in stock in Oslo and in Rome?"
ANSWER = "There are 20 in Oslo and none in Rome."
LIMIT = 1.5
"""Seconds; long enough for a slow computer to begin, short enough to be waited for."""


def called(name: str, **arguments: dict[str, str]) -> ChatMessage:
    """Return a model's message that calls a tool once for each id, after some signed reasoning."""
    calls = [
        ToolCall(id=call_id, name=name, arguments=json.dumps(given))
        for call_id, given in arguments.items()
    ]
    return ChatMessage.assistant(ThinkingPart(text="Let me look.", signature="sealed"), *calls)


STOCK = called("stock", one={"city": "Oslo"}, two={"city": "Rome"})


class Endless:
    """A provider that begins to answer and never ends; it notes when its stream is closed."""

    name = "endless"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.closed = False

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold_stream(self.stream(request))

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        try:
            yield StreamStart()
            yield TextDelta(text="Well, ")
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            self.closed = True


def build(config: ApplicationConfig) -> LLMProvider:
    """Make the provider that `provider.name = "suite:build"` names: one that is busy at first."""
    return ScriptedProvider([RateLimitError("slow down", retry_after=0.0), ANSWER])


class AgentSuite(ABC):
    """Subclass it and say how the agent is registered, and with which command it is asked."""

    @abstractmethod
    def register(self, app: ApplicationBootstrap) -> None:
        """Register the agent's command handler."""

    @abstractmethod
    def ask(self, question: str) -> Command[str]:
        """Return the command."""

    @pytest.fixture(autouse=True)
    def use_parts(self, bus: MessageBus, start_app: StartApp) -> None:
        self.bus, self.start_app, self.seen = bus, start_app, RecordingHandler()
        self.chunks: list[LLMChunkEvent] = []
        self.counting, self.counting_ended = asyncio.Event(), False

    async def start(
        self, provider: LLMProvider | None, /, *, needs_approval: bool = False, **settings: object
    ) -> None:
        """Start an application with the agent and two tools: one answers, one never ends."""
        self.tools = ToolManager(publisher=self.bus)
        self.tools.register_tool(self.stock, needs_approval=needs_approval)
        self.tools.register_tool(self.count)
        self.bus.register_event_handler(LLMChunkEvent, self.chunks.append, inline=True)
        await self.start_app(
            quiet_config(**settings),
            provider=provider,
            tools=self.tools,
            handlers=[self.seen],
            setup=self.register,
        )

    async def stock(self, city: str) -> int:
        """Tell how many are in stock."""
        if city == "Atlantis":
            raise ToolError("There is no Atlantis.")
        return 20 if city == "Oslo" else 0

    async def count(self) -> None:
        """Count all that is in stock."""
        self.counting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.counting_ended = True

    async def asked(self, question: str = QUESTION, timeout: float | None = None) -> str:
        """Ask the agent in a session of its own, named like the question."""
        async with self.bus.session(question) as session:
            return await session.execute(self.ask(question), timeout=timeout)

    async def cancelled(self, begun: Awaitable[object]) -> None:
        """Ask, and cancel as soon as something has begun."""
        asking = asyncio.create_task(self.asked())
        await begun
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    async def test_it_answers_with_the_tools_of_the_application(self) -> None:
        provider = ScriptedProvider([STOCK, ANSWER])
        await self.start(provider)
        assert await self.asked() == ANSWER
        provider.assert_finished()
        first, second = provider.requests
        offered = [each["function"]["name"] for each in first.tools]
        assert offered == ["stock", "count"]
        assert first.tools[0]["function"]["parameters"]["required"] == ["city"]
        assert first.messages[-1] == ChatMessage.user(QUESTION)
        results = [each for message in second.messages for each in message.tool_results]
        assert {each.tool_call_id: each.text for each in results} == {"one": "20", "two": "0"}

    async def test_an_answer_goes_back_to_the_model_as_it_came(self) -> None:
        provider = ScriptedProvider([STOCK, ANSWER])
        await self.start(provider)
        await self.asked()
        assert STOCK in provider.requests[1].messages, "reasoning and its signature included"

    async def test_every_call_is_seen_below_the_command(self) -> None:
        await self.start(ScriptedProvider([STOCK, ANSWER]))
        await self.asked()
        command = self.seen.of(CommandResultEvent)[0].command
        for kind in (
            LLMCallStartedEvent,
            LLMCallResultEvent,
            ToolExecuteStartedEvent,
            ToolExecuteResultEvent,
        ):
            events = self.seen.of(kind)
            assert len(events) == 2, kind
            assert {each.parent_id for each in events} == {command.id}
            assert {each.session_id for each in events} == {QUESTION}

    async def test_its_stream_is_told_as_chunks(self) -> None:
        await self.start(ScriptedProvider([ANSWER]))
        await self.asked()
        pieces = [each.chunk.text for each in self.chunks if isinstance(each.chunk, TextDelta)]
        assert len(pieces) > 1
        assert "".join(pieces) == ANSWER
        assert {each.session_id for each in self.chunks} == {QUESTION}

    async def test_a_tools_refusal_reaches_the_model(self) -> None:
        provider = ScriptedProvider([called("stock", one={"city": "Atlantis"}), "There is none."])
        await self.start(provider)
        assert await self.asked() == "There is none."
        [result] = provider.requests[1].messages[-1].tool_results
        assert "There is no Atlantis." in result.text

    async def test_a_providers_error_reaches_the_caller(self) -> None:
        await self.start(ScriptedProvider([RateLimitError("slow down", retry_after=7.0)]))
        with pytest.raises(RateLimitError) as caught:
            await self.asked()
        assert caught.value.retry_after == 7.0
        assert self.seen.of(LLMCallResultEvent)[0].error is caught.value

    async def test_a_busy_provider_is_asked_again(self) -> None:
        await self.start(None, provider={"name": "suite:build"}, retry={"enabled": "always"})
        assert await self.asked() == ANSWER
        first, second = self.seen.of(LLMCallResultEvent)
        assert isinstance(first.error, RateLimitError)
        assert second.error is None

    async def test_a_spent_budget_ends_the_run(self) -> None:
        await self.start(ScriptedProvider([STOCK, ANSWER]), budget={"session_tokens": 1})
        with pytest.raises(BudgetExceededError):
            await self.asked()
        assert len(self.seen.of(ToolExecuteResultEvent)) == 2, "the first call was within it"

    async def test_cancelling_the_caller_closes_the_models_stream(self) -> None:
        provider = Endless()
        await self.start(provider)
        await self.cancelled(provider.begun.wait())
        assert provider.closed
        assert self.seen.of(CommandResultEvent)[0].result.status == "cancelled"
        error = self.seen.of(LLMCallResultEvent)[0].error
        assert isinstance(error, CallCancelledError)
        assert error.partial is not None

    async def test_cancelling_the_caller_ends_a_tool(self) -> None:
        await self.start(ScriptedProvider([called("count", one={})]))
        await self.cancelled(self.counting.wait())
        assert self.counting_ended
        assert self.seen.of(ToolExecuteResultEvent)[0].result.error_code == "cancelled"
        assert len(self.seen.of(LLMCallStartedEvent)) == 1, "the model isn't asked again"

    async def test_the_limit_of_the_command_ends_the_run(self) -> None:
        provider = Endless()
        await self.start(provider)
        with pytest.raises(CommandTimeoutError):
            await self.asked(timeout=LIMIT)
        assert provider.begun.is_set()
        assert provider.closed
        assert self.seen.of(CommandResultEvent)[0].result.status == "error"
        assert len(self.seen.of(LLMCallResultEvent)) == 1

    async def test_waiting_for_a_person_counts_towards_no_limit(self) -> None:
        async def agree(asked: ToolApprovalRequestedEvent) -> None:
            await asyncio.sleep(LIMIT + 0.5)
            assert self.tools.approve(asked.call.id)

        self.bus.register_event_handler(ToolApprovalRequestedEvent, agree)
        one_call = called("stock", one={"city": "Oslo"})
        await self.start(ScriptedProvider([one_call, ANSWER]), needs_approval=True)
        assert await self.asked(timeout=LIMIT) == ANSWER
        assert self.seen.of(ToolExecuteResultEvent)[0].result.text == "20"

    async def test_sessions_at_once_are_kept_apart(self) -> None:
        def reply(request: LLMRequest) -> str | ChatMessage:
            return f"About {question(request)}" if request.messages[-1].tool_results else STOCK

        def question(request: LLMRequest) -> str:
            return next(each.text for each in request.messages if each.role == "user")

        questions = [f"question {number}" for number in range(5)]
        await self.start(ScriptedProvider([reply] * 10))
        answers = await asyncio.gather(*map(self.asked, questions))
        assert answers == [f"About {each}" for each in questions]
        for event in self.seen.of(LLMCallStartedEvent):
            assert event.session_id == question(event.request)
        assert len(self.seen.of(ToolExecuteResultEvent)) == 10

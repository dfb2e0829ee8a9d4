"""One turn from the user's message to the answer: context, model, tools, and back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from llmgine.contracts import (
    ChatMessage,
    Command,
    ContextStore,
    FinishReason,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ToolCall,
    ToolExecutor,
    ToolResult,
    Usage,
)
from llmgine.contracts.history import INTERRUPTED, repaired
from llmgine.contracts.llm import ToolChoice
from llmgine.contracts.protocols import capabilities_of
from llmgine.contracts.stream import ResponseBuilder, closing
from llmgine.errors import LlmgineError, StreamInterruptedError
from llmgine.tools import ToolManager

__all__ = ["MAX_ROUNDS", "EmptyTurnError", "RunTurn", "Turn", "TurnParts", "TurnResult"]


class EmptyTurnError(LlmgineError, ValueError):
    """Raised by `RunTurn` when there is nothing but white space to answer."""


@dataclass(frozen=True, kw_only=True)
class TurnResult:
    """How a turn went.

    Attributes:
        text: the answer's text.
        finish_reason: why the last answer ended; `length` means that it was cut off.
        usage: the tokens of all the turn's model calls.
        tool_results: what came of the tools that the model called, in order.
    """

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    tool_results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunTurn(Command[TurnResult]):
    """Answer a user's message in the session that the command belongs to.

    The answer's pieces are published as `LLMChunkEvent`s while it comes, and the conversation is
    kept in the application's context store. A turn has no time limit; cancel it to end it early.
    Turns of one session run one after the other, in the order in which they were asked for.

    What the history keeps:

    - a finished turn: the user's message, each answer, each tool result;
    - one that was cut off, or killed, while tools ran: the calls, whose missing results later
      requests stand in for;
    - one that was cancelled, or broke off, in the midst of an answer: the text that had come;
    - one that ended before the model had said anything: nothing, as if it had not been asked for.

    Raises:
        EmptyTurnError: the text is blank.
        SessionClosedError: the command belongs to no session.
        WouldDeadlockError: asked for from inside a turn of the same session.
        ProviderError: the model call failed; `retryable` says whether another may succeed.
        BudgetExceededError: what may be spent is spent; the turn keeps what it had come to.

    Attributes:
        text: the user's message.
    """

    text: str


MAX_ROUNDS = 8
"""How often a model may call tools in one turn before it has to answer."""

_GRACE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnParts:
    """The parts of an application that a turn works with."""

    provider: LLMProvider
    context: ContextStore
    tools: ToolExecutor
    model: str = ""
    system_prompt: str = ""


class Turn:
    """The state of one running turn.

    What is said goes to `_unsaved` first, and to the context store with the model's next words.
    Tool calls are stored before they run: whatever ends the program then, the next turn knows
    that they may have taken effect.
    """

    def __init__(self, parts: TurnParts, session_id: str, text: str) -> None:
        self._parts = parts
        tools = parts.tools
        self._tools = tools.for_session(session_id) if isinstance(tools, ToolManager) else tools
        self._session_id = session_id
        self._history: list[ChatMessage] = []
        self._unsaved: list[ChatMessage] = [ChatMessage.user(text)]
        self._usage = Usage()
        self._results: list[ToolResult] = []

    async def run(self) -> TurnResult:
        """Ask the model, run the tools that it calls, and ask again until it has answered."""
        self._history = await self._parts.context.get_context(self._session_id)
        for _ in range(MAX_ROUNDS):
            response = await self._ask()
            if not response.tool_calls:
                return await self._finish(response)
            await self._call_tools(response)
        response = await self._ask(tool_choice="none")
        if response.tool_calls:
            # It was told not to. Calls must not stand in the history without results.
            refused = [_failed(call, "No more tools in this turn.") for call in response.tool_calls]
            await self._save(response.message, ChatMessage.tool(*refused))
            return self._result(response)
        return await self._finish(response)

    async def _ask(self, *, tool_choice: ToolChoice | None = None) -> LLMResponse:
        parts = self._parts
        able = capabilities_of(parts.provider).tools
        tools = tuple(self._tools.get_tools()) if able else ()
        request = LLMRequest(
            messages=(*self._system(), *repaired([*self._history, *self._unsaved])),
            model=parts.model,
            tools=tools,
            tool_choice=tool_choice if tools else None,
        )
        builder = ResponseBuilder()
        try:
            async with closing(parts.provider.stream(request)) as chunks:
                async for chunk in chunks:
                    builder.add(chunk)
        finally:
            if not builder.finished:
                await self._keep(builder.response().text)
        if not builder.finished:
            text = "the stream ended before the answer was complete"
            raise StreamInterruptedError(text, provider=parts.provider.name)
        response = builder.response()
        self._usage += response.usage
        return response

    def _system(self) -> tuple[ChatMessage, ...]:
        prompt = self._parts.system_prompt
        return (ChatMessage.system(prompt),) if prompt else ()

    async def _call_tools(self, response: LLMResponse) -> None:
        """Run the calls at once, and keep what comes of them, also if the turn is cut off."""
        calls = response.tool_calls
        await self._save(response.message)
        tasks = [asyncio.create_task(self._tools.execute_tool_call(call)) for call in calls]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GRACE)
            raise
        finally:
            pairs = zip(calls, tasks, strict=True)
            results = [_outcome(call, task) for call, task in pairs]
            self._results += results
            await asyncio.shield(self._save(ChatMessage.tool(*results)))
        for task in tasks:
            task.result()  # an executor never raises; one that does is heard of

    async def _finish(self, response: LLMResponse) -> TurnResult:
        if response.message.parts:
            await self._save(response.message)
        return self._result(response)

    def _result(self, response: LLMResponse) -> TurnResult:
        return TurnResult(
            text=response.text,
            finish_reason=response.finish_reason,
            usage=self._usage,
            tool_results=tuple(self._results),
        )

    async def _keep(self, text: str) -> None:
        """Keep what had come of an answer; calls and reasoning are no use without their end."""
        if text.strip():
            await asyncio.shield(self._save(ChatMessage.assistant(text)))

    async def _save(self, *messages: ChatMessage) -> None:
        fresh = [*self._unsaved, *messages]
        self._unsaved = []
        self._history += fresh
        await self._parts.context.add_messages(self._session_id, fresh)


def _failed(call: ToolCall, text: str, code: str = "refused") -> ToolResult:
    return ToolResult(
        tool_call_id=call.id, name=call.name, content=text, is_error=True, error_code=code
    )


def _outcome(call: ToolCall, task: asyncio.Task[ToolResult]) -> ToolResult:
    if not task.done() or task.cancelled():
        return _failed(call, "The call was interrupted before it had a result.", INTERRUPTED)
    if task.exception() is not None:
        return _failed(call, "The tool failed.", "failed")
    return task.result()

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
    ToolExecutor,
    ToolResult,
    Usage,
)
from llmgine.contracts.history import repaired
from llmgine.errors import LlmgineError
from llmgine.tools import ToolManager

from assistant.rounds import Rounds

__all__ = ["EmptyTurnError", "RunTurn", "Turn", "TurnParts", "TurnResult"]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnParts:
    """The parts of an application that a turn works with."""

    provider: LLMProvider
    context: ContextStore
    tools: ToolExecutor
    model: str = ""
    system_prompt: str = ""


class Turn(Rounds):
    """The state of one running turn.

    What is said goes to `_unsaved` first, and to the context store with the model's next words.
    Tool calls are stored before they run: whatever ends the program then, the next turn knows
    that they may have taken effect.
    """

    def __init__(self, parts: TurnParts, session_id: str, text: str) -> None:
        tools = parts.tools
        own = tools.for_session(session_id) if isinstance(tools, ToolManager) else tools
        super().__init__(parts.provider, own)
        self._parts = parts
        self._session_id = session_id
        self._history: list[ChatMessage] = []
        self._unsaved: list[ChatMessage] = [ChatMessage.user(text)]

    async def run(self) -> TurnResult:
        """Ask the model, run the tools that it calls, and ask again until it has answered."""
        self._history = await self._parts.context.get_context(self._session_id)
        response = await self._answer()
        return TurnResult(
            text=response.text,
            finish_reason=response.finish_reason,
            usage=self._usage,
            tool_results=tuple(self._results),
        )

    def _request(self) -> LLMRequest:
        prompt = self._parts.system_prompt
        system = (ChatMessage.system(prompt),) if prompt else ()
        return LLMRequest(
            messages=(*system, *repaired([*self._history, *self._unsaved])),
            model=self._parts.model,
        )

    async def _keep(self, text: str) -> None:
        # Calls and reasoning are no use without their end.
        if text.strip():
            await asyncio.shield(self._save(ChatMessage.assistant(text)))

    async def _save(self, *messages: ChatMessage) -> None:
        fresh = [*self._unsaved, *messages]
        self._unsaved = []
        self._history += fresh
        await self._parts.context.add_messages(self._session_id, fresh)

"""What is said about a turn: the command that asks for one, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmgine.contracts import Command, FinishReason, ToolResult, Usage
from llmgine.errors import LlmgineError

__all__ = ["EmptyTurnError", "RunTurn", "TurnResult"]


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

    Attributes:
        text: the user's message.
    """

    text: str

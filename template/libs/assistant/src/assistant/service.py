"""The handlers of `RunTurn` and `AnswerRequest`, with the parts of the application they need."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import (
    ChatMessage,
    ContextStore,
    LLMProvider,
    LLMResponse,
    ResolvesApprovals,
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolExecutor,
)
from llmgine.errors import SessionClosedError, WouldDeadlockError

from assistant.answer import Answer, AnswerRequest
from assistant.run import EmptyTurnError, RunTurn, Turn, TurnParts, TurnResult

__all__ = ["Assistant", "register"]

_NOBODY = "it needs a person's approval, and nobody can be asked here"


@dataclass(slots=True)
class _Inside:
    """A turn that the code below it, tools for instance, runs inside of."""

    session_id: str
    active: bool = True


@dataclass(slots=True)
class _Unattended:
    """An answer that the code below it is made for, while nobody can be asked."""

    active: bool = True


# Handlers of queued events get copies of these, which may outlive the work: hence `active`.
_inside: ContextVar[tuple[_Inside, ...]] = ContextVar("assistant_inside", default=())
_unattended: ContextVar[_Unattended | None] = ContextVar("assistant_unattended", default=None)


def register(app: ApplicationBootstrap) -> None:
    """Answer both commands on the application's bus; give this to bootstrap as `setup`."""
    assistant = Assistant(
        app.provider,
        app.context,
        app.tools,
        model=app.config.provider.model,
        system_prompt=app.config.provider.system_prompt,
    )
    app.bus.register_command_handler(RunTurn, assistant.run, timeout=math.inf)
    app.bus.register_command_handler(AnswerRequest, assistant.answer, timeout=math.inf)
    app.bus.register_event_handler(ToolApprovalRequestedEvent, assistant.refuse, inline=True)


class Assistant:
    """Runs conversation turns, and answers requests that belong to no conversation.

    Args:
        provider: who answers.
        context: who keeps the conversations.
        tools: who runs the tools that the model calls.
        model: the model to ask; empty means the provider's own default.
        system_prompt: what every conversation starts with; empty means nothing.
    """

    def __init__(
        self,
        provider: LLMProvider,
        context: ContextStore,
        tools: ToolExecutor,
        *,
        model: str = "",
        system_prompt: str = "",
    ) -> None:
        self._parts = TurnParts(
            provider=provider,
            context=context,
            tools=tools,
            model=model,
            system_prompt=system_prompt,
        )
        # A lock lives as long as somebody holds or awaits it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, command: RunTurn) -> TurnResult:
        """Answer the user's message; see `RunTurn` for what is promised."""
        session_id = command.session_id
        if session_id is None:
            raise SessionClosedError("a turn belongs to a session: execute it through a BusSession")
        if not command.text.strip():
            raise EmptyTurnError("there is nothing to answer: the text is blank")
        async with self._alone(session_id):
            turn = Turn(self._parts, session_id, command.text)
            return await turn.run()

    async def answer(self, command: AnswerRequest) -> LLMResponse:
        """Answer a request; see `AnswerRequest` for what is promised."""
        parts, request = self._parts, command.request
        if parts.system_prompt and all(each.role != "system" for each in request.messages):
            prompt = ChatMessage.system(parts.system_prompt)
            request = replace(request, messages=(prompt, *request.messages))
        request = replace(request, model=request.model or parts.model)
        asked = replace(command, request=request)
        tools = parts.tools if command.run_tools and not request.tools else None
        alone = _Unattended()
        token = _unattended.set(alone)
        try:
            return await Answer(parts.provider, tools, asked).run()
        finally:
            alone.active = False
            _unattended.reset(token)

    def refuse(self, event: ToolApprovalRequestedEvent) -> None:
        """Refuse a tool call that needs approval, where nobody can be asked."""
        tools, alone = self._parts.tools, _unattended.get()
        if alone is not None and alone.active and isinstance(tools, ResolvesApprovals):
            tools.resolve_approval(
                ResolveToolApproval(
                    session_id=event.session_id,
                    call_id=event.call.id,
                    approved=False,
                    reason=_NOBODY,
                )
            )

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncGenerator[None, None]:
        """Wait until no other turn of the session runs, and keep others waiting."""
        if any(each.session_id == session_id and each.active for each in _inside.get()):
            text = f"a turn of session {session_id!r} can't wait for another turn of it"
            raise WouldDeadlockError(text)
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            inside = _Inside(session_id)
            token = _inside.set((*_inside.get(), inside))
            try:
                yield
            finally:
                inside.active = False
                _inside.reset(token)

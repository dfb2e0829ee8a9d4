"""Asking a model until it has answered, and running the tools that it calls meanwhile."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from llmgine.contracts import (
    ChatMessage,
    FinishReason,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ToolCall,
    ToolExecutor,
    ToolResult,
    Usage,
)
from llmgine.contracts.history import INTERRUPTED
from llmgine.contracts.llm import ToolChoice
from llmgine.contracts.protocols import capabilities_of
from llmgine.contracts.stream import ResponseBuilder, closing
from llmgine.errors import StreamInterruptedError

__all__ = ["MAX_ROUNDS", "Hear", "HearTools", "Rounds"]

MAX_ROUNDS = 8
"""How often a model may call tools before it has to answer."""

CUT_OFF: frozenset[FinishReason] = frozenset({"content_filter", "error", "length", "refusal"})
"""How an answer ends that isn't whole."""

_GRACE = 0.5

Hear: TypeAlias = Callable[[LLMChunk], Awaitable[None]]
"""Takes a piece of an answer; the next one comes when it is done with this one."""

HearTools: TypeAlias = Callable[[ChatMessage], Awaitable[None]]
"""Takes a message with tool calls, which are run then, or the one with their results."""


class Rounds(ABC):
    """Asks the model, runs the tools that it calls, and asks again until it has answered.

    Subclasses say what the model is asked, and keep what is said.

    Args:
        provider: who answers.
        tools: who runs the tools; `None` where the model's calls are the answer.
        hear: who takes the pieces of all answers, as they come.
    """

    def __init__(
        self, provider: LLMProvider, tools: ToolExecutor | None, hear: Hear | None = None
    ) -> None:
        self._provider = provider
        self._tools = tools
        self._hear = hear
        self._usage = Usage()
        self._results: list[ToolResult] = []

    @abstractmethod
    def _request(self) -> LLMRequest:
        """Return what the model is asked next; the tools are seen to here."""

    @abstractmethod
    async def _save(self, *messages: ChatMessage) -> None:
        """Take what was said, in order."""

    @abstractmethod
    async def _keep(self, text: str) -> None:
        """Take what had come of an answer's text when it was cut off; it may be nothing."""

    async def _answer(self) -> LLMResponse:
        """Return the model's last answer, which calls no tools that are run here."""
        for _ in range(MAX_ROUNDS):
            response = await self._ask()
            if self._tools is None or not response.tool_calls:
                if response.message.parts:
                    await self._save(response.message)
                return response
            if response.finish_reason in CUT_OFF:
                # What stands there as a call need not be what the model was about to ask for.
                return await self._end(response, "The answer was cut off: the call wasn't run.")
            await self._call(self._tools, response)
        response = await self._ask(tool_choice="none")
        # Where it calls tools nevertheless: it was told not to.
        return await self._end(response, "No more tools in this turn.")

    async def _end(self, response: LLMResponse, why_no_calls: str) -> LLMResponse:
        said = [response.message] if response.message.parts else []
        if response.tool_calls:
            # Calls must not stand in the history without results.
            refused = [_failed(call, why_no_calls) for call in response.tool_calls]
            said.append(ChatMessage.tool(*refused))
        await self._save(*said)
        return response

    async def _ask(self, *, tool_choice: ToolChoice | None = None) -> LLMResponse:
        request = self._request()
        if self._tools is not None and capabilities_of(self._provider).tools:
            tools = tuple(self._tools.get_tools())
            request = replace(request, tools=tools, tool_choice=tool_choice if tools else None)
        response = await self._asked_for(request)
        self._usage += response.usage
        return response

    async def _asked_for(self, request: LLMRequest) -> LLMResponse:
        """Ask the model once, and let its answer be heard as it comes."""
        builder = ResponseBuilder()
        try:
            async with closing(self._provider.stream(request)) as chunks:
                async for chunk in chunks:
                    builder.add(chunk)
                    if self._hear is not None:
                        await self._hear(chunk)
        finally:
            if not builder.finished:
                await self._keep(builder.response().text)
        if not builder.finished:
            text = "the stream ended before the answer was complete"
            raise StreamInterruptedError(text, provider=self._provider.name)
        return builder.response()

    async def _call(self, tools: ToolExecutor, response: LLMResponse) -> None:
        """Run the calls at once, and keep what comes of them, also if the work is cut off."""
        calls = response.tool_calls
        await self._save(response.message)
        tasks = [asyncio.create_task(tools.execute_tool_call(call)) for call in calls]
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

"""The tool manager: registers tools, describes them, and runs what a model calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from time import perf_counter
from types import TracebackType
from typing import Self, TypeVar

from llmgine.contracts import (
    Publisher,
    ResolveToolApproval,
    ToolCall,
    ToolDefinition,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
    current_session_id,
    tell,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.protocols import tell_surely
from llmgine.errors import ToolError, ToolRegistrationError
from llmgine.settings import ToolSettings
from llmgine.tools.approvals import Answer, Approvals
from llmgine.tools.results import failure, success
from llmgine.tools.running import Failed, Runner
from llmgine.tools.tool import NeedsApproval, Shared, Tool, given, handed_out, made, shared

__all__ = ["ToolManager", "build"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])

_CANCELLED = ToolError("The call was cancelled before it had a result.", code="cancelled")

_log = logging.getLogger(__name__)


class ToolManager:
    """Registers functions as tools and runs them when a model calls them.

    Whatever a model sends, the outcome is a result: one that says what was wrong is an error
    result with an `error_code`. Each call has one `ToolExecuteStartedEvent` and exactly one
    `ToolExecuteResultEvent`, also if the caller is cancelled.

    `async def` tools run on the loop, `def` tools in threads of their own. A thread can't be
    stopped: one past its limit goes on unheard.

    Args:
        session_id: the session that calls belong to; by default the one they are made in.
        publisher: who is told of calls.
        settings: the limits.
    """

    def __init__(
        self,
        session_id: str | None = None,
        *,
        publisher: Publisher | None = None,
        settings: ToolSettings | None = None,
    ) -> None:
        self.session_id = session_id
        self._publisher = publisher
        self._settings = settings or ToolSettings()
        self._tools: dict[str, Tool] = {}
        self._definitions: dict[bool, list[Shared]] = {}
        self._runner = Runner(self._settings)
        self._approvals = Approvals(self._settings.approval_timeout)

    @property
    def abandoned(self) -> int:
        """Calls that were given up on, of any session, and still run."""
        return self._runner.abandoned

    def for_session(self, session_id: str) -> ToolManager:
        """Return a manager of the same tools, whose calls belong to a session."""
        manager = copy(self)
        manager.session_id = session_id
        return manager

    def register_tool(
        self,
        func: FunctionT,
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: NeedsApproval = False,
        timeout: float | None = None,
    ) -> FunctionT:
        """Offer a function to models; return it, so that this also works as a decorator.

        Args:
            func: a plain or `async def` function, a method, a partial or a callable object, with
                annotated parameters.
            name: its name for models; by default the function's own.
            description: what it does; by default what its docstring says.
            needs_approval: whether a person has to agree to a call, or a function that tells.
            timeout: its limit in seconds; by default that of the settings, `math.inf` is none.

        Raises:
            ToolRegistrationError: the function can't be described, or the name is taken.
        """
        tool = made(
            func,
            name=name,
            description=description,
            needs_approval=needs_approval,
            timeout=timeout,
        )
        self._add(tool)
        return func

    def register_described_tool(
        self,
        func: Callable[[dict[str, JsonValue]], object],
        *,
        name: str,
        description: str,
        parameters: Mapping[str, object],
        needs_approval: NeedsApproval = False,
        timeout: float | None = None,
    ) -> None:
        """Offer a tool of another system, which has a JSON Schema already and checks by it.

        Args:
            func: takes the arguments as one dict: whatever JSON object the model sent.
            name: its name for models.
            description: what it does.
            parameters: the JSON Schema of an object, shown to models as it is.
            needs_approval: whether a person has to agree to a call, or a function that tells.
            timeout: its limit in seconds; by default that of the settings, `math.inf` is none.

        Raises:
            ToolRegistrationError: name or schema can't be used, or the name is taken.
        """
        tool = given(
            func,
            name=name,
            description=description,
            parameters=parameters,
            needs_approval=needs_approval,
            timeout=timeout,
        )
        self._add(tool)

    def unregister_tool(self, name: str) -> None:
        """Offer a tool no more; calls under way go on. A name that isn't registered is fine."""
        self._tools.pop(name, None)
        self._definitions.clear()

    def _add(self, tool: Tool) -> None:
        if tool.name in self._tools:
            raise ToolRegistrationError(
                f"tool {tool.name!r} is registered already; give `name=` another one"
            )
        self._tools[tool.name] = tool
        self._definitions.clear()

    def get_tools(self, *, strict: bool = False) -> list[ToolDefinition]:
        """Return the tools' definitions, as the caller's own copies.

        Args:
            strict: ask the provider to guarantee the fit of arguments, for each tool that allows
                it: one with parameters of any shape has `"strict": False`.
        """
        if strict not in self._definitions:
            self._definitions[strict] = [
                shared(tool.definition(strict=strict)) for tool in self._tools.values()
            ]
        return handed_out(self._definitions[strict])

    async def execute_tool_call(self, call: ToolCall) -> ToolResult:
        """Run one call and return its result, an error result where anything went wrong."""
        session_id = self._session()
        if self._publisher is None:
            return await self._result(call, session_id)
        started = perf_counter()
        result = failure(call, _CANCELLED, self._settings.max_result_bytes)
        try:
            await tell(self._publisher, ToolExecuteStartedEvent(session_id=session_id, call=call))
            result = await self._result(call, session_id)
        finally:
            event = ToolExecuteResultEvent(
                session_id=session_id, call=call, result=result, duration=perf_counter() - started
            )
            await tell_surely(self._publisher, event)
        return result

    async def execute_tool_calls(self, calls: Iterable[ToolCall]) -> list[ToolResult]:
        """Run calls at once; return their results in the order of the calls."""
        return await asyncio.gather(*(self.execute_tool_call(call) for call in calls))

    def approve(self, call_id: str) -> bool:
        """Let a waiting call run; return whether such a call was waiting. From any thread."""
        return self._approvals.resolve(self._session(), call_id, Answer(approved=True))

    def deny(self, call_id: str, reason: str = "") -> bool:
        """Refuse a waiting call; return whether such a call was waiting. From any thread.

        The model is told the reason.
        """
        answer = Answer(approved=False, reason=reason)
        return self._approvals.resolve(self._session(), call_id, answer)

    def resolve_approval(self, command: ResolveToolApproval) -> bool:
        """Handle the command by which a bus answers a waiting call of any session."""
        answer = Answer(approved=command.approved, reason=command.reason)
        return self._approvals.resolve(command.session_id, command.call_id, answer)

    async def __aenter__(self) -> Self:
        """Do nothing: threads start when they are needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the threads end."""
        self._runner.close()

    def _session(self) -> str | None:
        return current_session_id() if self.session_id is None else self.session_id

    async def _result(self, call: ToolCall, session_id: str | None) -> ToolResult:
        limit = self._settings.max_result_bytes
        try:
            tool = self._found(call.name)
            function = tool.bound(call, session_id, self._settings)
            if tool.needs_approval and tool.must_ask(call):
                await self._approvals.ask(call, session_id, self._publisher)
            value = await self._runner.run(
                function, session_id, tool.timeout, threaded=tool.threaded
            )
            if isinstance(value, Failed):
                return failure(call, _told(value.error, call), limit)
            return success(call, value, limit)
        except Exception as error:
            return failure(call, _told(error, call), limit)

    def _found(self, name: str) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            text = f"There is no tool {name[:64]!r}. The tools are: {names}."
            raise ToolError(text, code="unknown_tool")
        return tool


def _told(error: BaseException, call: ToolCall) -> ToolError:
    """Return what the model is told of an error; the log is told all."""
    if isinstance(error, ToolError):
        return error
    _log.error("tool %r failed (call %r)", call.name, call.id, exc_info=error)
    text = f"The tool failed ({type(error).__name__}); the details are in the application's log."
    return ToolError(text, code="failed")


def build(settings: ToolSettings, *, publisher: Publisher | None = None) -> ToolManager:
    """Make the executor that `tools.executor = "manager"` names."""
    return ToolManager(publisher=publisher, settings=settings)

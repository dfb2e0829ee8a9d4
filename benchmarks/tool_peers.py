"""Other libraries that offer functions to a model, each by its own documented calls.

A call starts from the JSON text that a model sends and ends with the text that it gets back; where
a library takes a dictionary, reading the text is counted with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal

from measuring import Subject, Tally
from pydantic import Field

__all__ = [
    "ARGUMENTS",
    "MANY",
    "PEERS",
    "bare",
    "called",
    "calling",
    "described",
    "forecast",
    "forecast_here",
    "listed",
    "written",
]

ARGUMENTS = '{"city": "Lisbon", "days": 5, "units": "celsius", "hours": [6, 12, 18]}'
MANY = 20
"""How many tools are listed."""

_ANSWER = "Lisbon, 5 days, celsius, [6, 12, 18]"
_NAMES = {"city", "days", "units", "hours"}

Call = Callable[[], Awaitable[object]]


def forecast() -> Callable[..., Awaitable[str]]:
    """Return the tool that everyone is given: a new function each time, which no cache knows."""

    async def forecast(
        city: str,
        days: Annotated[int, Field(ge=1, le=14)] = 3,
        units: Literal["celsius", "fahrenheit"] = "celsius",
        hours: list[int] | None = None,
    ) -> str:
        """Tell the weather of the coming days.

        Args:
            city: where.
            days: how many days, today included.
            units: of the temperatures.
            hours: which hours of each day; all of them if left out.
        """
        return f"{city}, {days} days, {units}, {hours}"

    return forecast


def forecast_here() -> Callable[..., str]:
    """Return the same tool as a plain function, which might block."""

    def forecast(
        city: str,
        days: Annotated[int, Field(ge=1, le=14)] = 3,
        units: Literal["celsius", "fahrenheit"] = "celsius",
        hours: list[int] | None = None,
    ) -> str:
        """Tell the weather of the coming days, from a file.

        Args:
            city: where.
            days: how many days, today included.
            units: of the temperatures.
            hours: which hours of each day; all of them if left out.
        """
        return ", ".join([city, f"{days} days", units, str(hours)])

    return forecast


# -- Shapes: what each library does again and again


def calling(
    row: str, name: str, call: Call, clock: Callable[[], int] = time.process_time_ns
) -> Subject:
    """Return a subject that calls a tool, and counts the right answers."""
    tally = Tally()

    async def run(operations: int) -> None:
        for _ in range(operations):
            if await call() == _ANSWER:
                tally.count += 1
        await asyncio.sleep(0)  # what calls have left to do in the loop is theirs

    return Subject(row, name, 20, run, lambda: tally.count, clock=clock)


def called(name: str, there: Call, here: Call) -> list[Subject]:
    """Return the subjects that call the asynchronous tool and the plain one."""
    return [
        calling("async", name, there),
        calling("sync", name, here),
        calling("sync_clock", name, here, time.perf_counter_ns),
    ]


def described(name: str, parameters: Callable[[], Mapping[str, Any]]) -> Subject:
    """Return a subject that describes a new tool, and counts the schemas that name all of it."""
    tally = Tally()

    async def run(operations: int) -> None:
        for _ in range(operations):
            if parameters()["properties"].keys() == _NAMES:
                tally.count += 1

    return Subject("schema", name, 1, run, lambda: tally.count)


def listed(name: str, tools: Callable[[], Awaitable[Iterable[object]]]) -> Subject:
    """Return a subject that asks for the definitions of all tools again, and counts them."""
    tally = Tally()

    async def run(operations: int) -> None:
        for _ in range(operations):
            tally.count += len([*await tools()])

    return Subject("definitions", name, 20, run, lambda: tally.count, MANY)


def written(name: str, tools: Callable[[], Sequence[object]]) -> Subject:
    """Return a subject that asks again and writes all of it as JSON, and counts the parameters."""
    tally = Tally()

    async def run(operations: int) -> None:
        for _ in range(operations):
            tally.count += json.dumps(tools()).count('"description"')

    # One description for each tool, and one for each of its parameters.
    return Subject("written", name, 5, run, lambda: tally.count, MANY * (1 + len(_NAMES)))


def bare() -> list[Subject]:
    """Return the two calls without any library, the arguments read beforehand."""
    arguments: dict[str, Any] = json.loads(ARGUMENTS)
    there, here = forecast(), forecast_here()
    return called("bare", lambda: there(**arguments), lambda: asyncio.to_thread(here, **arguments))


# -- The libraries


async def _pydantic_ai() -> list[Subject]:
    package, name = import_module("pydantic_ai"), "pydantic-ai-slim"
    manager = import_module("pydantic_ai.tool_manager").ToolManager
    part = import_module("pydantic_ai.messages").ToolCallPart
    toolset = import_module("pydantic_ai.toolsets").FunctionToolset
    context = package.RunContext(
        deps=None,
        model=import_module("pydantic_ai.models.test").TestModel(),
        usage=import_module("pydantic_ai.usage").RunUsage(),
    )

    def tool(function: Callable[..., object], number: int = 0) -> Any:  # noqa: ANN401 - untyped here
        return package.Tool(function, takes_ctx=False, name=f"forecast_{number}")

    async def call_of(function: Callable[..., object]) -> Call:
        prepared = await manager(toolset([tool(function)])).for_run_step(context)
        return lambda: prepared.handle_call(part("forecast_0", ARGUMENTS, "call"))

    many = toolset([tool(forecast(), number) for number in range(MANY)])

    async def definitions() -> list[object]:
        return [each.tool_def for each in (await many.get_tools(context)).values()]

    return [
        *called(name, await call_of(forecast()), await call_of(forecast_here())),
        described(name, lambda: tool(forecast()).tool_def.parameters_json_schema),
        listed(name, definitions),
    ]


async def _openai_agents() -> list[Subject]:
    tool, name = import_module("agents").function_tool, "openai-agents"
    context = import_module("agents.tool_context").ToolContext

    def call_of(function: Callable[..., object]) -> Call:
        made = tool(function)

        def call() -> Awaitable[object]:
            one = context(None, tool_name="forecast", tool_call_id="call", tool_arguments=ARGUMENTS)
            return made.on_invoke_tool(one, ARGUMENTS)

        return call

    return [
        *called(name, call_of(forecast()), call_of(forecast_here())),
        described(name, lambda: tool(forecast()).params_json_schema),
    ]


async def _langchain() -> list[Subject]:
    tool, name = import_module("langchain_core.tools").tool, "langchain-core"
    convert = import_module("langchain_core.utils.function_calling").convert_to_openai_tool

    def call_of(function: Callable[..., object]) -> Call:
        made = tool(function, parse_docstring=True)

        async def call() -> object:
            arguments = json.loads(ARGUMENTS)
            answer = await made.ainvoke(
                {"type": "tool_call", "name": "forecast", "args": arguments, "id": "call"}
            )
            return answer.content

        return call

    many = [tool(forecast(), parse_docstring=True) for _ in range(MANY)]

    async def definitions() -> list[object]:
        return [convert(each) for each in many]

    def parameters() -> Mapping[str, Any]:
        return convert(tool(forecast(), parse_docstring=True))["function"]["parameters"]

    return [
        *called(name, call_of(forecast()), call_of(forecast_here())),
        described(name, parameters),
        listed(name, definitions),
    ]


async def _fastmcp() -> list[Subject]:
    make, name = import_module("fastmcp.tools").Tool.from_function, "fastmcp"

    def call_of(function: Callable[..., object]) -> Call:
        made = make(function)

        async def call() -> object:
            return (await made.run(json.loads(ARGUMENTS))).content[0].text

        return call

    many = [make(forecast(), name=f"forecast_{number}") for number in range(MANY)]

    async def definitions() -> list[object]:
        return [each.to_mcp_tool() for each in many]

    return [
        *called(name, call_of(forecast()), call_of(forecast_here())),
        described(name, lambda: make(forecast()).to_mcp_tool().input_schema),
        listed(name, definitions),
    ]


PEERS: dict[str, Callable[[], Awaitable[list[Subject]]]] = {
    "pydantic-ai-slim": _pydantic_ai,
    "openai-agents": _openai_agents,
    "langchain-core": _langchain,
    "fastmcp": _fastmcp,
}
"""Each library by its package's name, with what makes its subjects."""

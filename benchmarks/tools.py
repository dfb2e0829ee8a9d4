# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "fastmcp>=4.1,<5",
#   "langchain-core>=1.7,<2",
#   "llmgine",
#   "openai-agents>=0.24,<0.25",
#   "pydantic-ai-slim>=2.68,<3",
# ]
#
# [tool.uv.sources]
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What a tool costs a model's turn, beside other libraries and beside a call without any.

    uv run benchmarks/tools.py [--quick] [--rounds N] [--json FILE] [--readme]

Everyone is given the same function, of four parameters with constraints, defaults and a
docstring, and the same JSON text as arguments. All libraries share one environment and one
process; they take turns, in rounds of a few milliseconds, and the best round counts, so that a
busy machine changes the ratios little. Every answer, schema and list is checked: a wrong one is
the one thing that fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from llmgine.bus import MessageBus
from llmgine.contracts import Publisher, ToolCall
from llmgine.tools import ToolManager
from measuring import Subject, direct, take_turns, undelivered
from peers import version
from reports import Report, Row, report_on
from tool_peers import (
    ARGUMENTS,
    MANY,
    PEERS,
    bare,
    called,
    calling,
    described,
    forecast,
    forecast_here,
    listed,
    written,
)

__all__ = ["main"]

_OURS = "llmgine"
_BARE = "bare"
_DIRECT = "F"
_ROWS = (
    Row("async", "call of an async tool, from the model's JSON to text", "fastmcp", 0.6),
    Row("async_told", "... with both events published on the bus", "fastmcp"),
    Row("sync", "call of a plain tool, in a thread", _BARE, 1.3),
    Row("sync_clock", "... by the clock on the wall", _BARE, 1.3),
    Row("schema", "schema of a new tool", "pydantic-ai-slim", 1.2),
    Row("definitions", f"definitions of {MANY} tools, asked for again", _DIRECT, 11),
    Row("written", "... and written as JSON", _BARE),
)


def _call_of(manager: ToolManager, tool: Callable[..., object]) -> Callable[[], Awaitable[object]]:
    manager.register_tool(tool)

    async def call() -> object:
        result = await manager.execute_tool_call(
            ToolCall(id="call", name="forecast", arguments=ARGUMENTS)
        )
        return result.content

    return call


def _parameters() -> Mapping[str, Any]:
    manager = ToolManager()
    manager.register_tool(forecast())
    return manager.get_tools()[0]["function"]["parameters"]


async def _ours(stack: AsyncExitStack) -> list[Subject]:
    async def manager(publisher: Publisher | None = None) -> ToolManager:
        return await stack.enter_async_context(ToolManager(publisher=publisher))

    bus = await stack.enter_async_context(MessageBus.isolated())
    there, here, told, many = [await manager(each) for each in (None, None, bus, None)]
    for number in range(MANY):
        many.register_tool(forecast(), name=f"forecast_{number}")

    async def definitions() -> list[Any]:
        return many.get_tools()

    ready: list[object] = json.loads(json.dumps(many.get_tools()))

    return [
        *called(_OURS, _call_of(there, forecast()), _call_of(here, forecast_here())),
        calling("async_told", _OURS, _call_of(told, forecast())),
        described(_OURS, _parameters),
        listed(_OURS, definitions),
        written(_OURS, many.get_tools),
        written(_BARE, lambda: ready),
    ]


def _figures(subjects: list[Subject], floor: float) -> dict[tuple[str, str], float]:
    """Return the best rounds, each counted in what its row is counted in."""
    best = {(each.row, each.name): each.best for each in subjects}
    figures: dict[tuple[str, str], float] = {}
    for row in _ROWS:
        key = row.key.removesuffix("_told")
        unit = floor if row.unit == _DIRECT else best.get((key, row.unit))
        if unit is not None:
            figures |= {at: value / unit for at, value in best.items() if at[0] == row.key}
    return figures


def _notes(rounds: int, subjects: list[Subject], versions: Mapping[str, str | None]) -> list[str]:
    answers = sum(each.expected for each in subjects)
    found = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    missing = ", ".join(name for name, number in versions.items() if not number)
    notes = [
        f"CPU time; best of {rounds} rounds, taking turns, in one process; lower is better.",
        "Bare: `await tool(...)` and `await asyncio.to_thread(tool, ...)`, arguments ready.",
        "F: one direct `await handler(message)`; 11 of them are 5 us where one takes 0.44 us.",
        f"{answers:,} answers, schemas and definitions, {len(undelivered(subjects))} counts wrong.",
    ]
    if found:
        notes.append(f"Beside it: {found}. A dash: nothing comparable.")
    if missing:
        notes.append(f"Not installed, so not measured: {missing}.")
    return notes


async def _measure(rounds: int, quick: bool) -> Report:
    versions = {name: version(name) for name in PEERS}
    async with AsyncExitStack() as stack:
        floor = direct()
        subjects = [floor, *bare(), *await _ours(stack)]
        for name, number in versions.items():
            if number is not None:
                subjects += await PEERS[name]()
        for subject in subjects:
            subject.operations = 2 if quick else subject.operations
        await take_turns(subjects, rounds)
    return Report(
        rows=_ROWS,
        names=[_OURS, _BARE, *(name for name, number in versions.items() if number)],
        own=[_OURS],
        figures=_figures(subjects, floor.best),
        notes=_notes(rounds, subjects, versions),
        wrong=undelivered(subjects),
    )


def main() -> int:
    """Measure, and print a table; return 1 if an answer is wrong."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    return report_on("tools", summary, 60, _measure)


if __name__ == "__main__":
    sys.exit(main())

"""A turn that the budget ends keeps what it had come to."""

from __future__ import annotations

import pytest
from assistant import RunTurn, register
from llmgine.bus import BusSession
from llmgine.contracts import ChatMessage, ToolCall
from llmgine.errors import BudgetExceededError
from llmgine.providers.scripted import ScriptedProvider
from llmgine.testing.fixtures import StartApp, quiet_config
from llmgine.tools import ToolManager


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_a_budget_that_is_spent_among_tools_ends_the_turn(start_app: StartApp) -> None:
    call = ToolCall(id="1", name="add", arguments='{"a": 1, "b": 2}')
    provider = ScriptedProvider([ChatMessage.assistant("Let me see.", call), "Three."])
    tools = ToolManager()
    tools.register_tool(add)
    config = quiet_config(budget={"session_tokens": 1})
    app = await start_app(config, provider=provider, tools=tools, setup=register)
    async with BusSession("s", bus=app.bus) as session:
        for text in ("1 + 2?", "Go on."):
            with pytest.raises(BudgetExceededError) as caught:
                await session.execute(RunTurn(text=text))
            assert caught.value.session_id == "s"
    # The second turn was over before the model had said anything.
    history = await app.context.get_context("s")
    assert [message.role for message in history] == ["user", "assistant", "tool"]
    assert [result.text for result in history[2].tool_results] == ["3"]
    # The conversation goes on in a session with a budget of its own.
    async with BusSession("s", bus=app.bus) as session:
        assert (await session.execute(RunTurn(text="Go on."))).text == "Three."

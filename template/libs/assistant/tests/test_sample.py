"""A test to copy: one turn with a scripted provider."""

from __future__ import annotations

import assistant
from llmgine.bus import BusSession
from llmgine.providers.scripted import ScriptedProvider
from llmgine.testing.fixtures import StartApp


async def test_a_turn_is_answered_and_remembered(start_app: StartApp) -> None:
    provider = ScriptedProvider(["Hello, Ada!"])
    app = await start_app(provider=provider, setup=assistant.register)
    async with BusSession("ada", bus=app.bus) as session:
        result = await session.execute(assistant.RunTurn(text="I am Ada."))
    history = await app.context.get_context("ada")
    assert result.text == "Hello, Ada!"
    assert [message.text for message in history] == ["I am Ada.", "Hello, Ada!"]

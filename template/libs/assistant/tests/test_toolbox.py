"""The tools as a model calls them: in a turn, with approval, by the settings."""

from __future__ import annotations

import json
from pathlib import Path

import assistant
import pytest
from assistant import AssistantConfig, RunTurn, TurnResult
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolExecuteResultEvent,
)
from llmgine.providers.scripted import ScriptedProvider


def calling(*names: str, **arguments: object) -> ChatMessage:
    text = json.dumps(arguments)
    return ChatMessage.assistant(*(ToolCall(id=name, name=name, arguments=text) for name in names))


async def run(
    config: ApplicationConfig, message: ChatMessage, *, approved: bool = False
) -> tuple[TurnResult, list[ToolExecuteResultEvent]]:
    """Have a model call tools in a turn, and answer for the user where it is asked."""
    bus = MessageBus.isolated()
    provider = ScriptedProvider([message, "Done."])
    app = ApplicationBootstrap(
        config, bus=bus, provider=provider, tools=assistant.toolbox, setup=assistant.register
    )
    ended: list[ToolExecuteResultEvent] = []

    async def decide(event: ToolApprovalRequestedEvent) -> None:
        answer = ResolveToolApproval(call_id=event.call.id, approved=approved, reason="no, thanks")
        assert await bus.execute(answer)

    async with app, BusSession("s", bus=bus) as session:
        session.register_event_handler(ToolApprovalRequestedEvent, decide)
        session.register_event_handler(ToolExecuteResultEvent, ended.append, inline=True)
        result = await session.execute(RunTurn(text="Go."))
        await bus.join()
    offered = [tool["function"]["name"] for tool in provider.requests[0].tools]
    assert offered == ["current_time", "calculate", "read_file"]
    return result, ended


@pytest.fixture
def config(tmp_path: Path) -> AssistantConfig:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("the text")
    (tmp_path / "settings.toml").write_text("[console]\nenabled = false\n[file]\nenabled = false")
    return AssistantConfig(settings_file=tmp_path / "settings.toml")


async def test_harmless_tools_run_unasked(config: AssistantConfig) -> None:
    result, ended = await run(config, calling("current_time", zone="UTC"))
    assert result.tool_results[0].text.endswith("(UTC)")
    result, ended = await run(config, calling("calculate", expression="12*34"))
    assert [each.text for each in result.tool_results] == ["408"]
    assert [(each.session_id, each.result.is_error) for each in ended] == [("s", False)]


async def test_what_goes_wrong_is_told_the_model(config: AssistantConfig) -> None:
    result, _ = await run(config, calling("calculate", "current_time", expression="1/0"))
    divided, wrong = result.tool_results
    assert (divided.is_error, divided.error_code) == (True, "tool_error")
    assert "division by zero" in divided.text
    assert wrong.is_error
    assert "expression" in wrong.text


@pytest.mark.parametrize("approved", [True, False])
async def test_reading_a_file_waits_for_the_user(config: AssistantConfig, approved: bool) -> None:
    result, _ = await run(config, calling("read_file", path="docs/a.md"), approved=approved)
    (told,) = result.tool_results
    if approved:
        assert told.text == "the text"
    else:
        assert told.error_code == "denied"
        assert "no, thanks" in told.text


async def test_the_settings_choose_the_folder(config: AssistantConfig, tmp_path: Path) -> None:
    with (tmp_path / "settings.toml").open("a") as file:
        file.write('\n[assistant]\nfolder = "docs"\n')
    narrow = AssistantConfig(settings_file=tmp_path / "settings.toml")
    assert narrow.assistant.folder == tmp_path / "docs"
    result, _ = await run(narrow, calling("read_file", path="a.md"), approved=True)
    assert result.tool_results[0].text == "the text"
    result, _ = await run(narrow, calling("read_file", path="../settings.toml"), approved=True)
    assert "outside" in result.tool_results[0].text


async def test_plain_settings_do_too(config: AssistantConfig, tmp_path: Path) -> None:
    plain = ApplicationConfig(settings_file=tmp_path / "settings.toml")
    result, _ = await run(plain, calling("read_file", path="docs/a.md"), approved=True)
    assert result.tool_results[0].text == "the text"

"""Tools of MCP servers that are programs of our own."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llmgine.contracts import (
    MediaPart,
    TextPart,
    ToolApprovalRequestedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
)
from llmgine.errors import ConfigurationError
from llmgine.settings import McpServerSettings
from llmgine.testing.fixtures import StartApp, quiet_config
from llmgine.tools import ToolManager
from llmgine.tools.mcp import McpServers

if TYPE_CHECKING:
    from conftest import Connect, Server


async def test_all_pages_are_listed_under_legal_names(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    own, offered = list(on.connection.tools), list(on.connection.tools.values())
    assert own[10:] == ["a.b/c", "a b c", "x" * 100, "refuse"]
    assert offered[:12] == [*(f"t_{name}" for name in own[:10]), "t_a_b_c", "t_a_b_c_2"]
    assert offered[12].startswith("t_" + "x" * 53 + "_")
    assert len(offered[12]) == 64
    assert on.names == offered
    function = on.tools.get_tools()[0]["function"]
    assert function["description"] == "Does echo."
    schema = {"type": "object", "title": "Kept", "properties": {"text": {"type": "string"}}}
    assert function["parameters"] == schema
    assert (await on.call("t_a_b_c_2", text="ö")).text == '["a b c", {"text": "\\u00f6"}]'
    assert (await on.call(offered[12])).text == json.dumps(["x" * 100, {}])


async def test_results_of_every_kind(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    picture = MediaPart(kind="image", data=b"\x89PNG", media_type="image/png")
    assert (await on.call("t_picture")).content == (TextPart(text="see:"), picture)
    assert (await on.call("t_structured")).content == '{"sum": 3}'
    first, pdf, link, sound = (await on.call("t_resources")).content
    assert first == TextPart(text="[file:///a.txt]\ninside")
    assert isinstance(pdf, MediaPart)
    assert (pdf.kind, pdf.data, pdf.name) == ("document", b"hi", "file:///c.pdf")
    assert link == TextPart(text="[resource b, file:///b.txt: B]")
    assert sound == TextPart(text="[audio/wav: left out, it is no base64]")
    huge = await on.call("t_huge")
    assert len(huge.text) <= 64 * 1024
    assert huge.text.endswith("of 1000000 bytes are missing]")


async def test_errors_reach_the_model(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    result = await on.call("t_fail")
    assert (result.text, result.error_code) == ("It is closed on Sundays.", "tool_error")
    result = await on.call("t_refuse")
    text = "The MCP server refused the call: Not today."
    assert (result.text, result.error_code) == (text, "tool_error")
    result = await on.call("t_echo", text="\ud800")
    assert result.error_code == "invalid_arguments"
    assert (await on.call("t_echo")).error_code is None


async def test_a_server_gets_the_environment_that_it_was_given(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_OURS", "secret")
    monkeypatch.setenv("TOKEN_OF_THEIRS", "passed")
    settings = server.settings(
        env={"MODE": "test"}, pass_env=["TOKEN_OF_THEIRS"], folder=server.folder
    )
    on = await connect(settings)
    found = json.loads((await on.call("t_where")).text)
    assert (found["MODE"], found["TOKEN_OF_THEIRS"]) == ("test", "passed")
    assert "TOKEN_OF_OURS" not in found
    assert Path(found["folder"]) == server.folder
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("approval", "free"),
    [
        ("always", ["t_echo"]),
        ("writes", ["t_echo", "t_a_b_c"]),
        ("never", ["t_echo", "t_a_b_c", "t_where"]),
    ],
)
async def test_calls_wait_for_approval(
    server: Server, connect: Connect, approval: str, free: list[str]
) -> None:
    on = await connect(server.settings(approval=approval, trusted_tools=["echo"]))
    results = [await on.call(name) for name in ("t_echo", "t_a_b_c", "t_where")]
    assert [each.name for each in results if not each.is_error] == free
    assert {each.error_code for each in results} <= {None, "expired"}


async def test_only_the_tools_that_settings_name_are_offered(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    on = await connect(server.settings(tools=["echo", "a.b/c", "nope"], prefix=""))
    assert on.names == ["echo", "a_b_c"]
    assert "has no tool 'nope'" in caplog.text
    assert (await on.call("slow")).error_code == "unknown_tool"
    await on.connection.stop()
    assert on.names == []
    assert len(caplog.records) == 1


async def test_a_name_that_is_taken_gets_a_number(server: Server) -> None:
    def echo(text: str) -> str:
        """Repeat it."""
        return text

    tools = ToolManager()
    tools.register_tool(echo)
    settings = server.settings(tools=["echo"], prefix="")
    async with McpServers({"one": settings, "two": settings}, tools) as servers:
        theirs = [each.tools["echo"] for each in servers.connections.values()]
        assert sorted(theirs) == ["echo_2", "echo_3"]
    assert [each["function"]["name"] for each in tools.get_tools()] == ["echo"]


async def test_what_a_server_changes_is_offered(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    assert (await on.call("t_grow")).error_code is None
    await server.until(lambda: "t_fresh" in on.names)
    assert "t_fail" not in on.names
    assert (await on.call("t_fresh")).text == '["fresh", {}]'
    descriptions = {
        each["function"]["name"]: each["function"]["description"] for each in on.tools.get_tools()
    }
    assert descriptions["t_echo"] == "Does it better."


async def test_what_stands_on_standard_output_beside_the_protocol_is_skipped(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    on = await connect(server.settings("noisy"))
    assert (await on.call("t_echo", text="a")).text == '["echo", {"text": "a"}]'
    assert "MCP server 't': (no message) Welcome to the server!" in caplog.messages
    assert [each for each in caplog.records if each.exc_info] == []


async def test_a_server_that_is_busy_may_say_later_what_has_changed(
    server: Server, connect: Connect
) -> None:
    on = await connect(server.settings("sleepy", connect_timeout=1.5))
    await server.until(lambda: on.connection.connected)
    connects = on.connection.connects
    assert (await on.call("t_nap", seconds=2.5)).error_code is None
    assert (await on.call("t_echo")).error_code is None
    assert on.connection.connects == connects


# -- Calls that end early


async def test_a_call_past_its_limit_is_cancelled_at_the_server(
    server: Server, connect: Connect
) -> None:
    on = await connect(server.settings(timeout=0.2))
    assert (await on.call("t_slow")).error_code == "timeout"
    await server.trace("cancelled")
    assert on.connection.connects == 1


async def test_a_caller_s_cancellation_reaches_the_server(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    call = asyncio.create_task(on.call("t_slow"))
    await server.trace("slow")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.trace("cancelled")
    assert (await on.call("t_echo")).error_code is None


# -- Death


async def test_a_server_s_death_is_told_at_once_and_the_next_call_starts_another(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    on = await connect(server.settings())
    waiting = asyncio.create_task(on.call("t_slow"))
    await server.trace("slow")
    killed = await on.call("t_die")
    for result in (killed, await waiting):
        assert (result.is_error, result.error_code) == (True, "connection_lost")
    assert (await on.call("t_echo")).text == '["echo", {}]'
    assert on.connection.connects == len(server.pids) == 2
    assert server.alive() == server.pids[1:]
    assert "MCP server 't' was lost" in caplog.text


async def test_a_server_that_dies_too_often_is_left_alone_for_a_while(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmgine.tools.mcp.connection._FIRST_PAUSE", 20.0)
    on = await connect(server.settings())
    assert (await on.call("t_die")).error_code == "connection_lost"
    refused = await on.call("t_echo")
    assert refused.error_code == "unavailable"
    assert "can't be reached; try again in" in refused.text
    assert len(server.pids) == 1


async def test_a_server_that_isn_t_there_yet_appears_later(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    on = await connect(server.settings("late"))
    assert on.names == []
    await server.until(lambda: "t_echo" in on.names)
    assert (await on.call("t_echo")).error_code is None
    assert len(server.pids) == 3
    assert "can't be reached (Connection closed; it said: KeyError: no licence" in caplog.text


async def test_an_application_doesn_t_start_without_what_it_requires(server: Server) -> None:
    servers = {
        "broken": server.settings("broken", required=True),
        "nobody": McpServerSettings(command="no-such-program", required=True),
        "silent": server.settings("silent", required=True, connect_timeout=0.5),
        "fine": server.settings(),
    }
    tools = ToolManager()
    with pytest.raises(ConfigurationError) as caught:
        await McpServers(servers, tools).__aenter__()
    broken, nobody, silent = str(caught.value).splitlines()
    said = "it said: KeyError: no licence[31m was found"
    assert broken == f"mcp.servers.broken: can't be reached (Connection closed; {said})"
    assert nobody == "mcp.servers.nobody: can't be reached (there is no 'no-such-program')"
    assert silent == "mcp.servers.silent: can't be reached (no answer within 0.5 s)"
    assert tools.get_tools() == []
    assert server.alive() == []


async def test_a_missing_variable_is_named(server: Server) -> None:
    settings = server.settings(pass_env=["NO_SUCH_VARIABLE"])
    with pytest.raises(ConfigurationError, match=r"mcp.servers.t.pass_env: .* NO_SUCH_VARIABLE"):
        McpServers({"t": settings}, ToolManager())
    there = McpServers({"t": settings}, ToolManager(), variables={"NO_SUCH_VARIABLE": "x"})
    assert "t" in there.connections


# -- The end


@pytest.mark.parametrize("kind", ["", "stubborn"])
async def test_no_process_is_left(server: Server, kind: str) -> None:
    tools = ToolManager()
    servers = McpServers({"t": server.settings(kind)}, tools)
    with pytest.raises(ZeroDivisionError):
        async with servers:
            raise ZeroDivisionError
    assert server.alive() == []
    assert (server.folder / "terminated").exists() == (kind == "stubborn")
    assert tools.get_tools() == []
    assert not servers.connections["t"].connected


async def test_no_process_is_left_of_a_start_that_was_cut_off(server: Server) -> None:
    servers = McpServers({"t": server.settings("silent")}, ToolManager())
    starting = asyncio.create_task(servers.__aenter__())
    await server.trace("pids")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert server.alive() == []


async def test_a_stop_waits_for_no_server_that_has_just_been_started(server: Server) -> None:
    settings = server.settings("silent", connect_timeout=600)
    (connection,) = McpServers({"t": settings}, ToolManager()).connections.values()
    starting = asyncio.create_task(connection.start())
    for _ in range(3):
        await asyncio.sleep(0)
    await connection.stop()
    assert await starting != ""
    assert server.alive() == []


async def test_calls_that_wait_at_the_end_are_answered(server: Server, connect: Connect) -> None:
    on = await connect(server.settings())
    waiting = asyncio.create_task(on.call("t_slow"))
    await server.trace("slow")
    await on.connection.stop()
    assert (await waiting).error_code == "connection_lost"
    assert server.alive() == []


# -- In an application


async def test_settings_bring_tools_into_an_application(
    server: Server, start_app: StartApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmgine.tools.mcp")
    settings = server.settings(approval="always", trusted_tools=["echo"])
    config = quiet_config(mcp={"servers": {"files": settings}})
    app = await start_app(config)
    assert "files_echo" in [each["function"]["name"] for each in app.tools.get_tools()]
    seen: list[object] = []
    for kind in (ToolExecuteStartedEvent, ToolExecuteResultEvent, ToolApprovalRequestedEvent):
        app.bus.register_event_handler(kind, seen.append)
    call = ToolCall(id="1", name="files_echo", arguments='{"text": "a"}')
    result = await app.tools.execute_tool_call(call)
    await app.bus.join()
    assert result.text == '["echo", {"text": "a"}]'
    assert [type(each) for each in seen] == [ToolExecuteStartedEvent, ToolExecuteResultEvent]
    assert server.alive()
    await app.stop()
    assert server.alive() == []


async def test_an_executor_that_takes_no_tools_is_refused(
    server: Server, start_app: StartApp
) -> None:
    class Own:
        def get_tools(self, *, strict: bool = False) -> list[object]:
            return []

        async def execute_tool_call(self, call: ToolCall) -> object:
            raise NotImplementedError

    config = quiet_config(mcp={"servers": {"files": server.settings()}})
    with pytest.raises(ConfigurationError, match=r"mcp.servers: expected a ToolManager .* an? Own"):
        await start_app(config, tools=Own())  # pyright: ignore[reportArgumentType]
    assert server.pids == []

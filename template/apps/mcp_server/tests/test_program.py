"""The server as a program: over standard input and output, over HTTP, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
from llmgine.contracts import ToolCall
from llmgine.settings import McpServerSettings
from llmgine.tools import ToolManager
from mcp import Client
from mcp_server.cli import main

COMMAND = [sys.executable, "-m", "mcp_server.cli"]
# The server with one more tool, which writes where only the protocol belongs.
CHATTY = """
import subprocess, sys
import assistant
from mcp_server.cli import main

ours = assistant.toolbox

def toolbox(config, *, publisher):
    print("started")
    tools = ours(config, publisher=publisher)
    tools.register_tool(chatter)
    tools.register_tool(much)
    return tools

def much() -> str:
    return "x" * 60_000

def chatter() -> str:
    print("printed", flush=True)
    child = "import sys; print('child', repr(sys.stdin.read()))"
    subprocess.run([sys.executable, "-c", child], check=True)
    return "done"

assistant.toolbox = toolbox
main()
"""
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def line(method: str, number: int | None = None, **params: object) -> bytes:
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": params}
    if number is not None:
        message["id"] = number
    return json.dumps(message).encode() + b"\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_standard_output_is_the_protocol_s_alone_until_a_signal_ends_the_program(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    with subprocess.Popen(
        [sys.executable, "chatty.py"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"no json\n" + line("initialize", 1, **INITIALIZE))
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["result"]["serverInfo"]["name"] == "assistant"
        process.stdin.write(line("notifications/initialized"))
        process.stdin.write(line("tools/call", 2, name="chatter"))
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert (answer["id"], answer["result"]["content"][0]["text"]) == (2, "done")
        # The client stays: its pipe is open.
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b""
        errors = process.stderr.read().decode() if process.stderr else ""
        assert process.wait(50) == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert {"started", "printed", "child ''"} <= set(errors.splitlines())
    if find_spec("llmgine.observability.jsonl") is None:
        return  # not every project writes events down
    kinds = [
        json.loads(each)["event_type"]
        for each in (tmp_path / ".llmgine/events.jsonl").read_text().splitlines()
    ]
    assert kinds[0] == "SessionStartEvent"
    assert kinds[-1] == "SessionEndEvent"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_client_that_doesn_t_read_can_t_keep_the_program_from_ending(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    with subprocess.Popen(
        [sys.executable, "chatty.py"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line("initialize", 1, **INITIALIZE))
        process.stdin.write(line("notifications/initialized"))
        for number in range(2, 42):
            process.stdin.write(line("tools/call", number, name="much"))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == 128 + signal.SIGTERM


def test_a_client_that_has_gone_ends_the_program(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        COMMAND, input=b"", cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Traceback" not in done.stderr


def test_a_client_that_doesn_t_wait_for_its_answer_is_no_traceback(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(  # noqa: S603 - our own program
        COMMAND,
        input=line("initialize", 1, **INITIALIZE),
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_closed_streams_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mcp-server"])
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "expected standard input and output to be open" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
async def test_over_http(tmp_path: Path, environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--http", "--port", "0", "--approve"),
        cwd=tmp_path,
        env={**environment, "LLMGINE_CONSOLE__ENABLED": "false"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    (tmp_path / "notes.txt").write_text("the notes")
    try:
        found = re.fullmatch(
            r"listening on (http://127.0.0.1:\d+/mcp)\n", (await process.stderr.readline()).decode()
        )
        assert found is not None
        async with Client(found[1]) as client:
            results = await asyncio.gather(
                *(client.call_tool("read_file", {"path": "notes.txt"}) for _ in range(9))
            )
            assert {each.content[0].model_dump()["text"] for each in results} == {"the notes"}
        await check_our_client(found[1])
        await check_strangers(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        status = await process.wait()
    assert status == 128 + signal.SIGTERM
    assert b"Traceback" not in await process.stderr.read()


async def check_our_client(url: str) -> None:
    if find_spec("llmgine.tools.mcp") is None:
        return  # not every project has it
    from llmgine.tools.mcp import McpServers

    tools = ToolManager()
    settings = McpServerSettings(url=url, approval="never")
    async with McpServers({"ours": settings}, tools):
        call = ToolCall(id="1", name="ours_calculate", arguments='{"expression": "2^10"}')
        assert (await tools.execute_tool_call(call)).text == "1024"


async def check_strangers(url: str) -> None:
    """A web page that has its own name point at this machine gets nothing."""
    body = json.loads(line("initialize", 1, **INITIALIZE))
    accepted = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=accepted, trust_env=False) as client:
        answer = await client.post(url, json=body, headers={"Host": "evil.example:80"})
        assert answer.status_code == 421
        answer = await client.post(url, json=body, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--http", "--port", "{taken}"), "127.0.0.1:{taken}: expected a free address, found: "),
        (("--http", "--host", "no host"), "no host:8765: expected a free address, found: "),
        (("--port", "99999"), "65535"),
    ],
)
def test_what_is_wrong_is_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        filled = [each.format(taken=port) for each in arguments]
        monkeypatch.setattr(sys, "argv", ["mcp-server", *filled])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words.format(taken=port) in captured.err
    assert "Traceback" not in captured.err

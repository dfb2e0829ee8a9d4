"""The server as a program: what it says, how it ends, and with which status."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
from api.cli import main

# The program with one more stream, and one more feed, that have no end.
ENDLESS = """
import asyncio
import threading
import api.serving
from api.cli import main
from fastapi.responses import StreamingResponse

ours = api.serving.make_web

def make_web(application):
    web = ours(application)

    async def events():
        async with application.bus.session("endless"):
            yield b"data: first\\n\\n"
            await asyncio.Event().wait()

    async def stream():
        return StreamingResponse(events(), media_type="text/event-stream")

    async def feed():
        return StreamingResponse(first(), media_type="text/event-stream")

    async def first():
        yield b"data: first\\n\\n"
        await asyncio.Event().wait()

    async def stuck():
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)

    web.add_api_route("/stuck", stuck, methods=["POST"])
    web.add_api_route("/endless", stream, methods=["POST"])
    web.add_api_route("/endless", feed)
    return web

api.serving.make_web = make_web
main()
"""
KEY = "a-key-of-some-length"
FIRST = b"data: first\n\n"

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@asynccontextmanager
async def running(
    folder: Path, environment: dict[str, str], **more: str
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str, str]]:
    """Run the program; give its process, its URL, and what it says of itself behind that."""
    (folder / "endless.py").write_text(ENDLESS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "endless.py", "--port", "0"),
        cwd=folder,
        env={**environment, "LLMGINE_CONSOLE__ENABLED": "false", **more},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = (await process.stderr.readline()).decode()
        found = re.fullmatch(r"listening on (http://127.0.0.1:\d+)(.*)\n", line)
        assert found is not None, line
        yield process, found[1], found[2]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@needs_signals
async def test_a_signal_ends_it_in_order(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / ".env").write_text(f"LLMGINE_API__KEY={KEY}\n")
    async with (
        running(tmp_path, environment, LLMGINE_API__GRACE="0.2") as (process, url, hint),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=50) as client,
    ):
        assert "answers are scripted" in hint
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/endless")).status_code == 401
        client.headers["Authorization"] = f"Bearer {KEY}"
        async with client.stream("POST", "/endless") as stream:
            pieces = stream.aiter_bytes()
            assert await anext(pieces) == FIRST
            process.send_signal(signal.SIGTERM)
            last = b"".join([each async for each in pieces])
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert error["message"].startswith("the server is ending")
        assert await process.wait() == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    if find_spec("llmgine.observability.jsonl") is None:
        return  # not every project writes events down
    lines = (tmp_path / ".llmgine/events.jsonl").read_text().splitlines()
    kinds = [json.loads(each)["event_type"] for each in lines]
    assert (kinds[0], kinds[-1]) == ("SessionStartEvent", "SessionEndEvent")


@needs_signals
async def test_what_takes_no_cancelling_doesn_t_hold_it(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with (
        running(tmp_path, environment) as (process, url, _),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=50) as client,
    ):
        assert (await client.post("/stuck")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert b"is left behind" in await process.stderr.read()


async def test_other_servers_pages_of_this_machine_are_foreign(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with (
        running(tmp_path, environment) as (_, url, _),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=50) as client,
    ):
        for origin, status in ((url, 201), ("http://127.0.0.1:1", 403), ("null", 403)):
            answer = await client.post("/sessions", headers={"Origin": origin})
            assert (origin, answer.status_code) == (origin, status)


@needs_signals
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    async with (
        running(tmp_path, environment) as (process, url, _),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=50) as client,
        client.stream("POST", "/endless") as stream,
        client.stream("GET", "/endless") as feed,
    ):
        pieces = stream.aiter_bytes()
        assert await anext(pieces) == FIRST
        process.send_signal(signal.SIGINT)
        assert b"".join([each async for each in feed.aiter_bytes()]) == FIRST  # a feed ends first
        process.send_signal(signal.SIGINT)
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(pieces)
        assert await process.wait() == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "{taken}"), "127.0.0.1:{taken}: expected a free address, found: "),
        (("--host", "no host"), "there is no key: whoever reaches this address may call; "),
        (("--host", "no host"), "no host:8000: expected a free address, found: "),
        (("--host", "x" * 99 + "." * 9), ":8000: expected a free address, found: "),
        (("--port", "99999"), "65535"),
        (("--port", "0", "--provider", "nobody"), "provider.name: "),
        (("--port", "0", "key=short"), "api.key: expected at least 16 ASCII characters"),
        (("--port", "0", "key=sixteen and more"), "api.key: expected at least 16 ASCII characters"),
        (("--port", "0", 'hosts=["http://name:80"]'), "hosts: expected names without scheme and"),
        (("--port", "0", 'hosts=[""]'), "hosts: expected names without scheme and"),
        (("--port", "0", "grace=inf"), "grace: expected seconds that come to an end"),
        (("--port", "0", "max_body=none"), "api.max_body: expected a whole number, found 'none'"),
        (("--port", "0", "request_timeout=0"), "request_timeout: expected a number above 0"),
        (("--port", "0", "nothing=1"), "LLMGINE_API__NOTHING"),
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
    options: list[str] = []
    for argument in arguments:
        name, given, value = argument.partition("=")
        if given:
            monkeypatch.setenv(f"LLMGINE_API__{name.upper()}", value)
        else:
            options.append(argument)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["api", *(each.format(taken=port) for each in options)])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words.format(taken=port) in captured.err
    assert "Traceback" not in captured.err

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api.serving import WebServer
from api.sessions import Sessions
from api.sessions.log import Entry, EventLog
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from llmgine.contracts import LogEvent, ToolCall, ToolExecuteStartedEvent
from llmgine.providers.scripted import ScriptedProvider
from starlette.types import Message

Start = Callable[..., Coroutine[Any, Any, Any]]
Event = tuple[str, str, dict[str, Any]]

TURN = {"text": "hello"}


def told(text: object) -> LogEvent:
    return LogEvent(text=str(text))


def texts(entries: list[Entry]) -> list[str]:
    return [json.loads(each.data).get("text", each.kind) for each in entries]


async def kept(log: EventLog, after: str = "0") -> list[Entry]:
    """Close a log, and return what a watcher still gets."""
    log.close()
    return [entry async for entry in log.watch(after)]


class Stream:
    """What a client of the stream sees."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.lines = answer.aiter_lines()

    async def event(self) -> Event:
        """Return the next event: id, type and data."""
        fields: dict[str, str] = {}
        async for line in self.lines:
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif "data" in fields:
                return fields["id"], fields["event"], json.loads(fields["data"])
        raise EOFError

    async def until(self, kind: str) -> list[Event]:
        """Return the events up to one of a type."""
        found: list[Event] = []
        while not found or found[-1][1] != kind:
            found.append(await self.event())
        return found

    async def rest(self) -> list[Event]:
        found: list[Event] = []
        try:
            while True:
                found.append(await self.event())
        except EOFError:
            return found


class Client:
    """A client of one session."""

    def __init__(self, http: httpx2.AsyncClient, session_id: str) -> None:
        self.http = http
        self.id = session_id
        self.path = f"/sessions/{session_id}"

    @asynccontextmanager
    async def watch(
        self, after: str | None = None, header: str | None = None
    ) -> AsyncGenerator[Stream, None]:
        headers = {} if header is None else {"Last-Event-ID": header}
        params = {} if after is None else {"after": after}
        path = f"{self.path}/events"
        async with self.http.stream("GET", path, headers=headers, params=params) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield Stream(answer)

    async def say(self) -> str:
        answer = await self.http.post(f"{self.path}/turns", json=TURN)
        assert answer.status_code == 202
        return str(answer.json()["turn_id"])


@asynccontextmanager
async def using(url: str) -> AsyncGenerator[Client, None]:
    """A client of a new session."""
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
        yield Client(http, (await http.post("/sessions")).json()["id"])


# -- The log


@given(count=st.integers(1, 20), most=st.integers(1, 20))
async def test_who_comes_back_gets_exactly_what_is_missing(count: int, most: int) -> None:
    log = EventLog(kept=most)
    watcher = log.watch("0")
    ids: list[str] = []
    for number in range(count):
        log.add(told(number))
        ids.append((await anext(watcher)).id)
    assert len(set(ids)) == count
    log.close()
    assert [entry async for entry in watcher] == []
    for cut, after in enumerate(ids):
        missing = [str(number) for number in range(cut + 1, count)]
        found = texts([entry async for entry in log.watch(after)])
        assert found == (missing if len(missing) <= most else ["Reset"])
    everything = [str(number) for number in range(max(0, count - most), count)]
    assert texts([entry async for entry in log.watch("0")]) == everything


async def test_who_is_overtaken_is_told_and_goes_on_with_what_is_new() -> None:
    log = EventLog(kept=3)
    watcher = log.watch()
    first = asyncio.create_task(anext(watcher))
    await asyncio.sleep(0)
    for number in range(9):
        log.add(told(number))
    reset = await first
    assert reset.kind == "Reset"
    assert "load the messages again" in json.loads(reset.data)["reason"]
    log.add(told("new"))
    assert texts([await anext(watcher)]) == ["new"]
    log.add(told("newer"))
    assert texts(await kept(log, reset.id)) == ["new", "newer"]  # as if it had read them


async def test_an_id_of_elsewhere_is_told() -> None:
    other, log = EventLog(kept=9), EventLog(kept=9)
    for each in (other, log):
        each.add(told(1))
    (mine,), (foreign,) = await kept(log), await kept(other)
    name = mine.id.partition("-")[0]
    unknown = ["x", "-", "1-1", "-1", "00", "é", foreign.id, f"{mine.id}{'0' * 5000}", f"{name}-"]
    for after in (*unknown, f"{name}-99", f"{name}--1", f"{name}-1x", f"{name}-\u0661"):
        (reset,) = [entry async for entry in log.watch(after)]
        assert reset.kind == "Reset"
    assert [entry async for entry in log.watch(mine.id)] == []


async def test_who_comes_during_a_turn_sees_it_from_its_beginning() -> None:
    log = EventLog(kept=3)
    log.add(told("before"))
    log.begin_turn()
    log.add(told("a"))
    log.add(told("b"))
    watcher = log.watch()
    assert texts([await anext(watcher), await anext(watcher)]) == ["a", "b"]
    log.add(told("c"))
    log.add(told("d"))  # the turn's beginning isn't kept any more
    assert texts([await anext(watcher), await anext(watcher)]) == ["c", "d"]
    late = log.watch()
    coming = asyncio.create_task(anext(late))
    await asyncio.sleep(0)
    log.end_turn()
    log.add(told("e"))
    assert texts([await coming]) == ["e"]


async def test_large_events_are_kept_without_their_content_and_not_too_many() -> None:
    log = EventLog(kept=4000)
    log.add(LogEvent(text="begins"))
    for number in range(100):
        log.add(LogEvent(text=f"{number}" + "x" * 200_000))
    found = await kept(log)
    assert 30 <= len(found) <= 50
    assert sum(len(each.data) for each in found) <= 8 * 1024 * 1024
    assert texts(found)[-1].startswith("99x")
    small, long = EventLog(kept=9), "y" * 300_000
    small.add(LogEvent(text="short", attributes={"x": long}))
    small.add(ToolExecuteStartedEvent(call=ToolCall(id="1", name="look", arguments=long)))
    note, call = await kept(small)
    assert len(note.data) + len(call.data) < 1000
    assert (json.loads(note.data)["event_type"], note.kind) == ("LogEvent", "LogEvent")
    assert json.loads(call.data)["call"]["name"] == "look"


# -- The stream


async def test_a_turn_is_streamed_and_resumed_by_id(start_server: Start) -> None:
    url = await start_server(provider=ScriptedProvider(["One two three."] * 2))
    async with using(url) as client, client.watch() as stream:
        turn_id = await client.say()
        events = await stream.until("TurnEnded")
        kinds = [kind for _, kind, _ in events]
        assert kinds[:2] == ["CommandStartedEvent", "LLMCallStartedEvent"]
        assert kinds[-2:] == ["CommandResultEvent", "TurnEnded"]
        assert events[0][2]["command"]["id"] == turn_id
        assert events[0][2]["command"]["text"] == "hello"
        pieces = [data["chunk"].get("text", "") for _, kind, data in events if "Chunk" in kind]
        assert "".join(pieces) == "One two three."
        for _, kind, data in events:
            assert data["event_type"] == kind
            assert data["session_id"] == client.id
            assert {"id", "parent_id", "timestamp"} <= set(data)
        ended = events[-1][2]
        assert (ended["turn_id"], ended["status"], ended["error"]) == (turn_id, "ok", None)
        assert ended["usage"]["output_tokens"] > 0
        for cut in (0, len(events) // 2, len(events) - 2):
            last = events[cut][0]
            for given_as in ({"after": last}, {"header": last}, {"header": last, "after": "x"}):
                async with client.watch(**given_as) as again:
                    assert await again.until("TurnEnded") == events[cut + 1 :]
        async with client.watch(after="0") as everything:
            assert await everything.until("TurnEnded") == events
        async with client.watch(header="18ea-7") as unknown:
            assert (await unknown.event())[1] == "Reset"
            await client.say()
            assert (await unknown.until("TurnEnded"))[0][1] == "CommandStartedEvent"


async def test_a_page_that_is_closed_does_not_stop_the_turn(start_server: Start) -> None:
    words = " ".join(["word"] * 30)
    url = await start_server(provider=ScriptedProvider([words], delay=0.002))
    async with using(url) as client:
        async with client.watch() as stream:
            await client.say()
            events = await stream.until("LLMChunkEvent")
        async with client.watch(after=events[-1][0]) as again:
            events += await again.until("TurnEnded")
        pieces = [data["chunk"].get("text", "") for _, kind, data in events if "Chunk" in kind]
        assert "".join(pieces) == words


async def test_many_watch_one_session_and_none_another(start_server: Start) -> None:
    url = await start_server(provider=ScriptedProvider(["One.", "Two."]))
    async with using(url) as client, using(url) as other, other.watch() as elsewhere:
        watching = [client.watch() for _ in range(10)]
        streams = [await each.__aenter__() for each in watching]
        await client.say()
        found = await asyncio.gather(*(each.until("TurnEnded") for each in streams))
        assert all(each == found[0] for each in found)
        await other.say()
        events = await elsewhere.until("TurnEnded")
        assert {data["session_id"] for _, _, data in events} == {other.id}
        for each in watching:
            await each.__aexit__(None, None, None)


async def test_a_quiet_stream_is_kept_alive(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.sessions.routes._SILENCE", 0.01)
    async with using(await start_server()) as client, client.watch() as stream:
        assert (await anext(stream.lines)).startswith(":")
        await client.say()
        await stream.until("TurnEnded")


async def test_who_leaves_while_something_is_sent_is_no_error(start_web: Start) -> None:
    web: FastAPI = await start_web()
    sessions: Sessions = web.state.sessions
    sessions.note("watched")
    sending = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    async def receive() -> Message:
        await sending.wait()
        return {"type": "http.disconnect"}

    async with sessions.used("watched") as live:
        for number in range(9):
            live.log.add(told(number))
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/sessions/watched/events",
        }
        scope |= {"headers": [(b"host", b"127.0.0.1")], "query_string": b"after=0"}
        await web(scope, receive, send)
        assert live.unused_since is None
    assert live.unused_since is not None


async def test_a_deleted_session_ends_its_streams(start_server: Start) -> None:
    async with using(await start_server()) as client, client.watch() as stream:
        await client.say()
        await stream.until("CommandStartedEvent")
        assert (await client.http.delete(client.path)).status_code == 204
        kinds = [kind for _, kind, _ in await stream.rest()]
        assert kinds[-2:] == ["TurnEnded", "SessionEndEvent"]
        assert (await client.http.get(f"{client.path}/events")).status_code == 404


async def test_the_end_of_the_server_ends_streams(start_web: Start) -> None:
    program = WebServer(await start_web())
    with socket.create_server(("127.0.0.1", 0)) as place:
        running = asyncio.create_task(program.serve([place]))
        await program.listening.wait()
        url = f"http://127.0.0.1:{place.getsockname()[1]}"
        async with using(url) as client, client.watch() as stream:
            program.end()
            assert await stream.rest() == []
            await running


async def test_a_reader_that_does_not_read_costs_nothing_and_is_told(
    start_web: Start, start_server: Start
) -> None:
    web: FastAPI = await start_web(api={"events_kept": 20})
    sessions: Sessions = web.state.sessions
    url = await start_server(web)
    async with using(url) as client, client.watch() as stream:
        live = sessions.live(client.id)
        assert live is not None
        for number in range(300):  # more than what the connection itself can hold
            text = f"{number} " + "x" * 100_000
            await web.state.application.bus.publish(LogEvent(session_id=client.id, text=text))
        await web.state.application.bus.join()
        assert len(await some(live.log)) <= 20
        await web.state.application.bus.publish(LogEvent(session_id=client.id, text="last"))
        events = [await stream.event()]
        while events[-1][2].get("text") != "last":
            events.append(await stream.event())
        assert "Reset" in [kind for _, kind, _ in events]
        assert len(events) < 300


async def some(log: EventLog) -> list[Entry]:
    """Return what a log keeps now."""
    found: list[Entry] = []
    watcher = log.watch("0")
    while True:
        coming = asyncio.ensure_future(anext(watcher))
        await asyncio.wait((coming,), timeout=0)
        if not coming.done():
            coming.cancel()
            return found
        found.append(coming.result())


async def test_the_example_of_the_readme_runs(server: str, environment: dict[str, str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    found = re.search(r"^```python\n(import json.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        found[1].replace("http://127.0.0.1:8000", server),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    said, _ = await running.communicate()
    assert running.returncode == 0
    assert {b"CommandStartedEvent", b"LLMChunkEvent", b"TurnEnded"} <= set(said.splitlines())
    assert b"408" in said


async def test_secrets_do_not_go_out(start_web: Start, start_server: Start) -> None:
    secret = "sk-proj-" + "a1B2" * 10
    web: FastAPI = await start_web()
    url = await start_server(web)
    async with using(url) as client, client.watch() as stream:
        event = LogEvent(
            session_id=client.id, text=f"it is {secret}", attributes={"api_key": "hunter2"}
        )
        await web.state.application.bus.publish(event)
        _, _, data = await stream.event()
        assert secret not in json.dumps(data)
        assert "hunter2" not in json.dumps(data)

"""What requests pass before their route: who asks, how much, for how long, and in which trace."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx2
import pytest
from api.deadlines import Deadlines
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from llmgine.contracts import Event
from llmgine.observability import ObservabilityEventHandler
from openai import AsyncOpenAI, AuthenticationError
from starlette.types import Message, Receive, Scope, Send

StartWeb: TypeAlias = Callable[..., Awaitable[FastAPI]]
StartClient: TypeAlias = Callable[..., Awaitable[httpx2.AsyncClient]]
StartServer: TypeAlias = Callable[..., Awaitable[str]]

KEY = "a-key-of-some-length"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def error_of(answer: httpx2.Response) -> dict[str, str | None]:
    """Return the error of an answer, which has the shape that OpenAI's SDKs read."""
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


# -- Who asks


async def test_with_a_key_those_who_have_it_come_in(start_client: StartClient) -> None:
    client = await start_client(api={"key": KEY})
    for given, found in (
        (b"", "found no key"),
        (b"Bearer", "found no key"),
        (KEY.encode(), "found no key"),
        (f"Bearer {KEY}x".encode(), "found another key"),
        (f"Bearer {KEY[:-1]}".encode(), "found another key"),
        (f"Basic {KEY}".encode(), "found another key"),
        (b"Bearer \xff\xfe", "found another key"),
    ):
        headers = {b"Authorization": given} if given else {}
        for method, path in (("GET", "/nowhere"), ("POST", "/"), ("DELETE", "/healthz")):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, (given, method)
            assert answer.headers["www-authenticate"] == "Bearer"
            error = error_of(answer)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert found in str(error["message"])
            assert KEY not in answer.text
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {KEY}"}
        assert (await client.get("/nowhere", headers=headers)).status_code == 404


async def test_what_is_nobody_s_secret_needs_no_key(start_client: StartClient) -> None:
    client = await start_client(api={"key": KEY})
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert (await client.get(path)).status_code == 200
        assert (await client.get(f"{path}/more")).status_code == 401


async def test_openai_s_client_raises_its_error_of_a_wrong_key(start_server: StartServer) -> None:
    url = await start_server(api={"key": KEY})
    async with AsyncOpenAI(api_key="another", base_url=f"{url}/v1") as client:
        with pytest.raises(AuthenticationError, match="expected `Bearer` and the key"):
            await client.models.list()


async def test_a_page_can_t_reach_us_under_its_own_name(start_client: StartClient) -> None:
    client = await start_client(api={"hosts": ["chat.example.com"]})
    for host in (
        "127.0.0.1:8000",
        "[::1]:8000",
        "LOCALHOST",
        "192.168.0.7:80",
        "Chat.example.com:443",
    ):
        assert (await client.get("/healthz", headers={"Host": host})).status_code == 200
    for host in (
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "chat.example.com.evil.example",
        "[::1",
        "",
    ):
        answer = await client.get("/healthz", headers={"Host": host})
        assert answer.status_code == 421
        assert "api.hosts" in str(error_of(answer)["message"])


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
async def test_a_foreign_page_can_t_change_anything(start_client: StartClient, method: str) -> None:
    client = await start_client(api={"hosts": ["chat.example.com"]})
    for origin, status in (
        (None, 405),
        ("http://127.0.0.1:8000", 405),
        ("https://127.0.0.1:8000", 405),  # something in front of us speaks TLS
        ("https://chat.example.com", 405),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:8000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ):
        headers = {"Host": "127.0.0.1:8000"} | ({} if origin is None else {"Origin": origin})
        answer = await client.request(method, "/healthz", headers=headers)
        assert (origin, answer.status_code) == (origin, status)
        error_of(answer)


async def test_a_foreign_page_can_t_read_anything(client: httpx2.AsyncClient) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        answer = await client.request(method, "/healthz", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.status_code == 405


async def test_a_key_is_enough_under_any_name(start_client: StartClient) -> None:
    client = await start_client(api={"key": KEY})
    headers = {"Host": "chat.example.com", "Authorization": f"Bearer {KEY}"}
    headers["Origin"] = "app://desktop"
    assert (await client.post("/healthz", headers=headers)).status_code == 405


@pytest.mark.parametrize("key", ["", KEY])
async def test_what_isn_t_called_json_is_refused(start_client: StartClient, key: str) -> None:
    client = await start_client(api={"key": key})
    about = {"Authorization": f"Bearer {KEY}"}
    for kind, status in (
        ("application/json", 405),
        ("Application/JSON; charset=utf-8", 405),
        ("text/plain", 400),
        ("text/plain; application/json", 400),
        ("application/x-www-form-urlencoded", 400),
        ("multipart/form-data; boundary=x", 400),
        (None, 400),
    ):
        headers = about | ({} if kind is None else {"Content-Type": kind})
        for body in (b"{}", pieces(1, b"{}")):
            answer = await client.post("/healthz", content=body, headers=headers)
            assert (kind, answer.status_code) == (kind, status)
            error_of(answer)
    assert (await client.post("/healthz", headers=about)).status_code == 405  # no body at all


# -- How much


async def pieces(count: int, piece: bytes) -> AsyncGenerator[bytes]:
    for _ in range(count):
        yield piece


async def echo(body: Mapping[str, str]) -> int:
    return len(json.dumps(body))


async def test_a_long_body_is_refused_with_or_without_its_length(
    start_web: StartWeb, start_client: StartClient
) -> None:
    web = await start_web(api={"max_body": 1000})
    web.add_api_route("/echo", echo, methods=["POST"])
    client = await start_client(web=web)
    headers = {"Content-Type": "application/json"}
    for size, status in ((1000, 200), (1001, 400)):
        body = b'{"a":"' + b"x" * (size - 8) + b'"}'
        for content in (body, pieces(1, body)):
            answer = await client.post("/echo", content=content, headers=headers)
            assert answer.status_code == status
            if status == 400:
                text = "at most 1,000 bytes, by the setting `api.max_body`"
                assert text in str(error_of(answer)["message"])


async def test_a_body_that_says_it_is_too_long_isn_t_read(start_web: StartWeb) -> None:
    web = await start_web(api={"max_body": 1000})
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/json"),
        (b"content-length", b"9" * 30),
    ]
    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": headers}
    await web(scope, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.parametrize("told", [True, False])
async def test_64_mib_are_refused_without_being_kept(
    start_web: StartWeb, start_server: StartServer, told: bool
) -> None:
    web = await start_web()
    web.add_api_route("/echo", echo, methods=["POST"])
    url = await start_server(web=web)
    headers = {"Content-Type": "application/json"}
    if told:
        headers["Content-Length"] = str(64 * 1024 * 1024)
    async with httpx2.AsyncClient(trust_env=False, timeout=50) as client:
        tracemalloc.start()
        try:
            content = pieces(1024, bytes(64 * 1024))
            answer = await client.post(f"{url}/echo", content=content, headers=headers)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answer.status_code == 400
    error_of(answer)
    assert peak < (4 if told else 24) * 1024 * 1024


async def test_headers_without_end_are_refused(server: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server).port)
    begin = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
    writer.write(begin.ljust(64 * 1024 + 1, b"x"))
    async with asyncio.timeout(50):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


# -- For how long


class Slow:
    """Routes that end when they are cut off, and at no other time."""

    def __init__(self, web: FastAPI) -> None:
        self.began = asyncio.Semaphore(0)
        self.cleaned = asyncio.Event()
        web.add_api_route("/hang", self.hang, methods=["POST"])
        for method in ("GET", "POST"):
            web.add_api_route("/stream", self.stream, methods=[method])

    async def hang(self) -> None:
        self.began.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaned.set()

    async def stream(self) -> StreamingResponse:
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await self.hang()


async def test_a_request_past_its_limit_is_told_so(
    start_web: StartWeb, start_client: StartClient
) -> None:
    web = await start_web(api={"request_timeout": 0.05})
    slow = Slow(web)
    client = await start_client(web=web)
    answer = await client.post("/hang")
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    assert error_of(answer)["message"] == (
        "not done in 0.05 s, which is the setting `api.request_timeout`"
    )
    assert slow.cleaned.is_set()


async def test_a_stream_past_its_limit_ends_with_an_error(
    start_web: StartWeb, start_server: StartServer
) -> None:
    web = await start_web(api={"request_timeout": 0.2})
    slow = Slow(web)
    url = await start_server(web=web)
    async with httpx2.AsyncClient(trust_env=False, timeout=50) as client:
        answer = await client.post(f"{url}/stream")
        first, last, rest = answer.text.split("\n\n")
        assert (answer.status_code, first, rest) == (200, "data: first", "")
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
        assert slow.cleaned.is_set()
        # A feed is taken up again where it ended: that is no error.
        assert (await client.get(f"{url}/stream")).text == "data: first\n\n"


async def test_who_doesn_t_read_is_left() -> None:
    deadlines = Deadlines(0.05, grace=1)
    stuck = asyncio.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})

    async def receive() -> Message:
        raise AssertionError("there is nothing to read")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    await deadlines.watch(answer, {"type": "http", "method": "POST"}, receive, send)
    assert stuck.is_set()


async def test_when_the_server_ends_everything_ends_in_order(
    start_web: StartWeb, start_server: StartServer
) -> None:
    web = await start_web(api={"grace": 0.2})
    slow = Slow(web)
    url = await start_server(web=web)
    deadlines: Deadlines = web.state.deadlines
    async with httpx2.AsyncClient(trust_env=False, timeout=50) as client:
        async with client.stream("GET", f"{url}/stream") as feed:
            pieces = feed.aiter_bytes()
            assert await anext(pieces) == b"data: first\n\n"
            hanging = asyncio.create_task(client.post(f"{url}/hang"))
            streaming = asyncio.create_task(client.post(f"{url}/stream"))
            for _ in range(3):
                await slow.began.acquire()
            deadlines.end()
            assert [each async for each in pieces] == []  # at once, and as a whole answer
        answer = await hanging
        assert answer.status_code == 503
        assert error_of(answer)["message"] == "the server is ending: ask again in a while"
        last = (await streaming).text.split("\n\n")[1]
        assert "the server is ending" in json.loads(last.removeprefix("data: "))["error"]["message"]
        assert slow.cleaned.is_set()
        answer = await client.get(f"{url}/readyz")
        assert (answer.status_code, answer.json()["ending"]) == (503, True)


# -- In which trace


class Joining(ObservabilityEventHandler):
    """A handler that follows other processes' traces."""

    inside: ContextVar[str] = ContextVar("inside", default="")

    def handle(self, event: Event) -> None:
        pass

    def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
        token = self.inside.set(json.dumps(dict(carried), sort_keys=True))
        return lambda: self.inside.reset(token)


async def test_what_a_request_brings_about_belongs_to_its_caller_s_trace(
    start_web: StartWeb, start_client: StartClient
) -> None:
    async def whose() -> str:
        return await asyncio.create_task(later())

    async def later() -> str:
        return Joining.inside.get()

    web = await start_web(handlers=[Joining()])
    web.add_api_route("/whose", whose)
    client = await start_client(web=web)
    headers = {"traceparent": TRACE, "tracestate": "a=1", "x-more": "no"}
    answer = await client.get("/whose", headers=headers)
    assert json.loads(answer.json()) == {"traceparent": TRACE, "tracestate": "a=1"}
    assert (await client.get("/whose")).json() == ""

"""The server for tests: what it is told to send arrives byte for byte, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from llmgine.testing.loopback import Heard, LoopbackServer, Reply


async def sent(server: LoopbackServer, body: bytes = b"") -> bytes:
    """Send a request, and return all that comes until the connection ends."""
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /ask?x=1 HTTP/1.1\r\nHost: x\r\nX-Key: k\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_reply_comes_in_the_pieces_that_were_given() -> None:
    async with LoopbackServer(
        Reply(status=418, headers={"x": "1"}, pieces=(b"ab", b"c"))
    ) as server:
        answer = await sent(server, b'{"a": 1}')
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 418 ")
    assert b"\r\nx: 1\r\n" in head
    assert body == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    (heard,) = server.heard
    assert (heard.method, heard.path, heard.headers["x-key"]) == ("POST", "/ask?x=1", "k")
    assert heard.json() == {"a": 1}


async def test_the_last_answer_is_repeated_and_may_depend_on_the_request() -> None:
    def echo(heard: Heard) -> Reply:
        return Reply.json({"heard": heard.body.decode()}, retry_after="2")

    async with LoopbackServer(Reply.json({}), echo) as server:
        answers = [await sent(server, body) for body in (b"1", b"2", b"3")]
    assert b'{"heard"' not in answers[0]
    assert b'{"heard": "2"}' in answers[1]
    assert b"retry-after: 2" in answers[1]
    assert b'{"heard": "3"}' in answers[2]


@pytest.mark.parametrize("ending", ["drop", "hold"])
async def test_a_reply_may_lack_its_end(ending: str) -> None:
    reply = Reply.events([b"data: 1\n\n"], ending="drop" if ending == "drop" else "hold")
    async with LoopbackServer(reply) as server:
        answer = await sent(server)
        assert answer.endswith(b"9\r\ndata: 1\n\n\r\n")
        assert server.left.is_set() == (ending == "hold")

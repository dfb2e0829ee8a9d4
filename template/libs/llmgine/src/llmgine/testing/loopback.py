"""A server on this machine that answers what a test tells it to, byte for byte.

For tests of whatever speaks HTTP, such as providers, against a real connection. It can also do
what servers shouldn't: break off, fall silent, send rubbish.

    async with LoopbackServer(Reply.json({"text": "Hello"})) as server:
        ...  # a client that is given server.url
        assert server.heard[0].json() == {"question": "?"}
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias

__all__ = ["Heard", "LoopbackServer", "Reply"]

Ending: TypeAlias = Literal["end", "drop", "hold"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A request that came in.

    Attributes:
        method: such as `POST`.
        path: with its query.
        headers: by their names in small letters.
        body: as it came.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """Return the body, a JSON object."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What is answered.

    Attributes:
        status: the HTTP status.
        headers: besides those that HTTP needs.
        pieces: the body, each piece sent by itself.
        ending: `end` as it should; `drop` the connection instead; or `hold` it, silently, until
            the client leaves.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pieces: tuple[bytes, ...] = ()
    ending: Ending = "end"

    @classmethod
    def json(cls, value: object, *, status: int = 200, **headers: str) -> Reply:
        """Return a reply of JSON; `retry_after="2"` makes the header `retry-after`."""
        about = {name.replace("_", "-"): each for name, each in headers.items()}
        about.setdefault("content-type", "application/json")
        body = json.dumps(value, ensure_ascii=False).encode()
        return cls(status=status, headers=about, pieces=(body,))

    @classmethod
    def events(cls, events: Iterable[bytes], *, ending: Ending = "end") -> Reply:
        """Return a reply of server-sent events, each a piece with its blank line at the end."""
        headers = {"content-type": "text/event-stream"}
        return cls(headers=headers, pieces=tuple(events), ending=ending)


Answer: TypeAlias = Reply | Callable[[Heard], Reply]


class LoopbackServer:
    """Listens on 127.0.0.1 for as long as its block lasts.

    Args:
        answers: one for each request, in order, or a function of it; the last one is repeated.

    Attributes:
        heard: the requests, in order.
        connections: how many were made.
        left: set once a client has gone away before its answer was over.
    """

    def __init__(self, *answers: Answer) -> None:
        self.heard: list[Heard] = []
        self.left = asyncio.Event()
        self.connections = 0
        self._answers = list(answers)
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._serving:
            connection.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(connection)
        self.connections += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._served(reader, writer):
                pass
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; return whether the connection may carry another."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        heard = await self._read(head.decode("latin-1"), reader)
        self.heard.append(heard)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        reply = answer if isinstance(answer, Reply) else answer(heard)
        await self._send(reply, writer)
        if reply.ending == "hold" and not await reader.read(1):
            self.left.set()
        return reply.ending == "end"

    async def _read(self, head: str, reader: asyncio.StreamReader) -> Heard:
        first, *lines = head.rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Heard(method=method, path=path, headers=headers, body=body)

    async def _send(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        about = {**reply.headers, "transfer-encoding": "chunked"}
        lines = (f"{name}: {value}\r\n" for name, value in about.items())
        writer.write(f"HTTP/1.1 {reply.status} Test\r\n{''.join(lines)}\r\n".encode("latin-1"))
        last = (b"",) if reply.ending == "end" else ()  # an empty piece ends the body
        for piece in (*filter(None, reply.pieces), *last):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()

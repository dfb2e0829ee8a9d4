"""How long requests may take, and how those under way end when the server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem

__all__ = ["Deadlines", "TimeLimit", "set_last_words"]

_LAST_WORDS = 1.0
_STREAM = "text/event-stream"

Words: TypeAlias = Callable[[Problem], bytes]


def _words(problem: Problem) -> bytes:
    return f"data: {json.dumps(problem.body())}\n\n".encode()


def set_last_words(words: Words) -> None:
    """Have the stream that answers this request end in its own form, should its time be over.

    Args:
        words: returns what is sent last.
    """
    exchange = _current.get()
    if exchange is not None:
        exchange.words = words


class Deadlines:
    """The requests under way, and when each has to be over.

    Args:
        limit: seconds that a request may take, streams included.
        grace: seconds that requests have once the server is told to end.

    Attributes:
        grace: the same.
        ending: whether the server is about to end.
    """

    def __init__(self, limit: float, *, grace: float) -> None:
        self.ending = False
        self.grace = grace
        self._limit = limit
        self._open: set[_Exchange] = set()

    def end(self) -> None:
        """Have every request over within the grace.

        Feeds, which have no end of their own, end at once: whoever listens will come back.
        """
        self.ending = True
        self._limit = min(self._limit, self.grace)
        for each in self._open:
            each.hurry(0 if each.is_feed else self.grace)

    async def watch(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in time, or end it in the way that its answer still allows."""
        limit = asyncio.timeout(self._limit)
        exchange = _Exchange(scope["method"], send, limit, self)
        token = _current.set(exchange)
        try:
            async with limit:
                self._open.add(exchange)
                await app(scope, receive, exchange.send)
        except TimeoutError:
            if not limit.expired():
                raise
            await self._conclude(exchange, scope, receive)
        finally:
            self._open.discard(exchange)
            _current.reset(token)

    async def _conclude(self, exchange: _Exchange, scope: Scope, receive: Receive) -> None:
        problem = self._problem()
        try:
            # A client that doesn't read must not keep what is to end.
            async with asyncio.timeout(_LAST_WORDS):
                if not exchange.started:
                    await problem.response()(scope, receive, exchange.send)
                elif exchange.is_stream:
                    await exchange.finish(problem)
        except TimeoutError:
            return

    def _problem(self) -> Problem:
        if self.ending:
            return Problem(status=503, message="the server is ending: ask again in a while")
        text = f"not done in {self._limit:g} s, which is the setting `api.request_timeout`"
        # Another attempt would only take as long again; OpenAI's SDKs read this header.
        return Problem(status=504, message=text, headers={"x-should-retry": "false"})


@dataclass(eq=False, slots=True)
class _Exchange:
    """A request under way, and how far its answer has come."""

    method: str
    raw_send: Send
    limit: asyncio.Timeout
    deadlines: Deadlines
    started: bool = False
    is_stream: bool = False
    ended: bool = False
    words: Words = _words

    @property
    def is_feed(self) -> bool:
        return self.is_stream and self.method == "GET"

    async def send(self, message: Message) -> None:
        # What is cancelled while the client is slow hasn't been sent: so the flags come last.
        await self.raw_send(message)
        if message["type"] == "http.response.start":
            self.started = True
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            self.is_stream = kind.startswith(_STREAM)
            if self.is_feed and self.deadlines.ending:
                self.hurry(0)
        elif not message.get("more_body", False):
            self.ended = True

    async def finish(self, problem: Problem) -> None:
        """End a stream, with the reason where its reader can't just ask for the rest."""
        if self.ended:
            return
        last = b"" if self.is_feed else self.words(problem)
        await self.raw_send({"type": "http.response.body", "body": last})

    def hurry(self, seconds: float) -> None:
        when = self.limit.when()
        soon = asyncio.get_running_loop().time() + seconds
        if not self.limit.expired() and when is not None:
            self.limit.reschedule(min(when, soon))


_current: ContextVar[_Exchange | None] = ContextVar("api_exchange", default=None)


class TimeLimit:
    """Ends requests that take too long.

    Args:
        app: what comes next.
        deadlines: which requests there are, and how long each may take.
    """

    def __init__(self, app: ASGIApp, *, deadlines: Deadlines) -> None:
        self._app = app
        self._deadlines = deadlines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, for as long as it may take."""
        if scope["type"] == "http":
            await self._deadlines.watch(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

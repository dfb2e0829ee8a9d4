"""An answer under way: it is sent while it is made, and ends as soon as nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from assistant import AnswerRequest
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from llmgine.bus import BusSession
from llmgine.contracts import ChatMessage, LLMChunk, LLMRequest, LLMResponse, StreamEnd
from llmgine.errors import LlmgineError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.completions.failures import interrupted, problem_of
from api.problems import Problem, unexpected

__all__ = ["STREAM", "Answering", "Writer"]

STREAM = {
    EventSourceResponse.media_type: {
        # Of each event, as OpenAPI 3.2 has it, and FastAPI for streams of its own.
        "itemSchema": {
            "type": "object",
            "properties": {"data": {"type": "string"}},
            "required": ["data"],
        }
    }
}
"""How a stream is described in OpenAPI."""

_SILENCE = 15.0
_PATIENCE = 1.0
_HEADERS = (
    (b"content-type", f"{EventSourceResponse.media_type}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies would hold pieces back until there are many
)
_log = logging.getLogger(__name__)

Whole: TypeAlias = Callable[[LLMResponse], bytes]
"""Writes a whole answer as JSON."""


class Writer(ABC):
    """Writes a streamed answer as events."""

    @abstractmethod
    def written(self, piece: LLMChunk | ChatMessage) -> bytes:
        """Return the events for a piece of the answer: one, several or none.

        Messages are no pieces of it: they have the calls of tools that are run for it, or what
        came of them.
        """

    @abstractmethod
    def failed(self, problem: Problem) -> bytes:
        """Return the events that end a stream which can't go on."""


class Answering(Response):
    """Sends an answer, whole or piece by piece, each as soon as the model has made it.

    The model waits for a caller that reads slowly. One that goes away ends the work, the model's
    included.

    Args:
        session: the answer's own session on the bus, not open yet.
        request: what the model is asked.
        run_tools: whether the application's own tools are offered.
        name: what the log calls the answer.
        form: what writes it, in pieces or whole.
    """

    def __init__(
        self,
        session: BusSession,
        request: LLMRequest,
        *,
        run_tools: bool,
        name: str,
        form: Writer | Whole,
    ) -> None:
        super().__init__()
        self._session = session
        self._request = request
        self._run_tools = run_tools
        self._name = name
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            Problem: there is none, and nothing has been sent.
        """
        del scope
        sending = _Sending(self._form if isinstance(self._form, Writer) else None, send)
        working = asyncio.create_task(self._work(sending))
        leaving = asyncio.create_task(_left(receive, sending))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            both = asyncio.gather(working, leaving, return_exceptions=True)
            if sending.done:  # only the session is left to be closed
                await both
            else:
                working.cancel()
                await self._end(both, sending)
        if working.done() and not working.cancelled():
            working.result()

    async def _end(
        self,
        both: asyncio.Future[tuple[BaseException | None, BaseException | None]],
        sending: _Sending,
    ) -> None:
        """Wait for cancelled work, but not for ever: the provider may not heed it."""
        _, left = await asyncio.wait((both,), timeout=_PATIENCE)
        if left:
            sending.shut()
            _log.warning("%s: cancelled, but the provider works on", self._name)

    async def _work(self, sending: _Sending) -> None:
        try:
            await self._answer(sending)
        except LlmgineError as error:
            problem = problem_of(error)
            if problem.message != str(error):
                _log.warning("%s: %s: %s", self._name, type(error).__name__, error)
            await sending.fail(problem)
        except Problem as problem:
            await sending.fail(problem)
        except Exception:
            if not sending.started:
                raise
            _log.exception("%s: the answer broke off", self._name)
            await sending.fail(unexpected())

    async def _answer(self, sending: _Sending) -> None:
        form = self._form
        hear = sending.hear if isinstance(form, Writer) else None
        command = AnswerRequest(
            request=self._request, run_tools=self._run_tools, hear=hear, hear_tools=hear
        )
        async with self._session as session:
            response = await session.execute(command)
            if not isinstance(form, Writer):
                # Now, since the session's listeners may take their time until it is closed.
                _check(response)
                await sending.whole(form(response))


class _Sending:
    """What has been sent of an answer.

    Args:
        writer: writes the pieces of a streamed one.
        send: sends to the caller; returns when there is room for more.

    Attributes:
        started: whether it is too late for another status.
        ended: whether nothing more is to be sent.
        done: whether the last of it has been sent.
    """

    def __init__(self, writer: Writer | None, send: Send) -> None:
        self.started = False
        self.ended = False
        self.done = False
        self._writer = writer
        self._send = send
        self._one_at_a_time = asyncio.Lock()

    async def hear(self, piece: LLMChunk | ChatMessage) -> None:
        """Send a piece of the answer, or the tools that are run for it."""
        if isinstance(piece, StreamEnd):
            _check(piece)
        if self._writer is not None and (events := self._writer.written(piece)):
            await self._put(events, last=isinstance(piece, StreamEnd))

    async def ping(self) -> None:
        """Send a comment, which keeps the connection open."""
        if self._writer is not None:
            await self._put(KEEPALIVE_COMMENT)

    async def whole(self, body: bytes) -> None:
        """Send a whole answer."""
        if self.ended:
            return
        self.started = self.ended = True
        headers = Response(body, media_type="application/json").raw_headers
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
        self.done = True

    def shut(self) -> None:
        """Send nothing more, whatever comes."""
        self.ended = True

    async def fail(self, problem: Problem) -> None:
        """Send what is to be said instead of the answer, or of the rest of it.

        Raises:
            Problem: nothing has been sent, so that its status can still be told.
        """
        if self._writer is None or not self.started:
            raise problem
        await self._put(self._writer.failed(problem), last=True)

    async def _put(self, events: bytes, *, last: bool = False) -> None:
        async with self._one_at_a_time:
            if self.ended:
                return
            if not self.started:
                self.started = True
                start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
                await self._send(start)
            self.ended = last
            await self._send({"type": "http.response.body", "body": events, "more_body": not last})
            self.done = last


def _check(answer: LLMResponse | StreamEnd) -> None:
    """Raise a problem where the provider says that its answer is none."""
    if answer.finish_reason == "error":
        raise interrupted()


async def _left(receive: Receive, sending: _Sending) -> None:
    """Return when the caller has gone; until then let proxies see that something is under way."""
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                message = await receive()
        except TimeoutError:
            await sending.ping()
        else:
            if message["type"] == "http.disconnect":
                return

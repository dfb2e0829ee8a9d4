"""What every observability handler promises, as tests that run against your own.

In a test module, with pytest-asyncio in its automatic mode:

    class TestMyHandler(ObservabilityHandlerSuite):
        def make_handler(self) -> ObservabilityEventHandler:
            return MyHandler(path)

Each test asks for a handler of its own, runs it in an `ObservabilityClient`, and stops it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    Command,
    CommandResult,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    EventHandlerFailedEvent,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMRequest,
    LLMResponse,
    LogEvent,
    MediaPart,
    MetricEvent,
    SessionEndEvent,
    SessionStartEvent,
    SpanEndedEvent,
    SpanStartedEvent,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
    Usage,
)
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler

__all__ = ["ObservabilityHandlerSuite", "sample_events"]

_BURST = 500
_THREADS = 4
_IDS = ("plain", "", "tab\tand\nline", "nul\0", "\x1b[31mred", "ünï", "\ud800", "x" * 500, None)
_INLINE_SECONDS = 0.05


class _Hostile:
    """An object of which nothing can be had."""

    def __repr__(self) -> str:
        raise SystemExit("no")

    __str__ = __repr__


@dataclass(frozen=True, kw_only=True)
class _Order(Command[str]):
    """A command with all sorts of fields."""

    text: str = "two teas"
    price: Decimal = Decimal("3.20")
    data: bytes = b"\x00\xff"
    tags: frozenset[str] = frozenset({"a", "b"})
    weight: float = float("nan")
    thing: object = None


@dataclass(frozen=True, kw_only=True)
class _Strange(Event):
    """An event that is hard to write down."""

    thing: object = None


def _fail() -> None:
    raise ValueError("no such city: \x1b[31m")


def _error() -> ValueError:
    """Return an exception that has a traceback."""
    try:
        _fail()
    except ValueError as error:
        return error
    raise AssertionError("unreachable")


def sample_events(session_id: str | None = "a-session") -> list[Event]:
    """Return an event of each class that the spine publishes, and some of an application's."""
    command = _Order(session_id=session_id)
    call = ToolCall(id="1", name="weather", arguments='{"city": "Oslo"}')
    result = ToolResult(tool_call_id="1", name="weather", content="rain", is_error=True)
    request = LLMRequest(messages=(ChatMessage.user("hi", MediaPart(kind="image", data=b"\xff")),))
    response = LLMResponse(
        message=ChatMessage.assistant("hello", call), usage=Usage(input_tokens=3, output_tokens=4)
    )
    failure = _error()
    endless: list[object] = []
    endless.append(endless)
    return [
        SessionStartEvent(session_id=session_id),
        CommandStartedEvent(command=command, session_id=session_id),
        LLMCallStartedEvent(call_id="c", provider="p", request=request, session_id=session_id),
        LLMCallResultEvent(call_id="c", provider="p", response=response, session_id=session_id),
        LLMCallResultEvent(call_id="c", provider="p", error=failure, session_id=session_id),
        ToolApprovalRequestedEvent(call=call, expires_at=0.0, session_id=session_id),
        ToolApprovalResolvedEvent(call=call, approved=False, session_id=session_id),
        ToolExecuteStartedEvent(call=call, session_id=session_id),
        ToolExecuteResultEvent(call=call, result=result, duration=1.5, session_id=session_id),
        ChatHistoryUpdatedEvent(length=2, session_id=session_id),
        SpanStartedEvent(name="work", session_id=session_id),
        SpanEndedEvent(span_id="s", name="work", error=failure, session_id=session_id),
        LogEvent(text="line\nbreak", attributes={"n": 1}, session_id=session_id),
        MetricEvent(name="m", value=float("inf"), session_id=session_id),
        CommandResultEvent(
            command=command,
            result=CommandResult(error=failure, status="error", duration=0.1),
            session_id=session_id,
        ),
        EventHandlerFailedEvent(
            event=LogEvent(text="x"), handler="m.f", error=failure, session_id=session_id
        ),
        _Strange(thing=_Hostile(), session_id=session_id),
        _Strange(thing=endless, session_id=session_id),
        _Strange(thing={1: "\ud800", ("a",): 10**5000}, session_id=session_id),
        SessionEndEvent(error=failure, session_id=session_id),
    ]


class ObservabilityHandlerSuite(ABC):
    """The conformance tests of `ObservabilityEventHandler`: subclass it and say how to make one."""

    @abstractmethod
    def make_handler(self) -> ObservabilityEventHandler:
        """Return a handler that nobody has started."""

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[ObservabilityClient]:
        client = ObservabilityClient([self.make_handler()])
        try:
            yield client
        finally:
            await client.stop()

    async def test_every_event_is_delivered(self) -> None:
        """No event that the spine or an application may publish is refused."""
        async with self._client() as client:
            events = [event for each in _IDS for event in sample_events(each)]
            for event in events:
                client.observe(event)
            report = await client.stop()
        (account,) = report.handlers
        assert (account.delivered, account.finished) == (len(events), True), str(report)

    async def test_events_come_from_any_thread(self) -> None:
        """Events of several threads all arrive, and the account adds up meanwhile."""
        async with self._client() as client:

            def emit() -> None:
                for number in range(_BURST):
                    client.log("info", f"number {number}")
                    assert client.report().handlers[0].balanced

            threads = [threading.Thread(target=emit) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            report = await client.stop()
        (account,) = report.handlers
        assert account.delivered == _BURST * _THREADS, str(report)

    async def test_observing_takes_no_time(self) -> None:
        """What a handler does inline is over at once: the application waits for it."""
        async with self._client() as client:
            events = sample_events()
            for event in events:
                began = time.thread_time()
                client.observe(event)
                assert time.thread_time() - began < _INLINE_SECONDS, type(event).__name__

    async def test_flush_brings_everything_on_its_way(self) -> None:
        """`flush` succeeds, and nothing is left waiting after it."""
        async with self._client() as client:
            for event in sample_events():
                client.observe(event)
            assert await client.flush(10)
            assert client.report().handlers[0].queued == 0

    async def test_stops_in_good_order(self) -> None:
        """`stop` ends within its limit, with or without events, and may come twice."""
        async with self._client() as client:
            report = await client.stop()
            assert report.handlers[0].finished
            client.log("info", "too late")
            assert (await client.stop()).handlers[0].stopped == 1

    async def test_works_without_start(self) -> None:
        """A handler that nobody flushed or fed can be stopped right after its start."""
        handler = self.make_handler()
        handler.start()
        handler.flush(1.0)
        handler.stop(1.0)

    async def test_starts_anew_after_a_stop(self) -> None:
        """One handler serves a second client once the first has stopped."""
        handler = self.make_handler()
        for _ in range(2):
            client = ObservabilityClient([handler])
            client.log("info", "again")
            report = await client.stop()
            assert report.handlers[0].delivered == 1, str(report)

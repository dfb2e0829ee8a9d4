"""The client: what goes in comes out or is counted, and no handler reaches the application."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from llmgine.contracts import (
    CommandStartedEvent,
    Event,
    LLMChunkEvent,
    LogEvent,
    MetricEvent,
    Publisher,
    ResolveToolApproval,
    SessionStartEvent,
    SpanEndedEvent,
    SpanStartedEvent,
    TextDelta,
)
from llmgine.errors import ConfigurationError
from llmgine.observability import HandlerReport, ObservabilityClient, ObservabilityEventHandler
from llmgine.settings import ObservabilitySettings
from llmgine.testing.observability_suite import ObservabilityHandlerSuite
from llmgine.testing.recording import RecordingHandler, RecordingPublisher

if TYPE_CHECKING:
    from _typeshed import TraceFunction

# What takes no time takes no longer than this on a busy machine; whoever waits waits longer.
_SLACK = 10.0
_LONG = 60.0


class Keeping(ObservabilityEventHandler):
    """Keeps what it handles, and notes the order of its calls."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())

    def start(self) -> None:
        self._note("start")

    def handle(self, event: Event) -> None:
        self._note("handle")
        self.events.append(event)

    def flush(self, timeout: float) -> None:
        self._note("flush")

    def stop(self, timeout: float) -> None:
        self._note("stop")


class Gated(Keeping):
    """Handles nothing while its gate is shut; `entered` tells that it waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def handle(self, event: Event) -> None:
        self.entered.set()
        self.gate.wait()
        super().handle(event)


class Raising(ObservabilityEventHandler):
    """Raises wherever it can."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def start(self) -> None:
        raise self.error("start")

    def handle(self, event: Event) -> None:
        raise self.error("handle")

    def flush(self, timeout: float) -> None:
        raise self.error("flush")

    def stop(self, timeout: float) -> None:
        raise self.error("stop")


def only(client: ObservabilityClient) -> HandlerReport:
    (account,) = client.report().handlers
    assert account.balanced
    return account


class TestKeeping(ObservabilityHandlerSuite):
    def make_handler(self) -> ObservabilityEventHandler:
        return Keeping()


class TestRecordingHandler(ObservabilityHandlerSuite):
    def make_handler(self) -> ObservabilityEventHandler:
        return RecordingHandler()


async def test_handlers_get_every_event_in_order_in_a_thread_of_their_own() -> None:
    first, second = Keeping(), Keeping()
    client = ObservabilityClient([first, second])
    for number in range(100):
        client.log("info", str(number))
    report = await client.stop()
    for handler in (first, second):
        texts = [event.text for event in handler.events if isinstance(event, LogEvent)]
        assert texts == [str(number) for number in range(100)]
        assert handler.calls == ["start", *["handle"] * 100, "flush", "stop"]
    assert len(first.threads | second.threads | {threading.get_ident()}) == 3
    assert [each.handler for each in report.handlers] == ["Keeping", "Keeping#2"]
    assert [each.delivered for each in report.handlers] == [100, 100]
    assert report.lost == 0


async def test_unobserved_classes_are_skipped() -> None:
    handler = RecordingHandler()
    client = ObservabilityClient([handler])
    client.observe(LLMChunkEvent(call_id="c", index=0, chunk=TextDelta(text="x")))
    report = await client.stop()
    assert handler.events == ()
    assert report.handlers[0].emitted == 0


async def test_without_handlers_nothing_happens() -> None:
    client = ObservabilityClient()
    client.log("info", "nobody listens")
    assert await client.flush()
    assert str(await client.stop()) == "no handlers"


async def test_log_metric_and_span_are_events() -> None:
    handler = RecordingHandler()
    client = ObservabilityClient([handler])
    client.log("warning", "slow", level="high", text="x")
    client.metric("queue", 3, "{event}", name="orders")
    with client.span("outer", name="x"):
        client.log("info", "inside")
        with pytest.raises(KeyError), client.span("inner"):
            raise KeyError("k")
    await client.stop()
    log, metric, outer, inside, inner, inner_end, outer_end = handler.events
    assert isinstance(log, LogEvent)
    assert (log.level, log.text) == ("warning", "slow")
    assert log.attributes == {"level": "high", "text": "x"}
    assert isinstance(metric, MetricEvent)
    assert (metric.name, metric.value, metric.unit) == ("queue", 3, "{event}")
    assert isinstance(outer, SpanStartedEvent)
    assert isinstance(inner, SpanStartedEvent)
    assert isinstance(inner_end, SpanEndedEvent)
    assert isinstance(outer_end, SpanEndedEvent)
    assert inside.parent_id == inner.parent_id == inner_end.parent_id == outer.id
    assert outer.parent_id is outer_end.parent_id is None
    assert inner_end.span_id == inner.id
    assert isinstance(inner_end.error, KeyError)
    assert outer_end.error is None
    assert outer_end.duration >= inner_end.duration >= 0
    assert outer_end.attributes == {"name": "x"}


async def test_a_span_in_an_abandoned_generator_ends_where_it_can() -> None:
    handler = RecordingHandler()
    client = ObservabilityClient([handler])

    def numbers() -> Generator[int]:
        with client.span("numbers"):
            yield 1

    held = numbers()
    next(held)
    await asyncio.to_thread(held.close)
    client.log("info", "after")
    await client.stop()
    kinds = [type(event) for event in handler.events]
    assert kinds == [SpanStartedEvent, SpanEndedEvent, LogEvent]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_raising_handler_is_counted_and_reported_sparsely(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    other = Keeping()
    client = ObservabilityClient([Raising(error), other])
    for _ in range(50):
        client.log("info", "x")
    assert not await client.flush()
    report = await client.stop()
    assert report.handlers[0].failed == 50
    assert report.handlers[0].balanced
    assert report.lost == 50
    assert len(other.events) == 50
    warnings = [each for each in caplog.records if "Raising failed to" in each.message]
    assert len(warnings) == 1
    assert error.__name__ in warnings[0].message


async def test_what_a_handler_raises_is_redacted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaking(ObservabilityEventHandler):
        def handle(self, event: Event) -> None:
            raise OSError("login failed: password=hunter2")

    client = ObservabilityClient([Leaking()])
    client.log("info", "x")
    await client.stop()
    assert "Leaking failed to handle" in caplog.text
    assert "hunter2" not in caplog.messages[0]


async def test_an_observer_sees_events_at_once_and_in_the_callers_context() -> None:
    seen: list[tuple[int, Event]] = []

    class Inline(Keeping):
        def observe(self, event: Event) -> None:
            seen.append((threading.get_ident(), event))

    client = ObservabilityClient([Inline()])
    event = SessionStartEvent()
    client.observe(event)
    assert seen == [(threading.get_ident(), event)]
    await client.stop()
    client.observe(event)
    assert len(seen) == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
async def test_a_raising_observer_reaches_nobody(error: type[BaseException]) -> None:
    class Inline(Keeping):
        def observe(self, event: Event) -> None:
            raise error("observe")

    handler = Inline()
    client = ObservabilityClient([handler])
    client.log("info", "x")
    report = await client.stop()
    assert len(handler.events) == 1
    assert report.lost == 0


async def test_ctrl_c_during_an_observer_is_the_applications() -> None:
    class Inline(Keeping):
        def observe(self, event: Event) -> None:
            raise KeyboardInterrupt

    client = ObservabilityClient([Inline()])
    with pytest.raises(KeyboardInterrupt):
        client.log("info", "x")
    await client.stop()


async def test_an_observer_that_emits_doesnt_observe_itself() -> None:
    class Chatty(Keeping):
        client: ObservabilityClient

        def observe(self, event: Event) -> None:
            self.client.log("info", "I saw it")

    handler = Chatty()
    handler.client = client = ObservabilityClient([handler])
    client.metric("m", 1)
    await client.stop()
    assert [type(event) for event in handler.events] == [LogEvent, MetricEvent]


async def test_a_full_buffer_drops_the_oldest_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Gated()
    client = ObservabilityClient([handler], ObservabilitySettings(buffer_size=10))
    client.log("info", "in hand")
    await asyncio.to_thread(handler.entered.wait)
    for number in range(100):
        client.log("info", str(number))
        assert only(client).queued <= 11
    assert only(client).overflowed == 90
    handler.gate.set()
    report = await client.stop()
    texts = [event.text for event in handler.events if isinstance(event, LogEvent)]
    assert texts == ["in hand", *map(str, range(90, 100))]
    assert report.handlers[0].delivered == 11
    assert sum("can't keep up" in each for each in caplog.messages) == 1


@pytest.mark.parametrize("limit", [0.0, 0.1])
async def test_stop_keeps_its_limit_whatever_a_handler_does(limit: float) -> None:
    hung, fine = Gated(), Keeping()
    client = ObservabilityClient([hung, fine], ObservabilitySettings(stop_timeout=_LONG))
    client.log("info", "in hand")
    await asyncio.to_thread(hung.entered.wait)
    client.log("info", "waits")
    client.log("info", "waits")
    assert await client.flush(0.01) is False
    began = time.monotonic()
    report = await client.stop(limit)
    assert time.monotonic() - began < _SLACK
    account = report.handlers[0]
    assert (account.unconfirmed, account.stopped, account.queued) == (1, 2, 0)
    assert account.balanced
    assert not account.finished
    hung.gate.set()
    for thread in threading.enumerate():
        if thread.name.endswith("Gated"):
            await asyncio.to_thread(thread.join)
    assert client.report().handlers[0] == account


async def test_stop_keeps_its_limit_when_stopping_hangs() -> None:
    released = threading.Event()

    class HangsAtTheEnd(Keeping):
        def stop(self, timeout: float) -> None:
            released.wait()

    client = ObservabilityClient([HangsAtTheEnd()], ObservabilitySettings(stop_timeout=_LONG))
    client.log("info", "x")
    assert await client.flush()
    began = time.monotonic()
    report = await client.stop(0.1)
    assert time.monotonic() - began < _SLACK
    assert report.handlers[0].delivered == 1
    assert not report.handlers[0].finished
    released.set()


async def test_nobody_waits_again_for_what_stop_gave_up() -> None:
    hung, fine = Gated(), Keeping()
    client = ObservabilityClient([hung, fine])
    client.log("info", "in hand")
    await asyncio.to_thread(hung.entered.wait)
    flushing = asyncio.create_task(client.flush(_LONG))
    await asyncio.sleep(0)
    given_up = await client.stop(0.01)
    async with asyncio.timeout(_LONG / 2):
        assert not await flushing
        assert not await client.flush(_LONG)
        assert await client.stop(_LONG) == given_up
    assert not given_up.handlers[0].finished
    hung.gate.set()


async def test_a_handler_that_fails_to_stop_has_not_finished() -> None:
    client = ObservabilityClient([Raising(ValueError), Keeping()])
    client.log("info", "x")
    report = await client.stop()
    assert [account.finished for account in report.handlers] == [False, True]


async def test_stop_does_not_hold_up_the_loop() -> None:
    hung = Gated()
    client = ObservabilityClient([hung])
    client.log("info", "x")
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(beat())
    await client.stop(0.1)
    task.cancel()
    assert beats > 1
    hung.gate.set()


async def test_events_after_stop_are_counted() -> None:
    client = ObservabilityClient([Keeping()])
    first = await client.stop()
    client.log("info", "late")
    again = await client.stop()
    assert first.handlers[0].emitted == 0
    assert again.handlers[0].stopped == 1
    assert again.handlers[0].balanced
    with pytest.raises(ConfigurationError):
        client.add_handler(Keeping())


def test_close_does_the_same_without_a_loop() -> None:
    handler = Keeping()
    client = ObservabilityClient([handler])
    client.log("info", "x")
    assert client.close().handlers[0].delivered == 1
    assert handler.calls == ["start", "handle", "flush", "stop"]


async def test_the_accounts_are_shown_at_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = ObservabilityClient([Keeping()])
    client.log("info", "x")
    await client.stop()
    assert "Keeping: 1 emitted = 1 delivered + 0 dropped" in caplog.messages[-1]
    assert caplog.records[-1].levelno == logging.INFO


async def test_adding_and_removing() -> None:
    first, second = Keeping(), Keeping()
    client = ObservabilityClient([first])
    client.log("info", "one")
    client.add_handler(second)
    with pytest.raises(ConfigurationError):
        client.add_handler(second)
    client.log("info", "two")
    account = await client.remove_handler(first)
    assert account.delivered == 2
    assert first.calls[-1] == "stop"
    client.log("info", "three")
    assert client.handlers == (second,)
    with pytest.raises(ConfigurationError):
        await client.remove_handler(first)
    report = await client.stop()
    assert [each.delivered for each in report.handlers] == [2]


async def test_flush_waits_for_what_came_before_it_only() -> None:
    handler = Gated()
    client = ObservabilityClient([handler])
    client.log("info", "before")
    await asyncio.to_thread(handler.entered.wait)
    flushing = asyncio.create_task(client.flush(10))
    await asyncio.sleep(0)
    handler.gate.set()
    assert await flushing
    assert handler.calls == ["start", "handle", "flush"]
    await client.stop()
    assert await client.flush()


async def test_a_cancelled_flush_leaves_the_worker_in_order() -> None:
    handler = Gated()
    client = ObservabilityClient([handler])
    client.log("info", "x")
    flushing = asyncio.create_task(client.flush(10))
    await asyncio.to_thread(handler.entered.wait)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    handler.gate.set()
    assert (await client.stop()).handlers[0].finished


@dataclass(frozen=True, kw_only=True)
class Order(Event):
    lines: list[str] = field(default_factory=list[str])
    prices: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    tags: set[str] = field(default_factory=set[str])
    raw: bytearray = field(default_factory=bytearray)


async def test_handlers_see_an_event_as_it_was_when_it_was_observed() -> None:
    handler = Gated()
    client = ObservabilityClient([handler])
    metadata = {"a": "1"}
    order = Order(metadata=metadata, lines=["tea"], prices={"tea": {"net": 1}})
    command = ResolveToolApproval(call_id="c", approved=True, metadata=metadata)
    client.observe(order)
    client.observe(CommandStartedEvent(command=command))
    metadata["b"] = "2"
    order.lines.append("milk")
    order.prices["tea"]["gross"] = 2
    order.tags.add("late")
    order.raw.append(1)
    handler.gate.set()
    await client.stop()
    seen, started = handler.events
    assert isinstance(seen, Order)
    assert (seen.id, seen.timestamp) == (order.id, order.timestamp)
    assert (seen.metadata, seen.lines, seen.prices) == ({"a": "1"}, ["tea"], {"tea": {"net": 1}})
    assert (seen.tags, seen.raw) == (set(), b"")
    assert isinstance(started, CommandStartedEvent)
    assert started.command.metadata == {"a": "1"}
    assert started.command.id == command.id


async def test_observing_a_mapping_that_another_thread_writes() -> None:
    client = ObservabilityClient([Keeping()])
    shared: dict[str, str] = {}
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            shared[str(number % 500)] = "x"
            if number % 700 == 0:
                shared.clear()
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(2000):
            client.observe(SessionStartEvent(metadata=shared))
    finally:
        done.set()
        thread.join()
    assert (await client.stop()).lost == 0


async def test_an_idle_client_keeps_no_event() -> None:
    class Forgetful(ObservabilityEventHandler):
        def handle(self, event: Event) -> None:
            raise ValueError("x")

    @dataclass(frozen=True, kw_only=True)
    class Big(Event):
        """An event whose end can be seen."""

        def __del__(self) -> None:
            gone.set()

    gone = threading.Event()
    client = ObservabilityClient([Forgetful()])
    client.observe(Big())
    await client.flush()
    gc.collect()
    assert gone.wait(_SLACK)
    await client.stop()


async def test_emitting_in_the_middle_of_emitting_does_not_lock_up() -> None:
    """As a finaliser or a signal handler may do; here a trace function, at every line."""
    client = ObservabilityClient([Keeping()])
    emitted = 0
    before = sys.gettrace()

    def trace(frame: FrameType, event: str, arg: object) -> TraceFunction | None:
        nonlocal emitted
        if emitted < 200:
            emitted += 1
            sys.settrace(None)
            client.log("info", "nested")
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        for _ in range(20):
            client.log("info", "outer")
    finally:
        sys.settrace(before)
    report = await client.stop()
    assert report.handlers[0].delivered == 20 + emitted


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_anew() -> None:
    handler = Gated()
    client = ObservabilityClient([handler])
    client.log("info", "parent's, in hand")
    handler.entered.wait()
    client.log("info", "parent's, waiting")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        handler.gate.set()
        handler.events.clear()
        before = client.report().handlers[0]
        client.log("info", "child's")
        report = client.close(5)
        texts = [event.text for event in handler.events if isinstance(event, LogEvent)]
        os.write(write, repr((before.emitted, report.handlers[0].delivered, texts)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode() == '(0, 1, ["child\'s"])'
    os.close(read)
    os.close(write)
    handler.gate.set()
    assert client.close().handlers[0].delivered == 2


async def test_no_more_threads_costs_only_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        client = ObservabilityClient([Keeping()])
        client.log("info", "x")
    assert only(client).queued == 1
    report = await client.stop()
    assert report.handlers[0].stopped == 1
    assert report.handlers[0].balanced


async def test_the_doubles_keep_what_they_are_given() -> None:
    handler, publisher = RecordingHandler(limit=2), RecordingPublisher(limit=2)
    client = ObservabilityClient([handler])
    events = [SessionStartEvent(), LogEvent(text="x"), SessionStartEvent()]
    for event in events:
        client.observe(event)
        await publisher.publish(event)
    await client.stop()
    assert handler.events == publisher.events == tuple(events[1:])
    assert handler.of(LogEvent) == publisher.of(LogEvent) == (events[1],)
    assert (handler.started, handler.handled, handler.stopped) == (1, 3, 1)
    handler.clear()
    publisher.clear()
    assert handler.events == publisher.events == ()
    assert isinstance(publisher, Publisher)
    with pytest.raises(OSError, match="full"):
        await RecordingPublisher(OSError("full")).publish(events[0])


class Accounts(RuleBasedStateMachine):
    """Whatever happens in whatever order, each account adds up after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.gated = Gated()
        self.client = ObservabilityClient(
            [self.gated, Raising(ValueError), RecordingHandler()],
            ObservabilitySettings(buffer_size=5),
        )
        self.emitted = 0

    @rule(number=st.integers(1, 8))
    def emit(self, number: int) -> None:
        for _ in range(number):
            self.client.log("info", "x")
        self.emitted += number

    @rule(number=st.integers(1, 8))
    def emit_in_a_thread(self, number: int) -> None:
        thread = threading.Thread(target=self.emit, args=(number,))
        thread.start()
        thread.join()

    @rule()
    def shut(self) -> None:
        self.gated.gate.clear()

    @rule()
    def open(self) -> None:
        self.gated.gate.set()

    @rule()
    def flush(self) -> None:
        self.loop.run_until_complete(self.client.flush(0.001))

    @rule()
    def stop(self) -> None:
        self.loop.run_until_complete(self.client.stop(0.001))

    @invariant()
    def adds_up(self) -> None:
        for account in self.client.report().handlers:
            assert account.balanced, str(account)
            assert account.emitted == self.emitted

    def teardown(self) -> None:
        self.gated.gate.set()
        report = self.client.close()
        assert all(account.queued == 0 and account.balanced for account in report.handlers)
        self.loop.close()


Accounts.TestCase.settings = settings(max_examples=15, stateful_step_count=20)
TestAccounts = Accounts.TestCase


async def test_an_observer_may_deal_with_an_event_alone() -> None:
    class Choosy(ObservabilityEventHandler):
        def __init__(self) -> None:
            self.observed: list[Event] = []
            self.handled: list[Event] = []

        def observe(self, event: Event) -> bool:
            self.observed.append(event)
            return isinstance(event, MetricEvent)

        def handle(self, event: Event) -> None:
            self.handled.append(event)

    handler, other = Choosy(), Keeping()
    client = ObservabilityClient([handler, other])
    for number in range(50):
        client.metric("m", number)
        client.log("info", f"number {number}")
        assert client.report().handlers[0].balanced
    assert await client.flush(10)
    assert len(handler.observed) == 100
    assert {type(event) for event in handler.handled} == {LogEvent}
    assert len(handler.handled) == 50
    report = await client.stop(10)
    assert [account.delivered for account in report.handlers] == [100, 100]


async def test_a_handlers_own_accounts_stand_behind_its_report() -> None:
    class Sending(Keeping):
        def accounts(self) -> tuple[HandlerReport, ...]:
            return (HandlerReport(handler="backend", emitted=3, delivered=1, failed=2),)

    client = ObservabilityClient([Sending()])
    report = await client.stop(10)
    assert [account.handler for account in report.handlers] == ["Sending", "backend"]
    assert report.lost == 2

"""Traces come out right: spans opened by an observer have the parents that the code suggests."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextvars import Token
from dataclasses import dataclass

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import (
    Command,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    Message,
    current_session_id,
)
from llmgine.contracts.protocols import CallNext
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    name: str
    ask: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    name: str


class Spans:
    """Opens a span for each command, as an observer, and for each event, as middleware."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")
        self.open: dict[str, tuple[trace.Span, Token[Context]]] = {}

    def observe(self, event: Event) -> None:
        if isinstance(event, CommandStartedEvent):
            assert isinstance(event.command, Ask)
            span = self.tracer.start_span(event.command.name)
            token = otel_context.attach(trace.set_span_in_context(span))
            self.open[event.command.id] = (span, token)
        if isinstance(event, CommandResultEvent):
            span, token = self.open.pop(event.command.id)
            otel_context.detach(token)
            span.end()

    async def around_events(self, message: Message, call_next: CallNext) -> object:
        if not isinstance(message, Step):
            return await call_next(message)
        with self.tracer.start_as_current_span(message.name):
            return await call_next(message)

    @property
    def finished(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def parents(self) -> dict[str, str | None]:
        names = {span.context.span_id: span.name for span in self.finished if span.context}
        return {
            span.name: names[span.parent.span_id] if span.parent else None for span in self.finished
        }


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def traced(spans: Spans) -> Generator[MessageBus]:
    bus = MessageBus.isolated()
    bus.add_observer(spans.observe)
    bus.add_middleware(spans.around_events)

    async def answer(command: Ask) -> str:
        await asyncio.sleep(0)
        for name in command.ask:
            await bus.execute(Ask(name=name))
        return command.name

    bus.register_command_handler(Ask, answer)
    yield bus
    assert spans.open == {}
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_nested_commands_have_their_callers_span_as_parent(
    traced: MessageBus, spans: Spans
) -> None:
    async with traced:
        with spans.tracer.start_as_current_span("request"):
            await traced.execute(Ask(name="outer", ask=("inner 1", "inner 2")))
        await traced.execute(Ask(name="alone"))
    assert spans.parents() == {
        "inner 1": "outer",
        "inner 2": "outer",
        "outer": "request",
        "request": None,
        "alone": None,
    }


async def test_a_queued_event_carries_its_publishers_span(traced: MessageBus, spans: Spans) -> None:
    async def on_step(event: Step) -> None:
        await asyncio.sleep(0)
        await traced.execute(Ask(name=f"in {event.name}"))

    async with traced:
        traced.register_event_handler(Step, on_step)
        for name in ("a", "b"):
            with spans.tracer.start_as_current_span(f"publisher {name}"):
                await traced.publish(Step(name=f"step {name}"))
        await traced.publish(Step(name="step without"))
        await traced.join()
    assert spans.parents() == {
        "publisher a": None,
        "publisher b": None,
        "step a": "publisher a",
        "in step a": "step a",
        "step b": "publisher b",
        "in step b": "step b",
        "step without": None,
        "in step without": "step without",
    }


async def test_threads_and_concurrent_handlers_stay_under_their_event(
    traced: MessageBus, spans: Spans
) -> None:
    def in_thread(event: Step) -> None:
        with spans.tracer.start_as_current_span(f"thread {event.name}"):
            pass

    async def concurrent(event: Step) -> None:
        with spans.tracer.start_as_current_span(f"concurrent {event.name}"):
            await asyncio.sleep(0.001)

    async with traced:
        traced.register_event_handler(Step, concurrent, concurrent=True)
        traced.register_event_handler(Step, in_thread)
        for name in ("a", "b", "c"):
            with spans.tracer.start_as_current_span(f"publisher {name}"):
                await traced.publish(Step(name=name))
    found = spans.parents()
    for name in ("a", "b", "c"):
        assert found[f"thread {name}"] == found[f"concurrent {name}"] == name
        assert found[name] == f"publisher {name}"


async def test_publish_threadsafe_carries_the_threads_span(
    traced: MessageBus, spans: Spans
) -> None:
    def elsewhere() -> None:
        with spans.tracer.start_as_current_span("thread"):
            traced.publish_threadsafe(Step(name="step")).result(2)

    async with traced:
        traced.register_event_handler(Step, str)
        await asyncio.to_thread(elsewhere)
        await traced.join()
    assert spans.parents()["step"] == "thread"


async def test_a_scheduled_event_carries_its_publishers_span(
    traced: MessageBus, spans: Spans
) -> None:
    arrived = asyncio.Event()

    async def on_step(event: Step) -> None:
        arrived.set()

    async with traced:
        traced.register_event_handler(Step, on_step)
        with spans.tracer.start_as_current_span("scheduler"):
            traced.schedule(Step(name="later"), after=0.001)
        await arrived.wait()
    assert spans.parents()["later"] == "scheduler"


async def test_fifty_sessions_at_once_keep_their_traces_apart(
    traced: MessageBus, spans: Spans
) -> None:
    async def on_step(event: Step) -> None:
        await asyncio.sleep(0)
        assert current_session_id() == event.session_id
        await traced.execute(Ask(name=f"command in {event.name}"))

    async def converse(number: int) -> None:
        with spans.tracer.start_as_current_span(f"root {number}"):
            async with traced.session(f"s{number}") as session:
                session.register_event_handler(Step, on_step)
                await session.execute(Ask(name=f"turn {number}", ask=(f"nested {number}",)))
                await session.publish(Step(name=f"step {number}"))

    async with traced:
        await asyncio.gather(*(converse(number) for number in range(50)))
    expected: dict[str, str | None] = {}
    for number in range(50):
        expected |= {
            f"root {number}": None,
            f"turn {number}": f"root {number}",
            f"nested {number}": f"turn {number}",
            f"step {number}": f"root {number}",
            f"command in step {number}": f"step {number}",
        }
    assert spans.parents() == expected
    assert len({span.context.trace_id for span in spans.finished if span.context}) == 50

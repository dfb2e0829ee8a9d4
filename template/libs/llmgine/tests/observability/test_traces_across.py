"""Traces that go on in another process: what is carried there, and what joins them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import MessageBus
from llmgine.contracts import Command, Event
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.otel import OpenTelemetryEventHandler, Providers
from llmgine.settings import OtelSettings
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@dataclass(frozen=True, kw_only=True)
class Ship(Command[str]):
    order: str = "o-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped(Event):
    order: str = "o-1"


class Process:
    """What one process has: a bus, a client, and the spans that it would send."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = traces.get_tracer("application")
        settings = OtelSettings(metrics=False, logs=False)
        handler = OpenTelemetryEventHandler(settings, Providers(traces=traces))
        self.client = ObservabilityClient([handler])
        self.bus = MessageBus.isolated()
        self.bus.add_observer(self.client.observe)

    def span(self, name: str) -> ReadableSpan:
        (found,) = (each for each in self._exporter.get_finished_spans() if each.name == name)
        return found


def _place(span: ReadableSpan) -> tuple[str, str | None]:
    """A span's trace, and its parent."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return f"{span.context.trace_id:032x}", parent


async def test_a_traced_message_has_the_current_span_and_stays_itself() -> None:
    process = Process()
    sent: list[Ship] = []

    async def ship(command: Ship) -> str:
        sent.append(process.client.traced(Ship(metadata={"tenant": "t-1"})))
        return command.order

    process.bus.register_command_handler(Ship, ship)
    async with process.bus:
        await process.bus.execute(Ship())
    span = process.span("process Ship").context
    assert span is not None
    carried = dict(sent[0].metadata)
    version, trace_id, span_id, flags = carried.pop("traceparent").split("-")
    assert (version, trace_id, span_id) == ("00", f"{span.trace_id:032x}", f"{span.span_id:016x}")
    assert int(flags, 16) & 1, "sampled"
    assert carried == {"tenant": "t-1"}
    assert process.client.carrier() == {}, "the span is over"
    await process.client.stop(10)


@pytest.mark.parametrize("kind", [Ship, Shipped])
def test_the_copy_has_the_same_id_time_and_fields(kind: type[Ship | Shipped]) -> None:
    client = Process().client
    message = kind(order="o-2", session_id="s-1", parent_id="p-1", metadata={"traceparent": "old"})
    with client.joined({"traceparent": TRACEPARENT}):
        copy = client.traced(message)
    assert type(copy) is kind
    for name in ("id", "timestamp", "session_id", "parent_id", "order"):
        assert getattr(copy, name) == getattr(message, name)
    assert copy.metadata == {"traceparent": TRACEPARENT}
    assert message.metadata == {"traceparent": "old"}
    client.close(5)


async def test_without_a_trace_or_a_handler_nothing_is_carried() -> None:
    message = Ship()
    for client in (Process().client, ObservabilityClient()):
        assert client.traced(message) is message
        with client.joined({"traceparent": TRACEPARENT}) as nothing:
            assert nothing is None
        assert client.carrier() == {}
        await client.stop(5)


async def test_handlers_of_an_event_from_elsewhere_join_its_trace() -> None:
    process = Process()

    async def ship(command: Ship) -> str:
        return command.order

    async def on_shipped(event: Shipped) -> None:
        await process.bus.execute(Ship(order=event.order))

    process.bus.register_command_handler(Ship, ship)
    process.bus.register_event_handler(Shipped, on_shipped)
    event = Shipped(metadata={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    async with process.bus:
        with process.client.span("receiving"), process.client.joined(event.metadata):
            assert process.client.carrier() == dict(event.metadata)
            await process.bus.publish(event)
        with process.client.span("after"):
            pass
        await process.bus.join()
    await process.client.stop(10)
    assert _place(process.span("process Ship")) == (TRACE, SPAN)
    assert _place(process.span("receiving"))[0] != TRACE
    assert _place(process.span("after"))[0] != TRACE
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_what_is_measured_within_a_span_joins_too() -> None:
    process = Process()
    client = process.client
    with client.span("request"):
        joined = client.joined({"traceparent": TRACEPARENT})
        with joined, client.span("joined"), client.span("inner"):
            pass
        with client.joined({"traceparent": "no trace"}), client.span("not joined"):
            pass
        with client.span("afterwards"):
            pass
    await client.stop(10)
    assert _place(process.span("joined")) == (TRACE, SPAN)
    assert _place(process.span("inner"))[0] == TRACE
    trace_id, _ = _place(process.span("request"))
    assert trace_id != TRACE
    assert _place(process.span("not joined"))[0] == trace_id
    assert _place(process.span("afterwards"))[0] == trace_id


async def test_spans_of_other_libraries_are_carried_and_join() -> None:
    process = Process()
    with process.tracer.start_as_current_span("request") as span:
        carried = process.client.carrier()
        assert f"{span.get_span_context().span_id:016x}" in carried["traceparent"]
    with process.client.joined(carried), process.tracer.start_as_current_span("answer"):
        pass
    trace_id, _ = _place(process.span("request"))
    assert _place(process.span("answer")) == (trace_id, f"{span.get_span_context().span_id:016x}")
    await process.client.stop(10)


@given(
    st.dictionaries(
        st.sampled_from(["traceparent", "tracestate", "other"]), st.text(max_size=80), max_size=3
    )
)
def test_what_is_no_trace_is_joined_by_nobody(metadata: dict[str, str]) -> None:
    client = ObservabilityClient([OpenTelemetryEventHandler(OtelSettings(logs=False))])
    with client.joined(metadata):
        assert client.carrier() == {}
    client.close(5)


class _Heard(logging.Handler):
    """Keeps what is logged, from whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: Queue[str] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put(record.getMessage())


async def test_a_handler_that_fails_at_it_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = _Heard()
    monkeypatch.setattr(logging.getLogger("llmgine.observability"), "handlers", [heard])

    class Failing(ObservabilityEventHandler):
        def handle(self, event: Event) -> None:
            del event

        def carry(self) -> Mapping[str, str]:
            raise SystemExit(3)

        def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
            raise ValueError(carried)

    process = Process()
    process.client.add_handler(Failing())
    with process.client.joined({"traceparent": TRACEPARENT}):
        assert process.client.carrier() == {"traceparent": TRACEPARENT}
    report = await process.client.stop(10)
    assert report.lost == 0
    assert "Failing failed to follow a trace" in await asyncio.to_thread(
        heard.texts.get, timeout=20
    )


PROGRAM = """
import asyncio, json, sys
from dataclasses import dataclass

from llmgine.bootstrap import ApplicationBootstrap
from llmgine.contracts import Command
from llmgine.contracts.codec import decode, encode, register
from llmgine.observability.otel import OpenTelemetryEventHandler, Providers
from llmgine.testing.fixtures import quiet_config
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@register
@dataclass(frozen=True, kw_only=True)
class Order(Command[str]):
    item: str


@register
@dataclass(frozen=True, kw_only=True)
class Ship(Command[str]):
    item: str


async def main():
    spans, traces, sent = InMemorySpanExporter(), TracerProvider(), []
    traces.add_span_processor(SimpleSpanProcessor(spans))
    handler = OpenTelemetryEventHandler(providers=Providers(traces=traces))
    app = ApplicationBootstrap(quiet_config(), handlers=[handler])

    async def order(command: Order) -> str:
        data = encode(app.observability.traced(Ship(item=command.item)))
        sent.append(data.decode())
        return "sent"

    async def ship(command: Ship) -> str:
        return command.item

    async with app:
        app.bus.register_command_handler(Order, order)
        app.bus.register_command_handler(Ship, ship)
        if sys.argv[1] == "here":
            await app.bus.execute(Order(item="tea"))
        else:
            await app.bus.execute(decode(sys.stdin.buffer.read()))
    (span,) = spans.get_finished_spans()
    parent = span.parent and span.parent.span_id
    ids = [span.name, span.context.trace_id, span.context.span_id, parent]
    print(json.dumps([ids, *sent]))


asyncio.run(main())
"""


async def test_a_command_joins_the_trace_of_the_process_that_sent_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")

    def run(where: str, given: str = "") -> list[object]:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, str(program), where],
            input=given,
            capture_output=True,
            check=False,
            cwd=tmp_path,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (ordered, message) = await asyncio.to_thread(run, "here")
    (shipped,) = await asyncio.to_thread(run, "there", str(message))
    assert isinstance(ordered, list)
    assert isinstance(shipped, list)
    assert (ordered[0], shipped[0]) == ("process Order", "process Ship")
    assert shipped[1] == ordered[1], "one trace"
    assert shipped[3] == ordered[2], "the sender's span is the parent"
    assert ordered[3] is None

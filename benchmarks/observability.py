"""What writing an event down costs, against a bare OpenTelemetry span in the same run.

    python benchmarks/observability.py [--json] [--rounds N]

The span has eight attributes and goes through a BatchSpanProcessor to an exporter that does
nothing. The event is an application's own, with as much to say. All cases take turns within each
round and the best round counts, so that a busy machine changes the ratios little. `caller` is the
CPU time of the thread that emits, `total` that of all threads until everything is written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from threading import Thread

from llmgine.contracts import (
    Command,
    CommandResult,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
)
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.console import ConsoleEventHandler
from llmgine.observability.jsonl import FileEventHandler
from llmgine.observability.otel import OpenTelemetryEventHandler, Providers, build
from llmgine.observability.redaction import may_hold_secret
from llmgine.settings import ConsoleSettings, FileSettings, ObservabilitySettings, OtelSettings
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["main"]

_EVENTS = 2000
_ATTRIBUTES: dict[str, str | int | float | bool] = {
    "operation": "chat",
    "model": "a-model-of-2026",
    "input_tokens": 812,
    "output_tokens": 164,
    "temperature": 0.7,
    "stream": True,
    "user": "somebody",
    "path": "/v1/chat/completions",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered(Event):
    """An application's event, with the same to say as the span."""

    operation: str
    model: str
    input_tokens: int
    output_tokens: int
    temperature: float
    stream: bool
    user: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask(Command[str]):
    """A command."""

    name: str = "a name"


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: its row.
        emit: what is called again and again.
        settle: what waits until all of it is written.
        limit: the highest total, or for a command the highest for its caller, in bare spans.
    """

    name: str
    emit: Callable[[], object]
    settle: Callable[[], object]
    limit: float | None = None


@dataclass
class Result:
    """The best of all rounds, in nanoseconds of CPU for one event."""

    caller: float = float("inf")
    total: float = float("inf")


class _NoExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def _event(user: str = "somebody") -> Answered:
    return Answered(
        operation="chat",
        model="a-model-of-2026",
        input_tokens=812,
        output_tokens=164,
        temperature=0.7,
        stream=True,
        user=user,
        path="/v1/chat/completions",
    )


def _nothing() -> None:
    pass


def _span_case() -> Case:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_NoExporter(), max_queue_size=4 * _EVENTS))
    tracer = provider.get_tracer("benchmark")

    def span() -> None:
        with tracer.start_as_current_span("chat", attributes=_ATTRIBUTES):
            pass

    return Case("bare span, 8 attributes", span, provider.force_flush)


def _client_case(
    name: str, handlers: list[ObservabilityEventHandler], limit: float | None = None
) -> Case:
    client = ObservabilityClient(handlers, ObservabilitySettings(buffer_size=2 * _EVENTS))
    event = _event()
    loop = asyncio.new_event_loop()
    return Case(
        name,
        lambda: client.observe(event),
        lambda: loop.run_until_complete(client.flush(60)),
        limit,
    )


def _handler_case(name: str, handler: ObservabilityEventHandler, limit: float) -> Case:
    event = _event()
    handler.start()
    return Case(name, lambda: handler.handle(event), _nothing, limit)


def _changing_case(name: str, handler: ObservabilityEventHandler) -> Case:
    events = cycle([_event(f"somebody else, number {number}") for number in range(3 * _EVENTS)])
    handler.start()
    return Case(name, lambda: handler.handle(next(events)), _nothing)


def _command_case(
    name: str,
    handlers: list[ObservabilityEventHandler],
    limit: float | None,
    settle: Callable[[], object] | None = None,
) -> Case:
    client = ObservabilityClient(handlers, ObservabilitySettings(buffer_size=4 * _EVENTS))
    command = _Ask(session_id="a-session")
    started = CommandStartedEvent(command=command, session_id="a-session")
    result = CommandResult(value="an answer", duration=0.1)
    ended = CommandResultEvent(command=command, result=result, session_id="a-session")
    loop = asyncio.new_event_loop()

    def execute() -> None:
        client.observe(started)
        client.observe(ended)

    return Case(name, execute, settle or (lambda: loop.run_until_complete(client.flush(60))), limit)


def _otel(*, metrics: bool) -> OpenTelemetryEventHandler:
    """Return a handler whose spans go the way of the bare span's."""
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(_NoExporter(), max_queue_size=4 * _EVENTS))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    return OpenTelemetryEventHandler(
        OtelSettings(metrics=metrics), Providers(traces=traces, metrics=meters)
    )


class _Receiver(BaseHTTPRequestHandler):
    """A backend that takes everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _sending(port: int) -> OpenTelemetryEventHandler:
    endpoint = f"http://127.0.0.1:{port}"
    return build(OtelSettings(endpoint=endpoint, metrics=False, logs=False, delay=60.0))


def _backend_cases(stack: ExitStack) -> list[Case]:
    """Return the same with a backend on loopback, and with one that never answers."""
    healthy = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Receiver))
    Thread(target=healthy.serve_forever, daemon=True).start()
    stack.callback(healthy.shutdown)
    stuck = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port: int = stuck.getsockname()[1]
    return [
        _command_case("... to a live backend", [_sending(healthy.server_port)], None),
        _command_case("... to a stuck one", [_sending(port)], None, _nothing),
    ]


def _cases(folder: Path) -> list[Case]:
    devnull = Path("/dev/null").open("w", encoding="utf-8")  # noqa: SIM115 - until the end

    def console() -> ConsoleEventHandler:
        return ConsoleEventHandler(ConsoleSettings(colour="always"), devnull)

    def file(name: str) -> FileEventHandler:
        return FileEventHandler(FileSettings(path=folder / name))

    text = "\n".join(str(value) for value in _ATTRIBUTES.values())
    return [
        _span_case(),
        Case("build the event", _event, _nothing),
        Case("search for secrets", lambda: may_hold_secret(text), _nothing, 0.15),
        _client_case("client, no handler", [], 0.02),
        _handler_case("event file: a line", file("line.jsonl"), 0.25),
        _changing_case("... with new texts", file("new.jsonl")),
        _handler_case("console: a line", console(), 0.3),
        _client_case("client + event file", [file("one.jsonl")]),
        _client_case("client + console", [console()]),
        _client_case("client + both", [console(), file("two.jsonl")]),
        _command_case("OpenTelemetry: a command", [_otel(metrics=False)], 1.5),
        _command_case("... with metrics", [_otel(metrics=True)], 2.0),
        _command_case(
            "... with console and file",
            [_otel(metrics=True), console(), file("three.jsonl")],
            3.0,
        ),
    ]


def _measure(case: Case, result: Result) -> None:
    emit = case.emit
    total, caller = time.process_time_ns(), time.thread_time_ns()
    for _ in range(_EVENTS):
        emit()
    result.caller = min(result.caller, (time.thread_time_ns() - caller) / _EVENTS)
    case.settle()
    result.total = min(result.total, (time.process_time_ns() - total) / _EVENTS)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=15, help="how often each case runs")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cases = _cases(Path(folder)) + _backend_cases(stack)
        results = [Result() for _ in cases]
        for _ in range(options.rounds):
            for case, result in zip(cases, results, strict=True):
                _measure(case, result)
    floor = results[0]
    rows = [
        {
            "case": case.name,
            "caller_ns": round(result.caller),
            "caller": round(result.caller / floor.caller, 3),
            "total_ns": round(result.total),
            "total": round(result.total / floor.caller, 3),
            "limit": case.limit,
        }
        for case, result in zip(cases, results, strict=True)
    ]
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    sys.stdout.write(f"{'case':26}{'caller':>9}{'total':>9}{'limit':>7}   in bare spans\n")
    for row in rows:
        limit = "" if row["limit"] is None else row["limit"]
        sys.stdout.write(f"{row['case']:26}{row['caller']:9.3f}{row['total']:9.3f}{limit:>7}\n")


if __name__ == "__main__":
    main()

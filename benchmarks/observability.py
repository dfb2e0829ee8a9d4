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
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from llmgine.contracts import Event
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.console import ConsoleEventHandler
from llmgine.observability.jsonl import FileEventHandler
from llmgine.observability.redaction import may_hold_secret
from llmgine.settings import ConsoleSettings, FileSettings, ObservabilitySettings
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


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: its row.
        emit: what is called again and again.
        settle: what waits until all of it is written.
        limit: the highest total, in bare spans, that DESIGN allows.
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
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder))
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

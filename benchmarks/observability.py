# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "llmgine[jsonl,otel]",
#   "logfire>=5.2,<6",
#   "structlog>=26.1",
# ]
#
# [tool.uv.sources]
# llmgine = { path = "../template/libs/llmgine", editable = true }
# ///
"""What writing down costs who does it, beside other libraries and a bare OpenTelemetry span.

    uv run benchmarks/observability.py [--quick] [--rounds N] [--json FILE] [--readme]

Everyone has the same eight things to say. All share one environment and one process; they take
turns, and the best round counts, so that a busy machine changes the ratios little. Counted is the
CPU time of the thread that emits; what others do behind it is waited for, and every span and line
is counted: one that is missing is the one thing that fails. The last row compares a command whose
backend doesn't answer with one whose backend does, in pairs that take turns.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from llmgine.settings import ConsoleSettings, FileSettings, ObservabilitySettings, OtelSettings
from observability_peers import EVENTS, PEERS, Case, CountingExporter, bare, batched
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from peers import version
from reports import Report, Row, report_on

__all__ = ["main"]

_OURS, _BARE = "llmgine", "bare span"
_HEALTHY = "healthy backend"
_PAIRS = 30
_ROWS = (
    Row("nobody", "an event that nobody watches", _BARE, 0.02),
    Row("command", "a command as a span", _BARE, 1.5),
    Row("metrics", "... with metrics", _BARE, 2.0),
    Row("all", "... with console and event file", _BARE, 3.0),
    Row("file", "an event as a line of JSON in a file", _BARE, 0.25),
    Row("console", "an event as a line on the console", _BARE, 0.3),
    Row("stuck", "a command while the backend is stuck", _HEALTHY, 1.05),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered(Event):
    """An application's event, with the same to say as the others."""

    operation: str = "chat"
    model: str = "a-model-of-2026"
    input_tokens: int = 812
    output_tokens: int = 164
    temperature: float = 0.7
    stream: bool = True
    user: str = "somebody"
    path: str = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask(Command[str]):
    """A command."""

    name: str = "a name"


def _client(handlers: Iterable[ObservabilityEventHandler]) -> ObservabilityClient:
    return ObservabilityClient(handlers, ObservabilitySettings(buffer_size=4 * EVENTS))


def _execute(client: ObservabilityClient) -> Callable[[], object]:
    """Return what observes a command's start and result."""
    command = _Ask(session_id="a-session")
    started = CommandStartedEvent(command=command, session_id="a-session")
    result = CommandResult(value="an answer", duration=0.1)
    ended = CommandResultEvent(command=command, result=result, session_id="a-session")

    def execute() -> None:
        client.observe(started)
        client.observe(ended)

    return execute


def _command(
    row: str, loop: asyncio.AbstractEventLoop, *others: ObservabilityEventHandler, metrics: bool
) -> Case:
    """Return a command whose spans go the way of the bare span."""
    exporter, traces = CountingExporter(), TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(batched(exporter))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    settings, providers = OtelSettings(metrics=metrics), Providers(traces=traces, metrics=meters)
    client = _client([OpenTelemetryEventHandler(settings, providers), *others])

    def settle() -> None:
        loop.run_until_complete(client.flush(60))
        traces.force_flush()

    return Case(row, _OURS, _execute(client), lambda: exporter.count, settle)


def _ours(folder: Path, stack: ExitStack) -> list[Case]:
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    devnull = Path("/dev/null").open("w", encoding="utf-8")  # noqa: SIM115 - the stack's
    stack.enter_context(devnull)

    def console() -> ConsoleEventHandler:
        return ConsoleEventHandler(ConsoleSettings(colour="always"), devnull)

    event, nobody, path = Answered(), _client([]), folder / "events.jsonl"
    written, shown = FileEventHandler(FileSettings(path=path)), console()
    written.start()
    both = [console(), FileEventHandler(FileSettings(path=folder / "all.jsonl"))]
    return [
        Case("nobody", _OURS, lambda: nobody.observe(event)),
        _command("command", loop, metrics=False),
        _command("metrics", loop, metrics=True),
        _command("all", loop, *both, metrics=True),
        Case("file", _OURS, lambda: written.handle(event), lambda: path.read_bytes().count(b"\n")),
        Case("console", _OURS, lambda: shown.handle(event)),
    ]


def _measure_once(case: Case, events: int) -> float:
    """Do it so often, and return the nanoseconds of one; what runs behind is waited for."""
    emit = case.emit
    gc.disable()
    began = time.thread_time_ns()
    for _ in range(events):
        emit()
    took = (time.thread_time_ns() - began) / events
    gc.enable()
    case.settle()
    case.done += events
    case.best = min(case.best, took)
    return took


# -- A backend that is stuck


class _Receiver(BaseHTTPRequestHandler):
    """A backend that takes everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _sending(port: int, stack: ExitStack) -> ObservabilityClient:
    endpoint = f"http://127.0.0.1:{port}"
    client = _client([build(OtelSettings(endpoint=endpoint, metrics=False, logs=False))])
    stack.callback(client.close, 0.1)
    return client


def _backends(stack: ExitStack) -> tuple[Case, Case]:
    """Return a command with a backend on loopback, and one with a backend that never answers."""
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Receiver))
    Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    healthy, stuck = _sending(server.server_port, stack), _sending(mute.getsockname()[1], stack)
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)

    def settle() -> None:
        loop.run_until_complete(healthy.flush(60))

    return (
        Case("stuck", "healthy", _execute(healthy), settle=settle),
        Case("stuck", "stuck", _execute(stuck)),
    )


def _pairs(events: int, pairs: int) -> list[float]:
    """Return the ratios of pairs, in order; in every other one the stuck backend comes first."""
    ratios: list[float] = []
    logging.getLogger("llmgine.observability").disabled = True  # what is lost is meant to be
    with ExitStack() as stack:
        healthy, stuck = _backends(stack)
        for number in range(-2, pairs):  # two to warm up, and to fill the stuck one's queue
            order = (healthy, stuck) if number % 2 else (stuck, healthy)
            took = {case.name: _measure_once(case, events) for case in order}
            if number >= 0:
                ratios.append(took["stuck"] / took["healthy"])
    return sorted(ratios)


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return where the median is with 95 per cent confidence, by the order of the values."""
    count = len(ratios)
    low = max(0, int((count - 1.96 * count**0.5) / 2))
    return ratios[low], ratios[count - 1 - low]


# -- The report


def _figures(cases: Iterable[Case], floor: float) -> dict[tuple[str, str], float]:
    return {(case.row, case.name): case.best / floor for case in cases}


def _wrong(cases: Iterable[Case]) -> list[str]:
    return [
        f"{case.row}, {case.name}: {case.delivered()} came through, {case.done} were expected"
        for case in cases
        if case.delivered is not None and case.delivered() != case.done
    ]


def _notes(
    rounds: int, floor: float, ratios: Sequence[float], versions: Mapping[str, str | None]
) -> list[str]:
    low, high = _interval(ratios)
    found = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    missing = ", ".join(name for name, number in versions.items() if not number)
    notes = [
        f"CPU time of the emitting thread; best of {rounds} rounds, taking turns, in one process.",
        f"A bare span, with 8 attributes, through the batch processor: {floor / 1000:.1f} us.",
        f"Stuck: the median of {len(ratios)} pairs, between {low:.2f} and {high:.2f} (95 %).",
    ]
    if found:
        notes.append(f"Beside it: {found}, and Python's own logging, writing JSON.")
    if missing:
        notes.append(f"Not installed, so not measured: {missing}.")
    return notes


async def _measure(rounds: int, quick: bool) -> Report:
    return await asyncio.to_thread(_measure_all, rounds, quick)


def _measure_all(rounds: int, quick: bool) -> Report:
    events, pairs = (20, 4) if quick else (EVENTS, _PAIRS)
    versions = {name: version(name) for name in PEERS if name != "logging"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cases = [bare(), *_ours(folder, stack)]
        for name, cases_of in PEERS.items():
            if versions.get(name, "") is not None:
                cases += cases_of(folder)
        for _ in range(rounds):
            for case in cases:
                _measure_once(case, events)
        wrong = _wrong(cases)
    floor, ratios = cases[0].best, _pairs(events, pairs)
    figures = _figures(cases, floor) | {("stuck", _OURS): statistics.median(ratios)}
    return Report(
        rows=_ROWS,
        names=[_OURS, _BARE, *(name for name in PEERS if versions.get(name, "") is not None)],
        own=[_OURS],
        figures=figures,
        notes=_notes(rounds, floor, ratios, versions),
        wrong=wrong,
    )


def main() -> int:
    """Measure, and print a table; return 1 if something was lost."""
    summary = __doc__.partition("\n")[0] if __doc__ else ""
    return report_on("observability", summary, 20, _measure)


if __name__ == "__main__":
    sys.exit(main())

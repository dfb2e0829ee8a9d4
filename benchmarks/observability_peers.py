"""Other libraries that write things down, each by its own documented calls.

Everyone says the same eight things. Spans go through OpenTelemetry's batch processor to an
exporter that counts them; lines go to a file, flushed one by one, or to a terminal that isn't one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["EVENTS", "PEERS", "Case", "CountingExporter", "bare", "batched"]

EVENTS: Final = 1000
"""How often everything happens in one round."""
ATTRIBUTES: Final[dict[str, str | int | float | bool]] = {
    "operation": "chat",
    "model": "a-model-of-2026",
    "input_tokens": 812,
    "output_tokens": 164,
    "temperature": 0.7,
    "stream": True,
    "user": "somebody",
    "path": "/v1/chat/completions",
}


def _nothing() -> None:
    pass


@dataclass
class Case:
    """One thing to measure.

    Attributes:
        row: what is done.
        name: by whom.
        emit: does it once.
        delivered: returns how much has come through so far; None where nothing has to.
        settle: waits until all of it has.
        best: nanoseconds of the calling thread's CPU for one of them, in the best round.
        done: how often it has been done.
    """

    row: str
    name: str
    emit: Callable[[], object]
    delivered: Callable[[], int] | None = None
    settle: Callable[[], object] = _nothing
    best: float = float("inf")
    done: int = 0


class CountingExporter(SpanExporter):
    """Counts spans, and sends them nowhere."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: object) -> SpanExportResult:
        """Count a batch."""
        batch: tuple[ReadableSpan, ...] = tuple(spans)  # type: ignore[call-overload]
        self.count += len(batch)
        return SpanExportResult.SUCCESS


def batched(exporter: SpanExporter) -> SpanProcessor:
    """Return the processor that everybody's spans go through."""
    return BatchSpanProcessor(exporter, max_queue_size=4 * EVENTS)


def bare() -> Case:
    """Return a span of the SDK without anything around it."""
    exporter, provider = CountingExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(batched(exporter))
    tracer = provider.get_tracer("benchmark")

    def span() -> None:
        with tracer.start_as_current_span("chat", attributes=ATTRIBUTES):
            pass

    return Case("command", "bare span", span, lambda: exporter.count, provider.force_flush)


def _lines(path: Path) -> Callable[[], int]:
    return lambda: path.read_bytes().count(b"\n")


def _logfire(folder: Path) -> list[Case]:
    package, exporter = import_module("logfire"), CountingExporter()
    instance = package.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        metrics=False,
        config_dir=folder,
        data_dir=folder,
        inspect_arguments=False,
        additional_span_processors=[batched(exporter)],
    )

    def span() -> None:
        with instance.span("chat", **ATTRIBUTES):
            pass

    # It sends each span's beginning as well, to its own backend alone.
    return [Case("command", "logfire", span, lambda: exporter.count, instance.force_flush)]


def _structlog(folder: Path) -> list[Case]:
    package: Any = import_module("structlog")
    path = folder / "structlog.jsonl"
    shared = [package.processors.add_log_level, package.processors.TimeStamper(fmt="iso")]

    def logger(stream: object, renderer: object) -> Callable[[], object]:
        log = package.wrap_logger(
            package.WriteLogger(stream), processors=[*shared, renderer]
        ).bind()
        return lambda: log.info("chat", **ATTRIBUTES)

    file = logger(path.open("w", encoding="utf-8"), package.processors.JSONRenderer())
    terminal = Path("/dev/null").open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    console = logger(terminal, package.dev.ConsoleRenderer(colors=True))
    return [Case("file", "structlog", file, _lines(path)), Case("console", "structlog", console)]


class _AsJson(logging.Formatter):
    """The common recipe: a record's text, time and attributes as one object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        kept = {name: vars(record)[name] for name in ATTRIBUTES}
        time = self.formatTime(record)
        return json.dumps(
            {"text": record.getMessage(), "at": time, "level": record.levelname} | kept
        )


def _stdlib(folder: Path) -> list[Case]:
    path = folder / "logging.jsonl"

    def logger(
        name: str, handler: logging.Handler, formatter: logging.Formatter
    ) -> Callable[[], object]:
        log = logging.getLogger(f"benchmark.{name}")
        log.propagate = False
        log.setLevel(logging.INFO)
        handler.setFormatter(formatter)
        log.addHandler(handler)
        return lambda: log.info("chat", extra=ATTRIBUTES)

    text = logging.Formatter(" ".join(["%(asctime)s %(levelname)s %(message)s", *_FIELDS]))
    file = logger("file", logging.FileHandler(path), _AsJson())
    console = logger("console", logging.FileHandler("/dev/null"), text)
    return [Case("file", "logging", file, _lines(path)), Case("console", "logging", console)]


_FIELDS = [f"{name}=%({name})s" for name in ATTRIBUTES]

PEERS: Final[dict[str, Callable[[Path], list[Case]]]] = {
    "logfire": _logfire,
    "structlog": _structlog,
    "logging": _stdlib,
}
"""By the name of their package; `logging` is Python's own, writing JSON."""

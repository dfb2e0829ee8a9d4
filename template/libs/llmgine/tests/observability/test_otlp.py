"""OTLP: what arrives at a backend, and what becomes of the process when none does."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any

import pytest
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import MessageBus
from llmgine.contracts import LogEvent, SpanEndedEvent, SpanStartedEvent
from llmgine.errors import ConfigurationError
from llmgine.observability import HandlerReport, ObservabilityClient, ObservabilityReport
from llmgine.observability.otel import OpenTelemetryEventHandler, build
from llmgine.settings import OtelSettings
from llmgine.testing.fixtures import quiet_config
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - planted
# What a stop may take beyond its limit, on a machine that is busy with other things.
SLACK = 2.0

Answer = Callable[["Receiver", str], tuple[int, bytes]]


def _taken(receiver: Receiver, path: str) -> tuple[int, bytes]:
    return 200, b""


@dataclass
class Receiver:
    """An OTLP backend on loopback that keeps what it is sent, and may be made to fail.

    Attributes:
        answer: what a request is answered with; may take its time.
        bodies: each request's path and body.
        headers: the headers of the last request.
        port: where it listens.
        over: set when the test is over, for answers that take their time.
    """

    answer: Answer = _taken
    bodies: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    port: int = 0
    over: ThreadEvent = field(default_factory=ThreadEvent)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _requests(self, kind: Any, path: str) -> list[Any]:
        return [kind.FromString(body) for at, body in list(self.bodies) if at == path]

    def spans(self) -> list[Any]:
        """All spans, of whatever scope."""
        return [
            span
            for request in self._requests(ExportTraceServiceRequest, "/v1/traces")
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def logs(self) -> list[Any]:
        """All log records."""
        return [
            record
            for request in self._requests(ExportLogsServiceRequest, "/v1/logs")
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metrics(self) -> set[str]:
        """The names of all metrics."""
        return {
            metric.name
            for request in self._requests(ExportMetricsServiceRequest, "/v1/metrics")
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans_of_services(self) -> list[tuple[str, str]]:
        """Each span's service and name."""
        return [
            (each.value.string_value, span.name)
            for request in self._requests(ExportTraceServiceRequest, "/v1/traces")
            for resource in request.resource_spans
            for each in resource.resource.attributes
            if each.key == "service.name"
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def _receiving(receiver: Receiver) -> Generator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.headers = {name.lower(): each for name, each in self.headers.items()}
            receiver.bodies.append((self.path, body))
            status, data = receiver.answer(receiver, self.path)
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the other side went away, as it should

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with _receiving(Receiver()) as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def _client(receiver: Receiver, **settings: Any) -> ObservabilityClient:
    given: dict[str, Any] = {"endpoint": receiver.endpoint, "delay": 0.02, **settings}
    return ObservabilityClient([build(OtelSettings(**given))])


def _emit(client: ObservabilityClient, count: int = 5, text: str = "x") -> None:
    for number in range(count):
        with client.span(f"span {number}", text=text):
            pass


def _accounts(report: ObservabilityReport) -> dict[str, HandlerReport]:
    for account in report.handlers:
        assert account.balanced, str(report)
        assert account.queued == 0, str(report)
    return {account.handler: account for account in report.handlers}


# -- What arrives


async def test_an_application_sends_its_traces_logs_and_metrics(receiver: Receiver) -> None:
    config = quiet_config(
        otel={
            "enabled": True,
            "endpoint": receiver.endpoint,
            "headers": {"X-Api-Key": "abc"},
            "service_name": "shop",
        }
    )
    async with ApplicationBootstrap(config, bus=MessageBus.isolated()) as app:
        async with app.bus.session("s-1"):
            with app.observability.span("work"):
                app.observability.log("info", f"using {SECRET}", note=SECRET)
        app.observability.metric("queue", 3.0)
    (span,) = receiver.spans()
    assert span.name == "work"
    assert span.end_time_unix_nano >= span.start_time_unix_nano > 1_600_000_000 * 10**9
    names = {record.event_name or record.body.string_value: record for record in receiver.logs()}
    assert set(names) == {"llmgine.session_start", "using [redacted]", "llmgine.session_end"}
    assert names["using [redacted]"].trace_id == span.trace_id
    assert names["using [redacted]"].span_id == span.span_id
    of_the_bus = {f"llmgine.bus.events.{name}" for name in ("queued", "dropped", "refused")}
    assert receiver.metrics() == {"queue", *of_the_bus}
    assert receiver.spans_of_services() == [("shop", "work")]
    assert receiver.headers["x-api-key"] == "abc"
    assert SECRET.encode() not in b"".join(body for _, body in receiver.bodies)


async def test_everything_is_acknowledged_and_counted(receiver: Receiver) -> None:
    client = _client(receiver, batch_size=64)
    _emit(client, 1000)
    client.log("info", "text")
    client.metric("queue", 1.0)
    assert await client.flush(20)
    flushed = client.report()
    report = await client.stop(20)
    accounts = _accounts(report)
    assert {name: account.delivered for name, account in _accounts(flushed).items()} == {
        "OpenTelemetryEventHandler": 2002,
        "OTLP traces": 1000,
        "OTLP metrics": 1,
        "OTLP logs": 1,
    }
    assert all(account.finished for account in accounts.values()), str(report)
    assert report.lost == 0
    assert len(receiver.spans()) == len({span.span_id for span in receiver.spans()}) == 1000
    traces = [body for path, body in receiver.bodies if path == "/v1/traces"]
    assert max(len(ExportTraceServiceRequest.FromString(each).resource_spans) for each in traces)
    assert len(traces) >= 1000 / 64


async def test_batches_stay_below_what_receivers_take(receiver: Receiver) -> None:
    client = _client(receiver)
    _emit(client, 600, "\U0001f600" * 2000)
    report = await client.stop(30)
    assert report.lost == 0, str(report)
    assert len(receiver.spans()) == 600
    assert max(len(body) for _, body in receiver.bodies) < 4 * 1024 * 1024


async def test_what_waits_is_sent_without_being_asked(receiver: Receiver) -> None:
    arrived = ThreadEvent()

    def answer(receiver: Receiver, path: str) -> tuple[int, bytes]:
        if receiver.spans() and receiver.logs() and receiver.metrics():
            arrived.set()
        return 200, b""

    receiver.answer = answer
    client = _client(receiver, metric_interval=0.05)
    _emit(client, 1)
    client.log("info", "text")
    client.metric("queue", 1.0)
    assert await asyncio.to_thread(arrived.wait, 20)
    await client.stop(20)


async def test_a_handler_starts_anew(receiver: Receiver) -> None:
    handler = build(OtelSettings(endpoint=receiver.endpoint))
    for _ in range(2):
        client = ObservabilityClient([handler])
        _emit(client, 3)
        report = await client.stop(20)
        assert report.lost == 0, str(report)
    assert len(receiver.spans()) == 6


# -- Variables and providers


async def test_variables_win(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=theirs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    settings = OtelSettings(
        endpoint="http://127.0.0.1:1", headers={"x-api-key": "ours"}, service_name="ours"
    )
    client = ObservabilityClient([build(settings)])
    _emit(client, 4)
    client.log("info", "text")
    report = await client.stop(20)
    assert report.lost == 0, str(report)
    assert {service for service, _ in receiver.spans_of_services()} == {"theirs"}
    assert receiver.headers["x-api-key"] == "theirs"
    assert receiver.headers["content-encoding"] == "gzip"
    assert receiver.logs() == []
    assert sum(path == "/v1/traces" for path, _ in receiver.bodies) == 2


async def test_the_sdk_can_be_disabled(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    client = _client(receiver)
    _emit(client)
    report = await client.stop(5)
    assert [account.handler for account in report.handlers] == ["OpenTelemetryEventHandler"]
    assert receiver.bodies == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "nan"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
    ],
)
def test_a_variable_that_cant_be_meant_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable}: expected .*{value}"):
        build(OtelSettings())


def test_settings_that_cant_be_meant_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="endpoint: expected http"):
        OtelSettings(endpoint="localhost:4318")
    with pytest.raises(ConfigurationError, match="batch_size"):
        OtelSettings(batch_size=0)
    assert "abc" not in repr(OtelSettings(headers={"x-api-key": "abc"}))


async def test_a_provider_that_is_there_is_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    client = _client(receiver)
    _emit(client, 2)
    provider.get_tracer("their own").start_span("theirs").end()
    report = await client.stop(20)
    assert report.lost == 0, str(report)
    names = ["span 0", "span 1", "theirs"]
    assert [span.name for span in theirs.get_finished_spans()] == names
    assert sorted(span.name for span in receiver.spans()) == names


# -- Faults


async def _stopped(client: ObservabilityClient, limit: float) -> dict[str, HandlerReport]:
    began = time.monotonic()
    report = await client.stop(limit)
    assert time.monotonic() - began < limit + SLACK
    return _accounts(report)


async def test_a_closed_port(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = Receiver(port=unused.getsockname()[1])
    client = _client(closed)
    _emit(client, 300)
    account = (await _stopped(client, 0.5))["OTLP traces"]
    assert (account.emitted, account.delivered) == (300, 0)
    assert account.dropped + account.unconfirmed == 300


def _mute(receiver: Receiver, path: str) -> tuple[int, bytes]:
    receiver.over.wait(30)
    return 200, b""


async def test_a_mute_backend(receiver: Receiver) -> None:
    receiver.answer = _mute
    client = _client(receiver, batch_size=100)
    _emit(client, 300)
    account = (await _stopped(client, 0.5))["OTLP traces"]
    # The batch that was sent may have arrived; the others were never sent.
    assert account.delivered == 0
    assert 0 < account.unconfirmed <= 100
    assert account.unconfirmed + account.stopped == 300


async def test_a_slow_backend(receiver: Receiver) -> None:
    def slow(receiver: Receiver, path: str) -> tuple[int, bytes]:
        receiver.over.wait(0.2)
        return 200, b""

    receiver.answer = slow
    client = _client(receiver, batch_size=10)
    _emit(client, 30)
    assert (await _stopped(client, 20))["OTLP traces"].delivered == 30


async def test_a_backend_that_is_busy_for_a_moment(receiver: Receiver) -> None:
    def busy(receiver: Receiver, path: str) -> tuple[int, bytes]:
        return (503 if len(receiver.bodies) == 1 else 200), b""

    receiver.answer = busy
    client = _client(receiver)
    _emit(client, 5)
    assert (await _stopped(client, 20))["OTLP traces"].delivered == 5


async def test_a_backend_that_stays_busy(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _receiver, _path: (503, b"")
    client = _client(receiver)
    _emit(client, 5)
    account = (await _stopped(client, 3))["OTLP traces"]
    assert account.delivered == 0
    assert "opentelemetry" not in {record.name.partition(".")[0] for record in caplog.records}


async def test_an_earlier_attempt_that_may_have_arrived_leaves_a_doubt(receiver: Receiver) -> None:
    def answer(receiver: Receiver, path: str) -> tuple[int, bytes]:
        if len(receiver.bodies) == 1:
            raise ConnectionAbortedError("taken, but not acknowledged")
        return 400, b""

    receiver.answer = answer
    client = _client(receiver, metrics=False, logs=False)
    _emit(client, 5)
    account = (await _stopped(client, 20))["OTLP traces"]
    assert len(receiver.bodies) == 2
    assert (account.failed, account.unconfirmed) == (0, 5)


async def test_a_backend_that_rejects_some(receiver: Receiver) -> None:
    rejecting = ExportTraceServiceResponse()
    rejecting.partial_success.rejected_spans = 2
    receiver.answer = lambda _receiver, path: (
        200,
        rejecting.SerializeToString() if path == "/v1/traces" else b"",
    )
    client = _client(receiver)
    _emit(client, 5)
    account = (await _stopped(client, 20))["OTLP traces"]
    assert (account.delivered, account.failed) == (3, 2)


@pytest.mark.parametrize("status", [302, 401, 404, 501])
async def test_a_signal_that_is_refused_is_switched_off_after_one_warning(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    def answer(receiver: Receiver, path: str) -> tuple[int, bytes]:
        return (status if path == "/v1/logs" else 200), b""

    receiver.answer = answer
    client = _client(receiver)
    for _ in range(3):
        client.log("info", "text")
        _emit(client, 1)
        await client.flush(20)
    accounts = await _stopped(client, 20)
    assert accounts["OTLP traces"].delivered == 3
    assert (accounts["OTLP logs"].delivered, accounts["OTLP logs"].failed) == (0, 3)
    assert sum(path == "/v1/logs" for path, _ in receiver.bodies) == 1
    warnings = [record.getMessage() for record in caplog.records if "logs" in record.getMessage()]
    assert [str(status) in text and "switched off" in text for text in warnings][:1] == [True]
    assert sum("switched off" in text for text in warnings) == 1


async def test_a_refusal_is_told_right_after_another_trouble(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda receiver, _path: (400 if len(receiver.bodies) == 1 else 404, b"")
    client = _client(receiver, metrics=False, logs=False)
    for _ in range(2):
        _emit(client, 1)
        await client.flush(20)
    await _stopped(client, 20)
    told = [text for text in caplog.messages if text.startswith("OTLP traces: the backend at")]
    assert ["400" in told[0], "404" in told[1] and "switched off" in told[1]] == [True, True]


async def test_a_full_queue_drops_the_oldest(receiver: Receiver) -> None:
    let_go = ThreadEvent()

    def answer(receiver: Receiver, path: str) -> tuple[int, bytes]:
        let_go.wait(20)
        return 200, b""

    receiver.answer = answer
    client = _client(receiver, queue_size=50, batch_size=10, metrics=False, logs=False)
    _emit(client, 500)
    let_go.set()
    account = (await _stopped(client, 20))["OTLP traces"]
    assert account.emitted == 500
    assert account.delivered + account.overflowed == 500
    assert 50 <= account.delivered <= 70
    assert receiver.spans()[-1].name == "span 499"


async def test_what_comes_after_the_stop_is_counted(receiver: Receiver) -> None:
    handler = build(OtelSettings(endpoint=receiver.endpoint))
    client = ObservabilityClient([handler])
    await client.stop(20)
    handler.observe(started := SpanStartedEvent(name="late"))
    handler.observe(SpanEndedEvent(span_id=started.id, name="late"))
    assert handler.accounts()[0].stopped == 1


async def test_a_mute_backend_holds_nobody_up(receiver: Receiver) -> None:
    receiver.answer = _mute
    client = _client(receiver)
    slowest = 0.0
    for _ in range(300):
        began = time.thread_time()
        _emit(client, 1)
        slowest = max(slowest, time.thread_time() - began)
        await asyncio.sleep(0)
    await client.stop(0.2)
    assert slowest < 0.1


def test_importing_the_handler_loads_no_sdk() -> None:
    code = """
        import sys
        import llmgine.observability.otel
        import llmgine.bootstrap
        loaded = [n for n in sys.modules if n.startswith(("opentelemetry.sdk", "opentelemetry.exp",
                  "opentelemetry.proto", "requests", "google"))]
        sys.exit(str(loaded) if loaded else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)  # noqa: S603


def test_the_handler_needs_no_providers() -> None:
    handler = OpenTelemetryEventHandler()
    handler.observe(LogEvent(text="x"))
    handler.handle(LogEvent(text="x"))
    handler.flush(1)
    handler.stop(1)
    assert handler.accounts() == ()


# -- Ways out of a process

PROGRAM = """
import asyncio, multiprocessing, os, sys

from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig

way, endpoint = sys.argv[1:]
off = {"enabled": False}
otel = {"enabled": True, "endpoint": endpoint, "service_name": way, "delay": 30.0}


def child(app):
    with app.observability.span("child"):
        pass
    app.observability.close(20)


def forked(app):
    pid = os.fork()
    if pid == 0:
        child(app)
        os._exit(0)
    os.waitpid(pid, 0)


def by_multiprocessing(app):
    process = multiprocessing.get_context("fork").Process(target=child, args=(app,))
    process.start()
    process.join()


async def main():
    config = ApplicationConfig(settings_file=None, console=off, file=off, otel=otel)
    async with ApplicationBootstrap(config) as app:
        with app.observability.span("work"):
            if way == "exception":
                forked(app)
                by_multiprocessing(app)
        if way == "exception":
            raise RuntimeError("it broke")
        if way.startswith("SIG"):
            signalled = asyncio.create_task(app.run_until_signal())
            await asyncio.sleep(0)
            print("ready", flush=True)
            await signalled


asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor such signals")
def test_nothing_is_lost_on_any_way_out(receiver: Receiver, tmp_path: Path) -> None:
    codes = {"exception": 1, "SIGINT": 0, "SIGTERM": 0}
    with ExitStack() as stack:
        running = {
            way: stack.enter_context(
                subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-W", "ignore", "-c", PROGRAM, way, receiver.endpoint],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for way in codes
        }
        for way, process in running.items():
            stack.callback(process.kill)
            if way.startswith("SIG"):
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.Signals[way])
        ended = {
            way: (process.communicate(timeout=50), process) for way, process in running.items()
        }
    assert {way: process.returncode for way, (_, process) in ended.items()} == codes, ended
    found = sorted(receiver.spans_of_services())
    whole = [(way, "work") for way in codes]
    assert found == sorted([*whole, ("exception", "child"), ("exception", "child")])

"""OTLP over gRPC: what arrives, and the true account of what doesn't."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event as ThreadEvent
from typing import Any

import pytest
from llmgine.errors import ConfigurationError
from llmgine.observability import HandlerReport, ObservabilityClient
from llmgine.observability.otel import build
from llmgine.settings import OtelSettings
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

# The extra `otlp` brings it.
grpc: Any = pytest.importorskip("grpc")
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

# What a stop may take beyond its limit, on a machine that is busy with other things.
SLACK = 2.0
SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - planted

# The statuses that the exporter tries again after, for tests that don't wait for it.
_TRIED_AGAIN = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"
_COLLECTOR = "opentelemetry.proto.collector"
_SERVICES: dict[str, tuple[str, Any]] = {
    "traces": (f"{_COLLECTOR}.trace.v1.TraceService", ExportTraceServiceRequest),
    "metrics": (f"{_COLLECTOR}.metrics.v1.MetricsService", ExportMetricsServiceRequest),
    "logs": (f"{_COLLECTOR}.logs.v1.LogsService", ExportLogsServiceRequest),
}


def _taken(receiver: Receiver, signal: str, context: Any) -> bytes:
    return b""


@dataclass
class Receiver:
    """An OTLP backend for gRPC on loopback that keeps what it is sent, and may be made to fail.

    Attributes:
        answer: what a call is answered with; may abort it, or take its time.
        requests: each call's signal and request.
        headers: what came along with the last call.
        port: where it listens.
        over: set when the test is over, for answers that take their time.
    """

    answer: Callable[[Receiver, str, Any], bytes] = _taken
    requests: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    port: int = 0
    over: ThreadEvent = field(default_factory=ThreadEvent)

    def calls(self, signal: str) -> int:
        return sum(each == signal for each, _ in self.requests)

    def spans(self) -> list[str]:
        """The names of all spans."""
        return [
            span.name
            for signal, request in list(self.requests)
            if signal == "traces"
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def take(self, signal: str, data: bytes, context: Any) -> bytes:
        self.headers = dict(context.invocation_metadata())
        self.requests.append((signal, _SERVICES[signal][1].FromString(data)))
        return self.answer(self, signal, context)

    def handlers(self) -> Iterable[Any]:
        for signal, (service, _) in _SERVICES.items():

            def take(data: bytes, context: Any, signal: str = signal) -> bytes:
                return self.take(signal, data, context)

            method = grpc.unary_unary_rpc_method_handler(take)  # bytes in, bytes out
            yield grpc.method_handlers_generic_handler(service, {"Export": method})


@contextmanager
def _receiving(**options: int) -> Generator[Receiver]:
    receiver = Receiver()
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, options=[(f"grpc.{name}", each) for name, each in options.items()])
    server.add_generic_rpc_handlers(tuple(receiver.handlers()))
    receiver.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.stop(0).wait(20)
        pool.shutdown()


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with _receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def _client(port: int, **settings: Any) -> ObservabilityClient:
    endpoint = f"http://127.0.0.1:{port}"
    given: dict[str, Any] = {"endpoint": endpoint, "protocol": "grpc", "delay": 0.02, **settings}
    return ObservabilityClient([build(OtelSettings(**given))])


def _emit(client: ObservabilityClient, count: int = 5, text: str = "x") -> None:
    for number in range(count):
        with client.span(f"span {number}", text=text):
            pass


async def _stopped(client: ObservabilityClient, limit: float) -> dict[str, HandlerReport]:
    began = time.monotonic()
    report = await client.stop(limit)
    assert time.monotonic() - began < limit + SLACK
    for account in report.handlers:
        assert account.balanced, str(report)
        assert account.queued == 0, str(report)
    return {account.handler: account for account in report.handlers}


async def test_all_signals_arrive_and_are_counted(receiver: Receiver) -> None:
    client = _client(receiver.port, headers={"X-Api-Key": "abc"}, batch_size=2)
    _emit(client, 5, SECRET)
    client.log("info", f"using {SECRET}")
    client.metric("queue", 1.0)
    accounts = await _stopped(client, 20)
    assert (accounts["OTLP traces"].delivered, accounts["OTLP logs"].delivered) == (5, 1)
    assert all(account.delivered == account.emitted for account in accounts.values())
    assert receiver.spans() == [f"span {number}" for number in range(5)]
    assert receiver.calls("logs") == 1
    assert receiver.calls("metrics") >= 1
    assert receiver.headers["x-api-key"] == "abc"
    assert SECRET not in str(receiver.requests)


async def test_batches_stay_below_what_receivers_take(receiver: Receiver) -> None:
    client = _client(receiver.port)
    _emit(client, 400, "\U0001f600" * 2000)  # 3 MB, and a receiver takes 4 MiB at most
    assert (await _stopped(client, 30))["OTLP traces"].delivered == 400
    assert len(receiver.spans()) == 400


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")],
)
def test_a_variable_that_an_exporter_cant_be_made_from_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=rf"OTEL_EXPORTER_OTLP_.*{value}"):
        build(OtelSettings(protocol="grpc", metrics=False, logs=False))


async def test_a_closed_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = _client(unused.getsockname()[1], batch_size=50)
        _emit(client, 300)
        account = (await _stopped(client, 0.5))["OTLP traces"]
    assert account.delivered == 0
    assert account.dropped + account.unconfirmed == 300
    assert account.unconfirmed <= 50, "what was never sent is lost for certain"


async def test_a_port_that_is_closed_for_good_is_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_TRIED_AGAIN, "ABORTED")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = _client(unused.getsockname()[1])
        _emit(client, 5)
        account = (await _stopped(client, 20))["OTLP traces"]
    assert (account.failed, account.unconfirmed) == (5, 0)


async def test_a_mute_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = _client(mute.getsockname()[1], batch_size=100)
        _emit(client, 300)
        account = (await _stopped(client, 0.5))["OTLP traces"]
    assert account.delivered == 0
    assert 0 < account.unconfirmed <= 100
    assert account.unconfirmed + account.stopped == 300


async def test_a_mute_backend_leaves_a_doubt(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(receiver: Receiver, signal: str, context: Any) -> bytes:
        receiver.over.wait(30)
        return b""

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    receiver.answer = mute
    client = _client(receiver.port)
    _emit(client, 5)
    account = (await _stopped(client, 20))["OTLP traces"]
    assert (account.delivered, account.failed, account.unconfirmed) == (0, 0, 5)
    assert len(receiver.spans()) == 5, "it had them all the while"


async def test_a_slow_backend(receiver: Receiver) -> None:
    def slow(receiver: Receiver, signal: str, context: Any) -> bytes:
        receiver.over.wait(0.1)
        return b""

    receiver.answer = slow
    client = _client(receiver.port, batch_size=10)
    _emit(client, 30)
    assert (await _stopped(client, 20))["OTLP traces"].delivered == 30


async def test_a_backend_that_is_unavailable_for_a_moment(receiver: Receiver) -> None:
    def busy(receiver: Receiver, signal: str, context: Any) -> bytes:
        if len(receiver.requests) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "in a moment")
        return b""

    receiver.answer = busy
    client = _client(receiver.port, metrics=False, logs=False)
    _emit(client, 5)
    assert (await _stopped(client, 20))["OTLP traces"].delivered == 5
    assert receiver.calls("traces") == 2


async def test_a_backend_that_stays_unavailable(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def unavailable(receiver: Receiver, signal: str, context: Any) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
        return b""

    receiver.answer = unavailable
    client = _client(receiver.port)
    _emit(client, 5)
    account = (await _stopped(client, 0.5))["OTLP traces"]
    assert account.delivered == 0
    assert "opentelemetry" not in {record.name.partition(".")[0] for record in caplog.records}


async def test_a_batch_that_is_too_large_is_lost_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(_TRIED_AGAIN, "ABORTED")
    with _receiving(max_receive_message_length=2000) as receiver:
        client = _client(receiver.port, batch_size=1, metrics=False, logs=False)
        _emit(client, 1, "x" * 4000)
        assert await client.flush(20)
        _emit(client, 1, "short")
        account = (await _stopped(client, 20))["OTLP traces"]
    assert (account.failed, account.delivered, account.unconfirmed) == (1, 1, 0)
    assert "RESOURCE_EXHAUSTED" in caplog.text


async def test_a_backend_that_rejects_some(receiver: Receiver) -> None:
    rejecting = ExportTraceServiceResponse()
    rejecting.partial_success.rejected_spans = 2

    def answer(receiver: Receiver, signal: str, context: Any) -> bytes:
        return rejecting.SerializeToString() if signal == "traces" else b""

    receiver.answer = answer
    client = _client(receiver.port)
    _emit(client, 5)
    account = (await _stopped(client, 20))["OTLP traces"]
    assert (account.delivered, account.failed) == (3, 2)


@pytest.mark.parametrize("status", ["UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"])
async def test_a_signal_that_is_refused_is_switched_off_after_one_warning(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    def answer(receiver: Receiver, signal: str, context: Any) -> bytes:
        if signal == "logs":
            context.abort(grpc.StatusCode[status], "no")
        return b""

    caplog.set_level(logging.WARNING)
    receiver.answer = answer
    client = _client(receiver.port)
    for _ in range(3):
        client.log("info", "text")
        _emit(client, 1)
        await client.flush(20)
    accounts = await _stopped(client, 20)
    assert accounts["OTLP traces"].delivered == 3
    assert (accounts["OTLP logs"].delivered, accounts["OTLP logs"].failed) == (0, 3)
    assert receiver.calls("logs") == 1
    off = [each for each in caplog.messages if "switched off" in each]
    assert len(off) == 1
    assert "OTLP logs" in off[0]
    assert status in off[0]


async def test_an_earlier_attempt_that_may_have_arrived_leaves_a_doubt(receiver: Receiver) -> None:
    def answer(receiver: Receiver, signal: str, context: Any) -> bytes:
        first = len(receiver.requests) == 1
        code = grpc.StatusCode.UNAVAILABLE if first else grpc.StatusCode.INVALID_ARGUMENT
        context.abort(code, "no")
        return b""

    receiver.answer = answer
    client = _client(receiver.port, metrics=False, logs=False)
    _emit(client, 5)
    account = (await _stopped(client, 20))["OTLP traces"]
    assert receiver.calls("traces") == 2
    assert (account.failed, account.unconfirmed) == (0, 5)

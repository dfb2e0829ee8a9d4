"""OpenTelemetry: what each event becomes, and that every span has the right parent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import (
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
    MetricEvent,
    SessionEndEvent,
    SessionStartEvent,
    SpanEndedEvent,
    SpanStartedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
    Usage,
)
from llmgine.contracts.stream import closing
from llmgine.errors import CallCancelledError
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.logs import bridged_logging
from llmgine.observability.otel import OpenTelemetryEventHandler, Providers
from llmgine.providers.observed import ObservedProvider
from llmgine.providers.scripted import ScriptedProvider
from llmgine.settings import OtelSettings
from llmgine.testing.observability_suite import ObservabilityHandlerSuite, sample_events
from llmgine.tools import ToolManager
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - planted
PROMPT = "what is the weather in Oslo"
BEGAN, ENDED = 1_700_000_000.0, 1_700_000_002.5
BEGAN_NS, ENDED_NS = 1_700_000_000_000_000_000, 1_700_000_002_500_000_000


class Backend:
    """Providers of its own, and what arrives at them."""

    def __init__(self, **settings: Any) -> None:
        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()
        self._metrics = InMemoryMetricReader()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = self.traces.get_tracer("application")
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.handler = OpenTelemetryEventHandler(
            OtelSettings(**settings),
            Providers(
                traces=self.traces,
                metrics=MeterProvider([self._metrics], shutdown_on_exit=False),
                logs=logs,
            ),
        )

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def logs(self) -> tuple[ReadableLogRecord, ...]:
        return tuple(self._logs.get_finished_logs())

    def points(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Each metric's points: attributes and sum."""
        data = self._metrics.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], float]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (dict(point.attributes or {}), getattr(point, "sum"))  # noqa: B009
                        for point in metric.data.data_points
                    ]
        return found

    def values(self) -> dict[str, float]:
        """Each gauge's and counter's value."""
        data = self._metrics.get_metrics_data()
        return {
            metric.name: getattr(point, "value")  # noqa: B009
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    def parents(self) -> dict[str, str | None]:
        """Each span's parent, by name."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return {
            span.name: names.get(span.parent.span_id, "elsewhere") if span.parent else None
            for span in self.spans
        }

    async def observe(self, *events: Event) -> None:
        client = ObservabilityClient([self.handler])
        for event in events:
            client.observe(event)
        report = await client.stop(10)
        assert report.lost == 0, str(report)

    def everything(self) -> str:
        """All that arrived, as text."""
        spans = [span.to_json() for span in self.spans]
        return "".join([*spans, *(record.to_json() for record in self.logs), str(self.points())])


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    name: str = "ask"
    ask: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    name: str = "step"
    count: int = 3


class TestOpenTelemetryEventHandler(ObservabilityHandlerSuite):
    def make_handler(self) -> ObservabilityEventHandler:
        return Backend(content=True).handler


# -- The mapping


COMMAND = Ask(id="c" * 32, session_id="s-1")
CALL = ToolCall(id="call-1", name="weather", arguments='{"city": "Oslo"}')
REQUEST = LLMRequest(
    messages=(ChatMessage.user(PROMPT),),
    model="m-1",
    max_output_tokens=100,
    temperature=0.5,
    top_p=0.9,
)
RESPONSE = LLMResponse(
    message=ChatMessage.assistant("rain"),
    id="r-1",
    model="m-1-2026",
    finish_reason="stop",
    usage=Usage(input_tokens=12, output_tokens=3, cache_read_tokens=5, cache_write_tokens=2),
)
OF_A_COMMAND: dict[str, Any] = {
    "messaging.system": "llmgine",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": "Ask",
    "messaging.message.id": "c" * 32,
    "messaging.message.conversation_id": "s-1",
    "gen_ai.conversation.id": "s-1",
}
OF_A_CALL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "p-1",
    "gen_ai.request.model": "m-1",
    "gen_ai.conversation.id": "s-1",
    "gen_ai.request.max_tokens": 100,
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.top_p": 0.9,
}
OF_A_TOOL: dict[str, Any] = {
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "weather",
    "gen_ai.tool.call.id": "call-1",
    "gen_ai.tool.type": "function",
    "gen_ai.conversation.id": "s-1",
}


def command(**result: Any) -> list[Event]:
    return [
        CommandStartedEvent(command=COMMAND, session_id="s-1", timestamp=BEGAN),
        CommandResultEvent(
            command=COMMAND,
            session_id="s-1",
            timestamp=ENDED,
            result=CommandResult(duration=2.5, **result),
        ),
    ]


def model_call(**result: Any) -> list[Event]:
    return [
        LLMCallStartedEvent(
            call_id="x", provider="p-1", request=REQUEST, session_id="s-1", timestamp=BEGAN
        ),
        LLMCallResultEvent(
            call_id="x", provider="p-1", session_id="s-1", timestamp=ENDED, duration=2.5, **result
        ),
    ]


def tool(**result: Any) -> list[Event]:
    return [
        ToolExecuteStartedEvent(call=CALL, session_id="s-1", timestamp=BEGAN),
        ToolExecuteResultEvent(
            call=CALL,
            session_id="s-1",
            timestamp=ENDED,
            duration=2.5,
            result=ToolResult(tool_call_id="call-1", name="weather", **result),
        ),
    ]


def measured(error: BaseException | None = None) -> list[Event]:
    started = SpanStartedEvent(
        name="load", attributes={"rows": 3, "api_key": "hush"}, session_id="s-1", timestamp=BEGAN
    )
    ended = SpanEndedEvent(
        span_id=started.id, name="load", error=error, session_id="s-1", timestamp=ENDED
    )
    return [started, ended]


MAPPING = {
    "a command": (command(value="ok"), "process Ask", SpanKind.CONSUMER, OF_A_COMMAND, ""),
    "a failed command": (
        command(error=KeyError("x"), status="error"),
        "process Ask",
        SpanKind.CONSUMER,
        {**OF_A_COMMAND, "error.type": "KeyError"},
        "'x'",
    ),
    "a command that failed without an exception": (
        command(status="error"),
        "process Ask",
        SpanKind.CONSUMER,
        {**OF_A_COMMAND, "error.type": "error"},
        "error",
    ),
    "a cancelled command": (
        command(error=asyncio.CancelledError(), status="cancelled"),
        "process Ask",
        SpanKind.CONSUMER,
        {**OF_A_COMMAND, "llmgine.cancelled": True},
        "",
    ),
    "a model call": (
        model_call(response=RESPONSE, time_to_first_chunk=0.25),
        "chat m-1",
        SpanKind.CLIENT,
        {
            **OF_A_CALL,
            "gen_ai.response.model": "m-1-2026",
            "gen_ai.response.id": "r-1",
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 5,
            "gen_ai.usage.cache_creation.input_tokens": 2,
        },
        "",
    ),
    "a failed model call": (
        model_call(error=TimeoutError("too slow")),
        "chat m-1",
        SpanKind.CLIENT,
        {**OF_A_CALL, "error.type": "TimeoutError"},
        "too slow",
    ),
    "a model call that was left": (
        model_call(error=CallCancelledError("left", provider="p-1")),
        "chat m-1",
        SpanKind.CLIENT,
        {**OF_A_CALL, "llmgine.cancelled": True},
        "",
    ),
    "a tool": (
        tool(content="rain"),
        "execute_tool weather",
        SpanKind.INTERNAL,
        OF_A_TOOL,
        "",
    ),
    "a failed tool": (
        tool(content="no such city", is_error=True, error_code="bad_arguments"),
        "execute_tool weather",
        SpanKind.INTERNAL,
        {**OF_A_TOOL, "error.type": "bad_arguments"},
        "bad_arguments",
    ),
    "a stretch of work": (
        measured(),
        "load",
        SpanKind.INTERNAL,
        {"rows": 3, "api_key": "[redacted]", "gen_ai.conversation.id": "s-1"},
        "",
    ),
    "a failed stretch of work": (
        measured(ValueError("no")),
        "load",
        SpanKind.INTERNAL,
        {
            "rows": 3,
            "api_key": "[redacted]",
            "gen_ai.conversation.id": "s-1",
            "error.type": "ValueError",
        },
        "no",
    ),
}


@pytest.mark.parametrize("case", MAPPING)
async def test_what_begins_and_ends_is_a_span(case: str) -> None:
    events, name, kind, attributes, description = MAPPING[case]
    backend = Backend()
    await backend.observe(*events)
    (span,) = backend.spans
    assert (span.name, span.kind) == (name, kind)
    assert dict(span.attributes or {}) == attributes
    assert (span.start_time, span.end_time) == (BEGAN_NS, ENDED_NS)
    assert span.status.status_code is (StatusCode.ERROR if description else StatusCode.UNSET)
    assert (span.status.description or "") == description
    assert backend.logs == ()


LOGS: dict[str, tuple[Event, str | None, str, str, dict[str, Any]]] = {
    "a session's start": (
        SessionStartEvent(session_id="s-1"),
        "llmgine.session_start",
        "INFO",
        "SessionStartEvent",
        {},
    ),
    "a session's end": (
        SessionEndEvent(session_id="s-1", error=ValueError("no")),
        "llmgine.session_end",
        "ERROR",
        "SessionEndEvent",
        {
            "error.type": "ValueError",
            "exception.type": "ValueError",
            "exception.message": "no",
            "exception.stacktrace": "",
        },
    ),
    "an application's event": (
        Step(session_id="s-1"),
        "llmgine.step",
        "INFO",
        "Step",
        {"llmgine.name": '{"$content": "withheld", "size": 4}', "llmgine.count": 3},
    ),
    "a line for the log": (
        LogEvent(level="warning", text="full", attributes={"disk": "a"}, session_id="s-1"),
        None,
        "WARN",
        "full",
        {"disk": "a"},
    ),
    "a failed handler": (
        EventHandlerFailedEvent(
            event=SessionStartEvent(), handler="m.f", error=ValueError("no"), session_id="s-1"
        ),
        "llmgine.event_handler_failed",
        "ERROR",
        "EventHandlerFailedEvent",
        {"llmgine.handler": "m.f", "exception.message": "no", "error.type": "ValueError"},
    ),
}


@pytest.mark.parametrize("case", LOGS)
async def test_the_other_events_are_log_records(case: str) -> None:
    event, name, severity, body, attributes = LOGS[case]
    backend = Backend()
    await backend.observe(event)
    (record,) = (each.log_record for each in backend.logs)
    assert (record.event_name, record.severity_text, record.body) == (name, severity, body)
    found = dict(record.attributes or {})
    assert found["gen_ai.conversation.id"] == "s-1"
    assert found.items() >= attributes.items()
    assert record.timestamp == int(event.timestamp * 1e9)
    assert backend.spans == ()


async def test_a_call_that_names_no_model_is_named_after_the_one_that_answers() -> None:
    backend = Backend()
    answer = LLMResponse(message=ChatMessage.assistant("hi"), model="m-2")
    await backend.observe(
        LLMCallStartedEvent(call_id="1", provider="p", request=LLMRequest(messages=())),
        LLMCallResultEvent(call_id="1", provider="p", response=answer),
        LLMCallStartedEvent(call_id="2", provider="p", request=LLMRequest(messages=())),
        LLMCallResultEvent(call_id="2", provider="p", error=ValueError("no")),
        LLMCallStartedEvent(call_id="3", provider="p", request=LLMRequest(model="m", messages=())),
        LLMCallResultEvent(call_id="3", provider="p", response=answer),
    )
    assert [span.name for span in backend.spans] == ["chat m-2", "chat", "chat m"]


async def test_durations_and_tokens_are_measured() -> None:
    backend = Backend()
    await backend.observe(
        *command(value="ok"),
        *command(error=KeyError("x"), status="error"),
        *model_call(response=RESPONSE, time_to_first_chunk=0.25),
        *tool(content="rain"),
        MetricEvent(name="queue", value=4.0, unit="{item}", attributes={"kind": "a"}),
        MetricEvent(name="queue", value=5.0, unit="{item}", attributes={"kind": "a"}),
        MetricEvent(name="queue", value=float("nan"), unit="{item}"),
    )
    bus = {
        "messaging.system": "llmgine",
        "messaging.operation.name": "process",
        "messaging.destination.name": "Ask",
    }
    model = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "p-1",
        "gen_ai.request.model": "m-1",
        "gen_ai.response.model": "m-1-2026",
    }
    assert backend.points() == {
        "messaging.process.duration": [(bus, 2.5), ({**bus, "error.type": "KeyError"}, 2.5)],
        "gen_ai.client.operation.duration": [(model, 2.5)],
        "gen_ai.client.operation.time_to_first_chunk": [(model, 0.25)],
        "gen_ai.client.token.usage": [
            ({**model, "gen_ai.token.type": "input"}, 12),
            ({**model, "gen_ai.token.type": "output"}, 3),
        ],
        "gen_ai.execute_tool.duration": [({"gen_ai.tool.name": "weather"}, 2.5)],
        "queue": [({"kind": "a"}, 9.0)],
    }


async def test_numbers_are_watched() -> None:
    backend = Backend()
    client = ObservabilityClient([backend.handler])
    waiting = [3.0]
    client.watch("waiting", "{item}", waiting.pop)
    client.watch("done", "{item}", lambda: 7.0, total=True)
    assert backend.values() == {"waiting": 3.0, "done": 7.0}
    await client.stop(10)


async def test_every_signal_has_a_switch() -> None:
    backend = Backend(logs=False, metrics=False)
    await backend.observe(*sample_events())
    assert backend.spans
    assert backend.logs == ()
    assert backend.points() == {}
    backend = Backend(traces=False)
    await backend.observe(*sample_events())
    assert backend.spans == ()
    assert backend.logs
    assert backend.points()


# -- Content and secrets


def _with_secrets() -> list[Event]:
    error = RuntimeError(f"refused: {SECRET}")
    call = ToolCall(id="t", name="weather", arguments=json.dumps({"key": SECRET, "city": PROMPT}))
    asked = Ask(name=f"{PROMPT} {SECRET}", session_id="s")
    return [
        CommandStartedEvent(command=asked, session_id="s"),
        *(
            LLMCallStartedEvent(
                call_id=call_id,
                provider="p",
                request=LLMRequest(messages=(ChatMessage.user(f"{PROMPT} {SECRET}"),), model="m"),
            )
            for call_id in ("fine", "bad")
        ),
        LLMCallResultEvent(
            call_id="fine",
            provider="p",
            response=LLMResponse(message=ChatMessage.assistant(f"{PROMPT} {SECRET}", call)),
        ),
        LLMCallResultEvent(call_id="bad", provider="p", error=error),
        ToolExecuteStartedEvent(call=call),
        ToolExecuteResultEvent(
            call=call,
            result=ToolResult(tool_call_id="t", name="weather", content=f"{PROMPT} {SECRET}"),
        ),
        Step(name=f"{PROMPT} {SECRET}"),
        LogEvent(text=f"using {SECRET}", attributes={"token": "abc", "note": SECRET}),
        EventHandlerFailedEvent(event=Step(name=SECRET), handler="f", error=error),
        CommandResultEvent(
            command=asked, result=CommandResult(value=PROMPT, error=error, status="error")
        ),
        SessionEndEvent(error=error, session_id="s"),
    ]


async def test_no_secret_leaves_and_content_is_off() -> None:
    backend = Backend()
    await backend.observe(*_with_secrets())
    assert len(backend.spans) == 4
    assert SECRET not in backend.everything()
    assert PROMPT not in backend.everything()


@pytest.mark.parametrize(
    ("variable", "setting", "shown"),
    [
        (None, True, True),
        ("NO_CONTENT", True, False),
        ("SPAN_AND_EVENT", False, True),
        ("true", False, True),
    ],
)
async def test_content_has_a_switch_and_a_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, setting: bool, shown: bool
) -> None:
    if variable is not None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", variable)
    backend = Backend(content=setting)
    await backend.observe(*_with_secrets())
    assert SECRET not in backend.everything()
    chat, bad, weather, _ = backend.spans
    for span, key in (
        (chat, "gen_ai.input.messages"),
        (chat, "gen_ai.output.messages"),
        (bad, "gen_ai.input.messages"),
        (weather, "gen_ai.tool.call.arguments"),
        (weather, "gen_ai.tool.call.result"),
    ):
        assert (PROMPT in str((span.attributes or {}).get(key))) == shown, key
    if shown:
        (message,) = json.loads(str((chat.attributes or {})["gen_ai.output.messages"]))
        assert [part["type"] for part in message["parts"]] == ["text", "tool_call"]


async def test_values_are_short_and_can_be_encoded() -> None:
    long = "ünï " * 50_000
    call = ToolCall(id="t", name="\ud800", arguments=long)
    backend = Backend(content=True)
    await backend.observe(
        ToolExecuteStartedEvent(call=call),
        ToolExecuteResultEvent(call=call, result=ToolResult(tool_call_id="t", name="n")),
        LogEvent(text=long, attributes={"big": 2**80, "long": long}),
        *model_call(response=LLMResponse(message=ChatMessage.assistant(long))),
    )
    values = [value for span in backend.spans for value in (span.attributes or {}).values()]
    for record in backend.logs:
        values += [record.log_record.body, *(record.log_record.attributes or {}).values()]
    texts = [value for value in values if isinstance(value, str)]
    assert max(len(text.encode()) for text in texts) <= 8 * 1024
    assert sum(text.endswith("[truncated]") for text in texts) >= 3
    assert all(abs(value) < 2**63 for value in values if isinstance(value, int))


# -- Open spans


async def test_a_span_ends_once_and_what_stays_open_ends_at_stop() -> None:
    backend = Backend()
    started, ended = command(value="ok")
    left = CommandStartedEvent(command=Ask(session_id="s-2"))
    await backend.observe(started, ended, ended, left)
    first, abandoned = backend.spans
    assert first.end_time == ENDED_NS
    assert (abandoned.attributes or {})["llmgine.abandoned"] is True
    assert abandoned.status.status_code is StatusCode.ERROR


async def test_open_spans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmgine.observability._otel_spans._MAX_OPEN", 10)
    backend = Backend(logs=False, metrics=False)
    for number in range(13):
        call = ToolCall(id=str(number), name="t")
        backend.handler.observe(ToolExecuteStartedEvent(call=call, session_id="s"))
    calls = [(span.attributes or {})["gen_ai.tool.call.id"] for span in backend.spans]
    assert calls == ["0", "1", "2"]
    backend.handler.stop(1)
    assert len(backend.spans) == 13


async def test_an_exception_is_recorded_where_it_began_and_nowhere_else() -> None:
    backend = Backend()
    bus = MessageBus.isolated()
    client = ObservabilityClient([backend.handler])
    bus.add_observer(client.observe)

    async def answer(command: Ask) -> str:
        if command.ask:
            await bus.execute(Ask(name="inner", ask=command.ask[1:]))
        raise ValueError("no such city")

    bus.register_command_handler(Ask, answer)
    async with bus:
        with pytest.raises(ValueError, match="no such city"):
            await bus.execute(Ask(ask=("a", "b")))
    await client.stop(10)
    assert [len(span.events) for span in backend.spans] == [1, 0, 0]
    (recorded,) = backend.spans[0].events
    values = dict(recorded.attributes or {})
    assert values["exception.type"] == "ValueError"
    assert values["exception.message"] == "no such city"
    assert "in answer" in str(values["exception.stacktrace"])
    assert [(span.attributes or {})["error.type"] for span in backend.spans] == ["ValueError"] * 3


# -- Parents


@pytest.fixture
def backend() -> Generator[Backend]:
    yield Backend()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.fixture
async def client(backend: Backend) -> AsyncGenerator[ObservabilityClient]:
    client = ObservabilityClient([backend.handler])
    yield client
    await client.stop(10)


@pytest.fixture
async def traced(backend: Backend, client: ObservabilityClient) -> AsyncGenerator[MessageBus]:
    bus = MessageBus.isolated()
    bus.add_observer(client.observe)

    async def answer(command: Ask) -> str:
        with backend.tracer.start_as_current_span(command.name):
            await asyncio.sleep(0)
            for name in command.ask:
                await bus.execute(Ask(name=name))
        return command.name

    bus.register_command_handler(Ask, answer)
    async with bus:
        yield bus


def _ancestors(backend: Backend, name: str) -> list[str]:
    """The names above a span, nearest first."""
    spans = {span.context.span_id: span for span in backend.spans if span.context}
    (found,) = (span for span in backend.spans if span.name == name)
    names: list[str] = []
    while found.parent is not None:
        found = spans[found.parent.span_id]
        names.append(found.name)
    return names


async def test_nested_commands(traced: MessageBus, backend: Backend) -> None:
    with backend.tracer.start_as_current_span("request"):
        await traced.execute(Ask(name="outer", ask=("one", "two")))
    await traced.execute(Ask(name="alone"))
    for name in ("one", "two"):
        assert _ancestors(backend, name) == [
            "process Ask",
            "outer",
            "process Ask",
            "request",
        ]
    assert _ancestors(backend, "alone") == ["process Ask"]
    kinds = {
        span.kind: span.parent is not None for span in backend.spans if span.name == "process Ask"
    }
    assert kinds == {SpanKind.CONSUMER: False, SpanKind.INTERNAL: True}


async def test_tasks_threads_and_handlers_in_threads(traced: MessageBus, backend: Backend) -> None:
    def mark(name: str) -> None:
        backend.tracer.start_span(name).end()

    @dataclass(frozen=True, kw_only=True)
    class Work(Command[None]):
        pass

    @dataclass(frozen=True, kw_only=True)
    class InThread(Command[None]):
        pass

    async def work(command: Work) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(traced.execute(Ask(name="in a task")))
            group.create_task(asyncio.to_thread(mark, "in a thread"))
            group.create_task(traced.execute(InThread()))

    def in_thread(command: InThread) -> None:
        mark("in its thread")

    traced.register_command_handler(Work, work)
    traced.register_command_handler(InThread, in_thread)
    await traced.execute(Work())
    assert _ancestors(backend, "in a task") == ["process Ask", "process Work"]
    assert _ancestors(backend, "in a thread") == ["process Work"]
    assert _ancestors(backend, "in its thread") == ["process InThread", "process Work"]


async def test_queued_threadsafe_and_scheduled_events(traced: MessageBus, backend: Backend) -> None:
    async def on_step(event: Step) -> None:
        await traced.execute(Ask(name=f"after {event.name}"))

    arrived = asyncio.Event()

    async def on_timer(event: SessionStartEvent) -> None:
        await traced.execute(Ask(name="later"))
        arrived.set()

    def elsewhere() -> None:
        with backend.tracer.start_as_current_span("thread"):
            traced.publish_threadsafe(Step(name="b")).result(10)

    traced.register_event_handler(Step, on_step)
    traced.register_event_handler(SessionStartEvent, on_timer, concurrent=True)
    with backend.tracer.start_as_current_span("publisher"):
        await traced.publish(Step(name="a"))
        traced.schedule(SessionStartEvent(), after=0.001)
    await asyncio.to_thread(elsewhere)
    await arrived.wait()
    await traced.join()
    assert _ancestors(backend, "after a") == ["process Ask", "publisher"]
    assert _ancestors(backend, "after b") == ["process Ask", "thread"]
    assert _ancestors(backend, "later") == ["process Ask", "publisher"]


async def test_log_records_are_in_their_publishers_trace(
    traced: MessageBus, client: ObservabilityClient, backend: Backend
) -> None:
    async def on_step(event: Step) -> None:
        raise ValueError("no")

    traced.register_event_handler(Step, on_step)
    with backend.tracer.start_as_current_span("publisher") as span:
        await traced.publish(Step())
    await traced.publish(Step())
    await traced.join()
    assert await client.flush(10)
    here = span.get_span_context()
    found = [
        (each.log_record.event_name, each.log_record.trace_id, each.log_record.span_id)
        for each in backend.logs
    ]
    assert sorted(found) == sorted(
        [
            ("llmgine.step", here.trace_id, here.span_id),
            ("llmgine.event_handler_failed", here.trace_id, here.span_id),
            ("llmgine.step", 0, 0),
            ("llmgine.event_handler_failed", 0, 0),
        ]
    )


async def test_standard_logging_is_in_the_trace_it_was_written_in(
    traced: MessageBus, client: ObservabilityClient, backend: Backend
) -> None:
    async def answer(command: Ask) -> str:
        try:
            int(SECRET)
        except ValueError as error:
            write = partial(logging.getLogger("shop").error, "it is %s", exc_info=error)
            await asyncio.to_thread(write, command.name)
        return ""

    with bridged_logging(client, "info"):
        async with traced.session("s-1") as session:
            session.register_command_handler(Ask, answer)
            await session.execute(Ask(name=SECRET))
        await client.flush(20)
    (record,) = (each.log_record for each in backend.logs if not each.log_record.event_name)
    (span,) = (each for each in backend.spans if each.name == "process Ask")
    assert span.context is not None
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.severity_text == "ERROR"
    values = dict(record.attributes or {})
    assert (values["logger"], values["exception.type"]) == ("shop", "ValueError")
    assert values["gen_ai.conversation.id"] == "s-1"
    assert SECRET not in backend.everything()


async def test_model_calls_and_streams(traced: MessageBus, backend: Backend) -> None:
    provider = ObservedProvider(ScriptedProvider(), traced)
    request = LLMRequest(messages=(ChatMessage.user("hello"),), model="m")

    @dataclass(frozen=True, kw_only=True)
    class Converse(Command[None]):
        leave: bool

    async def converse(command: Converse) -> None:
        async with closing(provider.stream(request)) as chunks:
            async for _ in chunks:
                backend.tracer.start_span("reader").end()
                if command.leave:
                    break
        backend.tracer.start_span("after").end()

    traced.register_command_handler(Converse, converse)
    for leave in (True, False):
        await traced.execute(Converse(leave=leave))
    found = backend.parents()
    assert found == {
        "reader": "process Converse",
        "chat m": "process Converse",
        "after": "process Converse",
        "process Converse": None,
    }
    left, read = (span for span in backend.spans if span.name == "chat m")
    assert (left.attributes or {})["llmgine.cancelled"] is True
    assert "llmgine.cancelled" not in (read.attributes or {})


async def test_a_stream_that_is_dropped_elsewhere(traced: MessageBus, backend: Backend) -> None:
    provider = ObservedProvider(ScriptedProvider(), traced)
    stream = provider.stream(LLMRequest(messages=(ChatMessage.user("hello"),), model="m"))

    @dataclass(frozen=True, kw_only=True)
    class Begin(Command[None]):
        pass

    async def begin(command: Begin) -> None:
        await anext(stream)

    traced.register_command_handler(Begin, begin)
    await traced.execute(Begin())
    with backend.tracer.start_as_current_span("elsewhere"):
        await asyncio.create_task(stream.aclose())
        backend.tracer.start_span("after").end()
    assert backend.parents()["chat m"] == "process Begin"
    assert backend.parents()["after"] == "elsewhere"


async def test_tools_and_what_follows_them(traced: MessageBus, backend: Backend) -> None:
    provider = ObservedProvider(ScriptedProvider(), traced)

    def first() -> str:
        """Run in a thread."""
        backend.tracer.start_span("in a thread").end()
        return "1"

    async def second() -> str:
        """Run on the loop, and call a command."""
        await traced.execute(Ask(name="in a tool"))
        return "2"

    @dataclass(frozen=True, kw_only=True)
    class Turn(Command[None]):
        pass

    async def turn(command: Turn) -> None:
        for name in ("first", "second"):
            await manager.execute_tool_call(ToolCall(id="1", name=name))
        await provider.complete(LLMRequest(messages=(ChatMessage.user("hi"),), model="m"))
        await asyncio.gather(
            *(manager.execute_tool_call(ToolCall(id=name, name="third")) for name in "ab")
        )
        backend.tracer.start_span("after").end()

    async with ToolManager(publisher=traced) as manager:
        manager.register_tool(first)
        manager.register_tool(second)
        manager.register_tool(first, name="third")
        traced.register_command_handler(Turn, turn)
        await traced.execute(Turn())
    inside = [span.name for span in backend.spans if span.name == "in a thread"]
    assert len(inside) == 3
    found = backend.parents()
    assert found.pop("in a thread") == "execute_tool third"
    assert found == {
        "execute_tool first": "process Turn",
        "in a tool": "process Ask",
        "process Ask": "execute_tool second",
        "execute_tool second": "process Turn",
        "chat m": "process Turn",
        "execute_tool third": "process Turn",
        "after": "process Turn",
        "process Turn": None,
    }


async def test_measured_stretches_of_work(
    traced: MessageBus, client: ObservabilityClient, backend: Backend
) -> None:
    with client.span("outer"):
        await traced.execute(Ask(name="inside"))
        with client.span("inner"):
            pass
    await traced.execute(Ask(name="after"))
    assert _ancestors(backend, "inside") == ["process Ask", "outer"]
    assert _ancestors(backend, "inner") == ["outer"]
    assert _ancestors(backend, "after") == ["process Ask"]


async def test_a_command_from_another_process(traced: MessageBus, backend: Backend) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await traced.execute(Ask(name="here", metadata={"traceparent": parent}))
    (span,) = (each for each in backend.spans if each.name == "process Ask")
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.kind is SpanKind.CONSUMER


async def test_fifty_sessions_keep_their_traces_apart(traced: MessageBus, backend: Backend) -> None:
    async def on_step(event: Step) -> None:
        await asyncio.sleep(0)
        await traced.execute(Ask(name=f"handled {event.name}"))

    async def converse(number: int) -> None:
        async with traced.session(f"s{number}") as session:
            session.register_event_handler(Step, on_step)
            with backend.tracer.start_as_current_span(f"root {number}"):
                await session.execute(Ask(name=f"turn {number}", ask=(f"nested {number}",)))
                await session.publish(Step(name=f"step {number}"))

    await asyncio.gather(*(converse(number) for number in range(50)))
    for number in range(50):
        root = f"root {number}"
        assert _ancestors(backend, f"turn {number}") == ["process Ask", root]
        nested = _ancestors(backend, f"nested {number}")
        assert nested == ["process Ask", f"turn {number}", "process Ask", root]
        assert _ancestors(backend, f"handled step {number}") == ["process Ask", root]
    sessions: dict[int, set[object]] = {}
    for span in backend.spans:
        if span.name == "process Ask" and span.context is not None:
            of_trace = sessions.setdefault(span.context.trace_id, set())
            of_trace.add((span.attributes or {})["gen_ai.conversation.id"])
    assert len(sessions) == 50
    assert all(len(found) == 1 for found in sessions.values())

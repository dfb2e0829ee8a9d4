"""OpenTelemetry: commands, model calls and tools as spans, the other events as log records.

It needs OpenTelemetry's API alone; `otel_sdk` has what sends all this somewhere.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from llmgine.contracts import events as kinds
from llmgine.contracts.messages import Event
from llmgine.errors import CallCancelledError
from llmgine.observability import _otel_attributes as attributes
from llmgine.observability import _otel_names as names
from llmgine.observability import _otel_values as said
from llmgine.observability._otel_errors import error_type, error_values
from llmgine.observability._otel_meters import Meters
from llmgine.observability._otel_spans import SpanTable, carried, remote
from llmgine.observability._otel_values import Providers
from llmgine.observability.handler import HandlerReport, ObservabilityEventHandler, Reading
from llmgine.observability.record import to_record
from llmgine.settings import OtelSettings

__all__ = ["OpenTelemetryEventHandler", "Providers", "build"]

_MAX_WAITING = 20_000
_SHARE = 0.9  # of a limit; what is left of it is for the caller to conclude with
_WITH_CONTENT = frozenset({"true", "1", "span_only", "event_only", "span_and_event"})
_SEVERITIES: Final[Mapping[str, str]] = {"warning": "WARN", "critical": "FATAL"}


class OpenTelemetryEventHandler(ObservabilityEventHandler):
    """Tells OpenTelemetry what happens, under the published conventions' names.

    The spans of commands, tools and `ObservabilityClient.span` are current while their code runs,
    so that spans of other libraries lie in them. A model call's isn't: its stream may be read
    anywhere. Every span has the session as `gen_ai.conversation.id`.

    Args:
        settings: which signals there are, and whether content is among them.
        providers: what takes them; by default the process's global providers, which do nothing
            until somebody sets them.
    """

    def __init__(
        self, settings: OtelSettings | None = None, providers: Providers | None = None
    ) -> None:
        settings, providers = settings or OtelSettings(), providers or Providers()
        capture = os.environ.get(names.CAPTURE_CONTENT, "").strip().lower()
        self._content = capture in _WITH_CONTENT if capture else settings.content
        self._pipelines = providers.pipelines
        traces = providers.traces if settings.traces else trace.NoOpTracerProvider()
        meters = providers.metrics if settings.metrics else metrics.NoOpMeterProvider()
        self._spans = SpanTable(trace.get_tracer(names.SCOPE, tracer_provider=traces))
        self._meters = Meters(metrics.get_meter(names.SCOPE, meter_provider=meters))
        self._logs = settings.logs
        self._logger = _logs.get_logger(names.SCOPE, logger_provider=providers.logs)
        self._contexts: OrderedDict[str, Context] = OrderedDict()
        self._steps: dict[type, Callable[[Any], None]] = {
            kinds.CommandStartedEvent: self._command_started,
            kinds.CommandResultEvent: self._command_result,
            kinds.LLMCallStartedEvent: self._model_started,
            kinds.LLMCallResultEvent: self._model_result,
            kinds.ToolExecuteStartedEvent: self._tool_started,
            kinds.ToolExecuteResultEvent: self._tool_result,
            kinds.SpanStartedEvent: self._span_started,
            kinds.SpanEndedEvent: self._span_ended,
        }

    def start(self) -> None:
        """Begin to send, or begin once more."""
        for pipeline in self._pipelines:
            pipeline.start()

    def observe(self, event: Event) -> bool:
        """Begin and end spans here, where they are; remember in which trace the others are."""
        step = self._steps.get(type(event))
        if step is not None:
            step(event)
            return True
        if self._logs:
            self._contexts[event.id] = self._spans.around(event)
            if len(self._contexts) > _MAX_WAITING:  # `handle` never gets what the buffer dropped
                self._contexts.popitem(last=False)
        return False

    def carry(self) -> Mapping[str, str]:
        """Return the current trace's `traceparent`, and its `tracestate` if it has one."""
        return carried(self._spans.here())

    def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
        """Make the trace that a `traceparent` tells of the current one."""
        return self._spans.join(carried)

    def handle(self, event: Event) -> None:
        """Write a log record, or add a measurement to the others of its name."""
        if isinstance(event, kinds.MetricEvent):
            if isfinite(event.value):
                self._meters.measurement(event)
        elif self._logs:
            context = remote(event.metadata, self._contexts.pop(event.id, Context()))
            self._logger.emit(_log_record(event, context, content=self._content))

    def watch(self, name: str, unit: str, read: Reading, *, total: bool = False) -> None:
        """Report a number as a gauge, or, where it only ever grows, as a counter."""
        self._meters.watch(name, unit, read, total=total)

    def flush(self, timeout: float) -> None:
        """Send what waits.

        Raises:
            TimeoutError: it couldn't be sent in time.
        """
        deadline = time.monotonic() + timeout * _SHARE
        targets = [(each, each.hurry()) for each in self._pipelines]
        for pipeline, target in targets:
            if not pipeline.wait(target, max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"the OTLP backend didn't take everything in {timeout:.3g} s")

    def stop(self, timeout: float) -> None:
        """End the spans that are open, send what waits, and end; what is left is counted.

        Raises:
            TimeoutError: there was something left.
        """
        self._spans.end_all()
        try:
            self.flush(timeout)
        finally:
            for pipeline in self._pipelines:
                pipeline.close()

    def accounts(self) -> tuple[HandlerReport, ...]:
        """Return an account for each signal: what the backend has acknowledged is delivered."""
        return tuple(each.account() for each in self._pipelines)

    # -- What begins and ends

    def _command_started(self, event: kinds.CommandStartedEvent) -> None:
        name = said.clean(type(event.command).__name__)
        values = attributes.command(event, name)
        self._spans.start(event.command.id, f"process {name}", event, values, message=event.command)

    def _command_result(self, event: kinds.CommandResultEvent) -> None:
        result, values, error, failure = event.result, said.Values(), event.result.error, ""
        if result.status == "cancelled":
            error, values[names.CANCELLED] = None, True
        elif result.status == "error":
            failure = "error" if error is None else error_type(error)
        self._spans.end(event.command.id, event, values, error=error, failure=failure)
        self._meters.command(said.clean(type(event.command).__name__), result.duration, failure)

    def _model_started(self, event: kinds.LLMCallStartedEvent) -> None:
        values = attributes.model_request(event)
        if self._content:
            values[names.INPUT_MESSAGES] = attributes.messages_text(event.request.messages)
        name = f"{names.CHAT} {said.clean(event.request.model)}".rstrip()
        self._spans.start(event.call_id, name, event, values, kind=SpanKind.CLIENT, current=False)

    def _model_result(self, event: kinds.LLMCallResultEvent) -> None:
        values, error = attributes.model_response(event), event.error
        if self._content and event.response is not None:
            values[names.OUTPUT_MESSAGES] = attributes.messages_text((event.response.message,))
        if isinstance(error, CallCancelledError):
            error, values[names.CANCELLED] = None, True
        name = f"{names.CHAT} {model}" if (model := values.get(names.RESPONSE_MODEL)) else ""
        begun = self._spans.end(event.call_id, event, values, error=error, name=name)
        self._meters.model(event, begun, "" if error is None else error_type(error))

    def _tool_started(self, event: kinds.ToolExecuteStartedEvent) -> None:
        values = attributes.tool_call(event)
        if self._content:
            values[names.TOOL_ARGUMENTS] = said.clean(event.call.arguments)
        name = f"{names.EXECUTE_TOOL} {said.clean(event.call.name)}"
        self._spans.start(_tool_key(event), name, event, values)

    def _tool_result(self, event: kinds.ToolExecuteResultEvent) -> None:
        result, values = event.result, said.Values()
        if self._content:
            values[names.TOOL_RESULT] = said.clean(result.text)
        failure = said.clean(result.error_code or "tool_error") if result.is_error else ""
        self._spans.end(_tool_key(event), event, values, failure=failure)
        self._meters.tool(said.clean(event.call.name), event.duration, failure)

    def _span_started(self, event: kinds.SpanStartedEvent) -> None:
        values = said.known({names.CONVERSATION: event.session_id}) | said.plain(event.attributes)
        self._spans.start(event.id, said.clean(event.name), event, values)

    def _span_ended(self, event: kinds.SpanEndedEvent) -> None:
        self._spans.end(event.span_id, event, {}, error=event.error)


def build(settings: OtelSettings) -> OpenTelemetryEventHandler:
    """Make the handler, and what sends over OTLP, from the settings and `OTEL_*` variables.

    Raises:
        ConfigurationError: a variable says what can't be done.
    """
    from llmgine.observability.otel_sdk import otlp

    return OpenTelemetryEventHandler(settings, otlp(settings))


def _tool_key(event: kinds.ToolExecuteStartedEvent | kinds.ToolExecuteResultEvent) -> object:
    # Providers number their calls, so two sessions may well have the same.
    return event.session_id, event.parent_id, event.call.id


def _log_record(event: Event, context: Context, *, content: bool) -> LogRecord:
    values = said.known({names.CONVERSATION: event.session_id})
    severity, name, body = SeverityNumber.INFO, said.event_name(type(event)), type(event).__name__
    if isinstance(event, kinds.LogEvent):
        severity = SeverityNumber[_SEVERITIES.get(event.level, event.level.upper())]
        name, body = "", event.text
        values |= said.plain(event.attributes)
    else:
        record = to_record(event, content=content)
        if isinstance(event, kinds.EventHandlerFailedEvent | kinds.SessionEndEvent) and event.error:
            severity = SeverityNumber.ERROR
            record["error"] = None
            values |= {names.ERROR_TYPE: error_type(event.error)} | error_values(event.error)
        values |= said.fields_of(record)
    return LogRecord(
        timestamp=said.nanoseconds(event.timestamp),
        context=context,
        severity_number=severity,
        severity_text=severity.name,
        body=said.clean(body),
        attributes=values,
        event_name=name or None,
    )

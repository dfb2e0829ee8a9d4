"""OpenTelemetry's SDK and its OTLP exporters: the one file that imports them.

`OTEL_*` variables win over the settings. Providers that the application has set for the process
are used, and send here as well; otherwise there are some of our own, for this handler alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import copy
from functools import partial
from importlib import import_module
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider

from llmgine.errors import ConfigurationError
from llmgine.observability._otel_links import ExporterLink, Witness, watch_calls
from llmgine.observability._otel_pipeline import Pipeline
from llmgine.observability._otel_values import LONGEST, Providers
from llmgine.settings import OtelSettings

__all__ = ["otlp"]

_OVERHEAD = 500
_PROTO = "opentelemetry.exporter.otlp.proto"
_PACKAGES: Final[Mapping[str, str]] = {"http/protobuf": "http", "grpc": "grpc"}
_EXPORTERS: Final[Mapping[str, str]] = {
    "traces": "trace_exporter:OTLPSpanExporter",
    "metrics": "metric_exporter:OTLPMetricExporter",
    "logs": "_log_exporter:OTLPLogExporter",
}


def otlp(settings: OtelSettings) -> Providers:
    """Make what sends spans, measurements and log records, each signal on a thread of its own.

    Raises:
        ConfigurationError: the settings or a variable ask for what can't be done.
    """
    resource = Resource.create({"service.name": settings.service_name})
    resource = resource.merge(OTELResourceDetector().detect())
    found = Providers()
    if settings.traces and _wanted("traces"):
        _add_traces(found, settings, resource)
    if settings.metrics and _wanted("metrics"):
        _add_metrics(found, settings, resource)
    if settings.logs and _wanted("logs"):
        _add_logs(found, settings, resource)
    return found


def _add_traces(found: Providers, settings: OtelSettings, resource: Resource) -> None:
    pipeline = _batched("traces", "BSP", settings)
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        longest = int(_number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", LONGEST, 0))
        limits = SpanLimits(max_attribute_length=longest)
        provider = TracerProvider(resource=resource, shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(_Spans(pipeline))
    found.traces = provider
    found.pipelines.append(pipeline)


def _add_metrics(found: Providers, settings: OtelSettings, resource: Resource) -> None:
    make = _exporter("metrics", settings)
    # What the backend wants, say differences; a variable of OpenTelemetry's decides.
    wants = _made_once(make)
    reader = _Measurements(wants["_preferred_temporality"], wants["_preferred_aggregation"])
    delay = _milliseconds("OTEL_METRIC_EXPORT_INTERVAL", settings.metric_interval, 10)
    reader.pipeline = Pipeline(
        "OTLP metrics", partial(_link, make), size=1, batch=1, delay=delay, collect=reader.collect
    )
    provider = metrics.get_meter_provider()
    if isinstance(provider, MeterProvider):
        provider.add_metric_reader(reader)
    else:
        provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    found.metrics = provider
    found.pipelines.append(reader.pipeline)


def _add_logs(found: Providers, settings: OtelSettings, resource: Resource) -> None:
    pipeline = _batched("logs", "BLRP", settings)
    provider = _logs.get_logger_provider()
    if not isinstance(provider, sdk_logs.LoggerProvider):
        provider = sdk_logs.LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(_LogRecords(pipeline))
    found.logs = provider
    found.pipelines.append(pipeline)


def _batched(signal: str, prefix: str, settings: OtelSettings) -> Pipeline[Any]:
    return Pipeline(
        f"OTLP {signal}",
        partial(_link, _exporter(signal, settings)),
        size=_number(f"OTEL_{prefix}_MAX_QUEUE_SIZE", settings.queue_size, 1),
        batch=_number(f"OTEL_{prefix}_MAX_EXPORT_BATCH_SIZE", settings.batch_size, 1),
        delay=_milliseconds(f"OTEL_{prefix}_SCHEDULE_DELAY", settings.delay),
    )


# -- From the SDK's providers into the pipelines


class _Spans(SpanProcessor):
    """Hands finished spans on."""

    def __init__(self, pipeline: Pipeline[ReadableSpan]) -> None:
        self._pipeline = pipeline

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, unless it was sampled out."""
        if span.context and span.context.trace_flags.sampled:
            events = sum(_weight(event.attributes) for event in span.events)
            self._pipeline.put(span, _weight(span.attributes) + events)


class _LogRecords(sdk_logs.LogRecordProcessor):
    """Hands log records on."""

    def __init__(self, pipeline: Pipeline[sdk_logs.ReadableLogRecord]) -> None:
        self._pipeline = pipeline

    def on_emit(self, log_record: sdk_logs.ReadWriteLogRecord) -> None:
        """Take a record, without the context that it came from."""
        record = copy(log_record.log_record)
        record.context = Context()
        resource = log_record.resource or Resource.get_empty()
        scope, limits = log_record.instrumentation_scope, log_record.limits
        readable = sdk_logs.ReadableLogRecord(record, resource, scope, limits)
        self._pipeline.put(readable, _weight(record.attributes) + len(str(record.body)))

    def shutdown(self) -> None:
        """Do nothing: the handler ends the pipeline."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._pipeline.wait(self._pipeline.hurry(), timeout_millis / 1000)


class _Measurements(MetricReader):
    """Hands on what was measured whenever it is asked to `collect`."""

    pipeline: Pipeline[MetricsData]

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> None:
        del timeout_millis, kwargs
        self.pipeline.put(metrics_data)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Do nothing: the handler ends the pipeline."""


def _weight(attributes: Mapping[str, object] | None) -> int:
    values = (attributes or {}).values()
    return _OVERHEAD + sum(len(value) for value in values if isinstance(value, str))


# -- From the pipelines to the backend


def _exporter(signal: str, settings: OtelSettings) -> partial[Any]:
    """Return what makes the exporter of a signal, which connects when it first sends."""
    protocol = _variable(signal, "PROTOCOL") or settings.protocol
    if protocol not in _PACKAGES:
        expected = " or ".join(_PACKAGES)
        text = f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {expected}, found {protocol!r}"
        raise ConfigurationError(text)
    options: dict[str, object] = {}
    if not _variable(signal, "ENDPOINT"):
        path = "" if protocol == "grpc" else f"/v1/{signal}"
        options["endpoint"] = settings.endpoint.rstrip("/") + path
    if settings.headers and not _variable(signal, "HEADERS"):
        options["headers"] = {name.lower(): each for name, each in settings.headers.items()}
    module, _, name = _EXPORTERS[signal].partition(":")
    try:
        kind = vars(import_module(f"{_PROTO}.{_PACKAGES[protocol]}.{module}"))[name]
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"otel.protocol: {protocol!r} needs the package {error.name!r}; its extra brings it: "
            "write llmgine[otel,otlp] in the root's pyproject.toml, then `uv sync`"
        ) from error
    make = partial(kind, **options)
    _made_once(make)
    return make


def _made_once(make: partial[Any]) -> dict[str, Any]:
    """Make an exporter, to see that it can be made, and return what it holds.

    Raises:
        ConfigurationError: a variable says what it can't be made from.
    """
    try:
        exporter = make()
    except Exception as error:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_...: {error}") from error
    exporter.shutdown()
    return exporter.__dict__


def _link(make: partial[Any]) -> ExporterLink:
    """Make a link to the backend."""
    if "grpc" in make.func.__module__:
        exporter = make()
        return ExporterLink(exporter, watch_calls(exporter))
    witness = Witness()
    return ExporterLink(make(session=witness), witness.ends)


def _wanted(signal: str) -> bool:
    """Tell whether OpenTelemetry's own variables leave a signal on."""
    name = f"OTEL_{signal.upper()}_EXPORTER"
    chosen = os.environ.get(name, "").strip().lower() or "otlp"
    if chosen not in ("otlp", "none"):
        raise ConfigurationError(f"{name}: expected otlp or none, found {chosen!r}")
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return chosen == "otlp" and not disabled


def _variable(signal: str, name: str) -> str:
    """Return what a variable says for this signal, or else for all."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "")
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def _milliseconds(name: str, otherwise: float, least: float = 0.0) -> float:
    """Return the seconds that a variable says in milliseconds."""
    return _number(name, otherwise * 1000, least) / 1000


def _number(name: str, otherwise: float, least: float) -> float:
    said = os.environ.get(name, "").strip()
    try:
        number = float(said) if said else otherwise
    except ValueError:
        raise ConfigurationError(f"{name}: expected a number, found {said!r}") from None
    if not number >= least:  # which "not a number" isn't, either
        raise ConfigurationError(f"{name}: expected a number from {least:g} up, found {said!r}")
    return number

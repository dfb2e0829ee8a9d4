"""The instruments of OpenTelemetry's metrics, and what is recorded with them."""

from __future__ import annotations

from functools import partial

from opentelemetry.metrics import Histogram, Meter, Observation

from llmgine.contracts import events as kinds
from llmgine.observability import _otel_names as names
from llmgine.observability import _otel_values as said
from llmgine.observability.handler import Reading

__all__ = ["Meters"]

_MAX_INSTRUMENTS = 1000
_OF_A_CALL = names.OPERATION, names.PROVIDER, names.REQUEST_MODEL


class Meters:
    """The instruments, under the published conventions' names.

    Args:
        meter: makes them.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        timer = partial(
            meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=names.SECONDS
        )
        self._process, self._tool = timer(names.PROCESS_DURATION), timer(names.TOOL_DURATION)
        self._client = timer(names.CLIENT_DURATION)
        self._first_chunk = timer(names.CLIENT_FIRST_CHUNK)
        self._tokens = meter.create_histogram(
            names.CLIENT_TOKENS, "{token}", explicit_bucket_boundaries_advisory=names.TOKENS
        )
        self._others: dict[tuple[str, str], Histogram] = {}

    def command(self, name: str, duration: float, failure: str) -> None:
        """Note a command that has ended."""
        values = {
            names.MESSAGING_SYSTEM: names.SCOPE,
            names.MESSAGING_OPERATION: names.PROCESS,
            names.MESSAGING_DESTINATION: name,
        }
        if failure:
            values[names.ERROR_TYPE] = failure
        self._process.record(duration, values)

    def tool(self, name: str, duration: float, failure: str) -> None:
        """Note a tool that has ended."""
        self._tool.record(duration, said.known({names.TOOL_NAME: name, names.ERROR_TYPE: failure}))

    def model(self, event: kinds.LLMCallResultEvent, begun: said.Values, failure: str) -> None:
        """Note a model call that has ended."""
        response = event.response
        values = {name: begun[name] for name in _OF_A_CALL if name in begun}
        if response is not None:
            values |= said.known({names.RESPONSE_MODEL: response.model})
            self._count(values, "input", response.usage.input_tokens)
            self._count(values, "output", response.usage.output_tokens)
        self._client.record(event.duration, values | said.known({names.ERROR_TYPE: failure}))
        if event.time_to_first_chunk is not None:
            self._first_chunk.record(event.time_to_first_chunk, values)

    def _count(self, values: said.Values, kind: str, tokens: int | None) -> None:
        if tokens is not None:
            self._tokens.record(tokens, values | {names.TOKEN_TYPE: kind})

    def watch(self, name: str, unit: str, read: Reading, *, total: bool) -> None:
        """Have a number read whenever measurements are collected."""
        meter = self._meter
        make = meter.create_observable_counter if total else meter.create_observable_gauge
        make(name, [lambda _options: (Observation(read()),)], unit)

    def measurement(self, event: kinds.MetricEvent) -> None:
        """Add an application's own measurement to the others of its name."""
        key = event.name, event.unit
        histogram = self._others.get(key)
        if histogram is None:
            if len(self._others) >= _MAX_INSTRUMENTS:
                return
            histogram = self._meter.create_histogram(said.clean(event.name), said.clean(event.unit))
            self._others[key] = histogram
        histogram.record(event.value, said.plain(event.attributes))

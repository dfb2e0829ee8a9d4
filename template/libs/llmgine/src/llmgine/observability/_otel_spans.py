"""Spans that are open: from the event that begins something to the event that ends it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import partial

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llmgine.contracts.ambient import current_parent_id
from llmgine.contracts.messages import Event, Message
from llmgine.observability import _otel_names as names
from llmgine.observability._otel_errors import error_text, error_type, error_values
from llmgine.observability._otel_values import Values, clean, nanoseconds

__all__ = ["SpanTable", "carried", "remote"]

_MAX_OPEN = 10_000
_MAX_SEEN = 8
_OPEN = contexts.create_key("llmgine-open-span")
_JOINED_IN = contexts.create_key("llmgine-joined-in-span")
_PROPAGATOR = TraceContextTextMapPropagator()


class _OpenSpan:
    """A span that has begun.

    Attributes:
        span: the span.
        values: the attributes that it was begun with.
        before: the context that it was begun in.
        context: the same with this span as the current one.
        outer: the span of ours that it lies in.
        seen: what inner spans have failed with and recorded.
        ended: whether it is over.
    """

    __slots__ = ("before", "context", "ended", "outer", "seen", "span", "values")

    def __init__(
        self, span: Span, values: Values, before: Context, outer: _OpenSpan | None
    ) -> None:
        self.span, self.values, self.before, self.outer = span, values, before, outer
        self.seen: tuple[BaseException, ...] = ()
        self.ended = False
        inside = trace.set_span_in_context(span, before)
        self.context = contexts.set_value(_OPEN, self, inside)


class SpanTable:
    """Begins and ends spans, each in the place where its event is observed.

    A context is attached by value, never detached by a token: an end may be observed in another
    context than the beginning, where a task of its own tells of it, or a generator is closed.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._process = os.getpid()
        # Ordered, since taking out the oldest is then one step that no other thread can get into.
        self._open: OrderedDict[Hashable, _OpenSpan] = OrderedDict()

    def here(self) -> Context:
        """Return the context that the calling code runs in."""
        context = contexts.get_current()
        while (ended := _opened(context)) and ended.ended and ended.context is context:
            context = ended.before  # its end was observed elsewhere
            contexts.attach(context)
        return context

    def around(self, event: Event) -> Context:
        """Return the context that an event belongs in."""
        context = self.here()
        if event.parent_id is not None and event.parent_id != current_parent_id():
            named = self._open.get(event.parent_id)
            # Within a span another trace may have been joined, which holds for what follows.
            if named is not None and context.get(_JOINED_IN) is not named:
                return named.context
        return context

    def start(
        self,
        key: Hashable,
        name: str,
        event: Event,
        values: Values,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        current: bool = True,
        message: Message | None = None,
    ) -> None:
        """Begin a span, and make it the current one here unless told otherwise.

        Args:
            key: what the event that ends it is known by.
            name: the span's name.
            event: what begins it.
            values: its attributes.
            kind: its kind.
            current: whether what happens here next lies in it.
            message: a message that may come from another process. Its span is a consumer's where
                it lies in none of ours.
        """
        self._leave_to_parent()
        before = self.around(event)
        outer = _opened(before)
        if message is not None:
            if message.metadata:
                before = remote(message.metadata, before)
            kind = SpanKind.CONSUMER if outer is None else SpanKind.INTERNAL
        began = nanoseconds(event.timestamp)
        span = self._tracer.start_span(name, before, kind, values, start_time=began)
        opened = self._open[key] = _OpenSpan(span, values, before, outer)
        if current:
            contexts.attach(opened.context)
        if len(self._open) > _MAX_OPEN:
            _abandon(self._open.popitem(last=False)[1])

    def end(
        self,
        key: Hashable,
        event: Event,
        values: Values,
        *,
        error: BaseException | None = None,
        failure: str = "",
        name: str = "",
    ) -> Values:
        """End a span, once, and return what it was begun with; without one do nothing.

        Args:
            key: that of its start.
            event: what ends it.
            values: further attributes.
            error: what it failed with.
            failure: the kind of failure, where there is no exception.
            name: its name, where it was begun without knowing the model.
        """
        opened = self._open.pop(key, None)
        if opened is None:
            return {}
        opened.ended = True
        if contexts.get_current() is opened.context:
            contexts.attach(opened.before)
        span = opened.span
        if name and names.REQUEST_MODEL not in opened.values:
            span.update_name(name)
        if (values or error is not None or failure) and span.is_recording():
            span.set_attributes(values)
            if error is not None:
                _record(opened, error)
            elif failure:
                span.set_attribute(names.ERROR_TYPE, clean(failure))
                span.set_status(Status(StatusCode.ERROR, clean(failure)))
        span.end(nanoseconds(event.timestamp))
        opened.seen = ()
        return opened.values

    def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
        """Let a trace of another process be the current one here; return what ends that."""
        before = self.here()
        inside = _PROPAGATOR.extract(carried, before)
        if inside is before:
            return lambda: None
        inside = contexts.set_value(_JOINED_IN, _opened(before), inside)
        contexts.attach(contexts.set_value(_OPEN, None, inside))
        return partial(contexts.attach, before)

    def end_all(self) -> None:
        """End what nothing has ended: a span that is open is never sent."""
        self._leave_to_parent()
        while self._open:
            _abandon(self._open.popitem()[1])

    def _leave_to_parent(self) -> None:
        # In a forked process: the other one ends those that were open then.
        if self._process != os.getpid():
            self._process = os.getpid()
            self._open.clear()


def _opened(context: Context) -> _OpenSpan | None:
    found = context.get(_OPEN)
    return found if isinstance(found, _OpenSpan) else None


def _abandon(opened: _OpenSpan) -> None:
    opened.ended = True
    opened.span.set_attributes({names.ABANDONED: True})
    opened.span.set_status(Status(StatusCode.ERROR, "abandoned: its end was never seen"))
    opened.span.end()


def _record(opened: _OpenSpan, error: BaseException) -> None:
    span = opened.span
    span.set_attribute(names.ERROR_TYPE, error_type(error))
    span.set_status(Status(StatusCode.ERROR, error_text(error)))
    if not any(each is error for each in opened.seen):
        span.add_event(names.EXCEPTION, error_values(error))
    if opened.outer is not None:
        opened.outer.seen = (*opened.outer.seen[1 - _MAX_SEEN :], error)


def carried(context: Context) -> dict[str, str]:
    """Return what tells another process of the trace in a context, if there is one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier


def remote(metadata: Mapping[str, str], context: Context) -> Context:
    """Return the context that came along with a message, where there is none here."""
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    return _PROPAGATOR.extract(metadata, context)

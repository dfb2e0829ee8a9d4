"""Stretches of work that an application measures."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from contextvars import ContextVar

from llmgine.contracts.ambient import current_parent_id
from llmgine.contracts.events import AttributeValue, SpanEndedEvent, SpanStartedEvent
from llmgine.contracts.protocols import ObservabilitySink

__all__ = ["Span", "emitting_parent_id"]

# The id of the span that is open here, and what was being handled when it was opened.
_open_span: ContextVar[tuple[str, str | None] | None] = ContextVar("llmgine_span", default=None)


def emitting_parent_id() -> str | None:
    """Return the id of the span, or else of the message, within which the calling code runs."""
    # Within a span, unless a message is being handled that the span doesn't enclose.
    span = _open_span.get()
    parent = current_parent_id()
    return span[0] if span is not None and span[1] == parent else parent


class Span(AbstractContextManager[None]):
    """The block of `ObservabilityClient.span`; it can be entered once.

    Args:
        sink: who is told of its start and its end.
        name: what is measured.
        attributes: what else there is to say of it.
    """

    def __init__(
        self, sink: ObservabilitySink, name: str, attributes: dict[str, AttributeValue]
    ) -> None:
        self._sink = sink
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> None:
        self._started = SpanStartedEvent(
            name=self._name, attributes=self._attributes, parent_id=emitting_parent_id()
        )
        self._sink.observe(self._started)
        self._outer = _open_span.get()
        _open_span.set((self._started.id, current_parent_id()))
        self._began = time.perf_counter()

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        duration = time.perf_counter() - self._began
        # By value, since a token can't be reset where a generator is closed in another context.
        _open_span.set(self._outer)
        self._sink.observe(
            SpanEndedEvent(
                span_id=self._started.id,
                session_id=self._started.session_id,
                parent_id=self._started.parent_id,
                name=self._name,
                attributes=self._attributes,
                error=error,
                duration=duration,
            )
        )

"""The client: every event it is given reaches every handler, and never the other way round."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from threading import TIMEOUT_MAX, Lock
from typing import TypeVar

from llmgine.contracts.ambient import current_parent_id
from llmgine.contracts.events import (
    AttributeValue,
    LogEvent,
    LogLevel,
    MetricEvent,
    SpanEndedEvent,
    SpanStartedEvent,
)
from llmgine.contracts.messages import Event, Message
from llmgine.errors import ConfigurationError
from llmgine.observability._channel import Channel
from llmgine.observability._snapshot import snapshot
from llmgine.observability.handler import (
    HandlerReport,
    ObservabilityEventHandler,
    ObservabilityReport,
    Reading,
)
from llmgine.settings import ObservabilitySettings

__all__ = ["ObservabilityClient", "emitting_parent_id"]

MessageT = TypeVar("MessageT", bound=Message)

_log = logging.getLogger("llmgine.observability")
# The id of the span that is open here, and what was being handled when it was opened.
_open_span: ContextVar[tuple[str, str | None] | None] = ContextVar("llmgine_span", default=None)


class ObservabilityClient:
    """Hands events to handlers, each through a buffer and a thread of its own.

        client = ObservabilityClient([ConsoleEventHandler()])
        client.log("info", "ready", port=8080)
        with client.span("warm-up"):
            ...
        report = await client.stop()

    It knows nothing of the bus; whoever has events calls `observe`, on any thread. Nothing that a
    handler does, or fails to do, reaches the caller. `flush` and `stop` wait without holding up
    the event loop; `close` is `stop` for code without one, such as an `atexit` function.

    In a forked process the handlers begin anew, with empty buffers and threads of their own. A
    process that ends by `os._exit`, as those of `multiprocessing` do, calls `close` first.

    Args:
        handlers: who gets the events; more come by `add_handler`.
        settings: sizes and limits, the same for each handler.
    """

    def __init__(
        self,
        handlers: Iterable[ObservabilityEventHandler] = (),
        settings: ObservabilitySettings | None = None,
    ) -> None:
        self._settings = settings or ObservabilitySettings()
        self._lock = Lock()
        self._channels: tuple[Channel, ...] = ()
        self._stopped = False
        for handler in handlers:
            self.add_handler(handler)

    @property
    def handlers(self) -> tuple[ObservabilityEventHandler, ...]:
        """The handlers, in the order in which they were added."""
        return tuple(channel.handler for channel in self._channels)

    def add_handler(self, handler: ObservabilityEventHandler) -> None:
        """Let a handler have all events from now on, and start its thread.

        Raises:
            ConfigurationError: the client has stopped, or has this handler already.
        """
        with self._lock:
            if self._stopped:
                raise ConfigurationError("a stopped observability client takes no more handlers")
            if any(channel.handler is handler for channel in self._channels):
                raise ConfigurationError(f"this {type(handler).__name__} was added before")
            channel = Channel(handler, self._free_name(handler), self._settings.buffer_size)
            channel.start()
            self._channels = (*self._channels, channel)

    async def remove_handler(
        self, handler: ObservabilityEventHandler, timeout: float | None = None
    ) -> HandlerReport:
        """Give a handler no more events, let it finish as `stop` does, and return its account.

        Raises:
            ConfigurationError: the client doesn't have this handler.
        """
        with self._lock:
            found = [channel for channel in self._channels if channel.handler is handler]
            if not found:
                raise ConfigurationError(f"this {type(handler).__name__} was never added")
            self._channels = tuple(each for each in self._channels if each is not found[0])
        channel = found[0]
        limit = _limit(timeout, self._settings.stop_timeout)
        await _all_done([channel.finish(time.monotonic() + limit)], limit)
        channel.abandon()
        return channel.report()

    def observe(self, event: Event) -> None:
        """Hand an event to every handler: at once, in memory only, without raising.

        A class with `observed = False` is skipped.
        """
        channels = self._channels
        if not channels or not event.observed:
            return
        kept: Event | None = None
        for channel in channels:
            if not channel.observe(event):
                kept = snapshot(event) if kept is None else kept
                channel.put(kept)

    def log(self, level: LogLevel, text: str, /, **attributes: AttributeValue) -> None:
        """Emit a line for the log."""
        event = LogEvent(
            level=level, text=text, attributes=attributes, parent_id=emitting_parent_id()
        )
        self.observe(event)

    def metric(
        self, name: str, value: float, unit: str = "1", /, **attributes: AttributeValue
    ) -> None:
        """Emit a measurement, in a unit as UCUM writes it: `s`, `By`, `{request}`."""
        event = MetricEvent(
            name=name, value=value, unit=unit, attributes=attributes, parent_id=emitting_parent_id()
        )
        self.observe(event)

    def watch(self, name: str, unit: str, read: Reading, *, total: bool = False) -> None:
        """Let the handlers there are report a number, as `ObservabilityEventHandler.watch` says."""
        for handler in self.handlers:
            handler.watch(name, unit, read, total=total)

    def span(self, name: str, /, **attributes: AttributeValue) -> AbstractContextManager[None]:
        """Measure a stretch of work: an event when the block is entered, another when it is left.

        Inner spans, log lines and measurements have the span as their parent. What the block
        raises is in the second event, and goes on.
        """
        return _Span(self, name, attributes)

    def carrier(self) -> dict[str, str]:
        """Return what another process has to be told to join the trace that this code is in.

        It goes along as the headers of a request, or as a message's metadata. It is empty where
        there is no trace, or no handler that follows one.
        """
        carried: dict[str, str] = {}
        for channel in self._channels:
            carried |= channel.ask(channel.handler.carry, {})
        return carried

    def traced(self, message: MessageT) -> MessageT:
        """Return a copy of a message for another process, with `carrier` in its metadata.

        It has the same id and timestamp. Where there is nothing to carry it is the message itself.
        """
        carried = self.carrier()
        if not carried:
            return message
        copied = copy.copy(message)
        object.__setattr__(copied, "metadata", {**message.metadata, **carried})
        return copied

    @contextmanager
    def joined(self, carried: Mapping[str, str]) -> Generator[None]:
        """Let a block belong to the trace that a `carrier` of another process tells of.

        A command whose metadata tells of one joins it by itself; what publishes an event for
        another process does so within such a block, which the event's handlers then belong to.
        """
        channels = self._channels
        ends = [(each, each.ask(partial(each.handler.join, carried), None)) for each in channels]
        try:
            yield
        finally:
            for channel, end in reversed(ends):
                if end is not None:
                    channel.ask(end, None)

    def report(self) -> ObservabilityReport:
        """Return every handler's account as it is now, and those of what handlers send on."""
        channels = self._channels
        own = tuple(each.report() for each in channels)
        sent = (account for each in channels for account in each.handler.accounts())
        return ObservabilityReport(handlers=(*own, *sent))

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything observed so far is dealt with; return whether it was in time."""
        limit = _limit(timeout, self._settings.flush_timeout)
        deadline = time.monotonic() + limit
        pending = [channel.flush(deadline) for channel in self._channels]
        await _all_done(pending, limit)
        return all(each.done() and each.result() for each in pending)

    async def stop(self, timeout: float | None = None) -> ObservabilityReport:
        """Let every handler finish, at most for `timeout` seconds in all; return the accounts.

        What a handler leaves undone by then is counted: as `unconfirmed` what it has in hand, as
        dropped what waits. Events that come later are counted as dropped. A second call returns
        the accounts once more.
        """
        limit = _limit(timeout, self._settings.stop_timeout)
        await _all_done(self._finish_all(limit), limit)
        return self._conclude()

    def close(self, timeout: float | None = None) -> ObservabilityReport:
        """Do what `stop` does, in code that can't await; it blocks the calling thread."""
        limit = _limit(timeout, self._settings.stop_timeout)
        wait(self._finish_all(limit), limit)
        return self._conclude()

    def _finish_all(self, limit: float) -> list[Future[bool]]:
        with self._lock:
            self._stopped = True
        deadline = time.monotonic() + limit
        return [channel.finish(deadline) for channel in self._channels]

    def _conclude(self) -> ObservabilityReport:
        for channel in self._channels:
            channel.abandon()
        report = self.report()
        _log.log(logging.WARNING if report.lost else logging.INFO, "observability: %s", report)
        return report

    def _free_name(self, handler: ObservabilityEventHandler) -> str:
        kind = type(handler).__name__
        taken = {channel.name for channel in self._channels}
        names = (kind, *(f"{kind}#{number}" for number in range(2, len(taken) + 2)))
        return next(name for name in names if name not in taken)


def _limit(timeout: float | None, default: float) -> float:
    return min(max(0.0, default if timeout is None else timeout), TIMEOUT_MAX)


async def _all_done(pending: list[Future[bool]], limit: float) -> None:
    if pending:
        await asyncio.wait([asyncio.wrap_future(each) for each in pending], timeout=limit)


def emitting_parent_id() -> str | None:
    """Return the id of the span, or else of the message, within which the calling code runs."""
    # Within a span, unless a message is being handled that the span doesn't enclose.
    span = _open_span.get()
    parent = current_parent_id()
    return span[0] if span is not None and span[1] == parent else parent


class _Span(AbstractContextManager[None]):
    """The block of `ObservabilityClient.span`; it can be entered once.

    Args:
        client: who is told of its start and its end.
        name: what is measured.
        attributes: what else there is to say of it.
    """

    def __init__(
        self, client: ObservabilityClient, name: str, attributes: dict[str, AttributeValue]
    ) -> None:
        self._client = client
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> None:
        self._started = SpanStartedEvent(
            name=self._name, attributes=self._attributes, parent_id=emitting_parent_id()
        )
        self._client.observe(self._started)
        self._outer = _open_span.get()
        _open_span.set((self._started.id, current_parent_id()))
        self._began = time.perf_counter()

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        duration = time.perf_counter() - self._began
        # By value, since a token can't be reset where a generator is closed in another context.
        _open_span.set(self._outer)
        self._client.observe(
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

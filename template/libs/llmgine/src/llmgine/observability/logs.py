"""Standard `logging` as events: what the application and its libraries log reaches all handlers.

    with bridged_logging(client, "info"):
        logging.getLogger("shop").warning("sold out", extra={"item": "tea"})

What handlers and exporters log themselves isn't handed to handlers, who would never come to an
end over it: it goes to standard error, as it would without the bridge.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from threading import current_thread, local
from typing import Final

from llmgine.contracts.error_info import ErrorInfo
from llmgine.contracts.events import AttributeValue, LogEvent, LogLevel
from llmgine.observability._guard import Caught, attempt
from llmgine.observability._span import emitting_parent_id
from llmgine.observability.client import ObservabilityClient

__all__ = ["bridged_logging"]

_LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error", "critical")
_STEP = 10  # between two levels
_ORDINARY = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}
# Who writes down what is bridged: our handlers and exporters, and OpenTelemetry's.
_WRITERS = ("llmgine.observability", "opentelemetry")
_WRITING_THREADS = ("llmgine-observability-", "llmgine-otlp", "Otel")


@contextmanager
def bridged_logging(client: ObservabilityClient, level: LogLevel) -> Generator[None]:
    """Hand every record of `logging` from a level up to the client, while the block runs.

    The root logger lets through what is at least of this level, where it was less talkative. Where
    the client has a handler on the terminal, what the root logger writes to standard error by
    itself steps aside, so that nothing stands there twice. All this is undone at the end.

    Args:
        client: has the handlers.
        level: the least level.
    """
    root, least = logging.getLogger(), (_LEVELS.index(level) + 1) * _STEP
    shown = any(handler.on_terminal for handler in client.handlers)
    aside = [each for each in root.handlers if shown and _is_on_stderr(each)]
    bridge = _Bridge(client, least, aside, shown=shown)
    before = root.level
    for each in aside:
        root.removeHandler(each)
    root.addHandler(bridge)
    root.setLevel(min(before, least))
    try:
        yield
    finally:
        root.removeHandler(bridge)
        if root.level == min(before, least):
            root.setLevel(before)
        for each in aside:
            root.addHandler(each)


def _is_on_stderr(handler: logging.Handler) -> bool:
    stream: object = vars(handler).get("stream")
    return stream is not None and stream in (sys.stderr, sys.__stderr__)


class _Thread(local):
    """What one thread is doing."""

    bridging = False


class _Bridge(logging.Handler):
    """Hands records to the client.

    Args:
        client: takes them as events.
        level: the least level.
        aside: handlers that stepped aside.
        shown: whether the client shows events on the terminal.
    """

    def __init__(
        self,
        client: ObservabilityClient,
        level: int,
        aside: Iterable[logging.Handler],
        *,
        shown: bool,
    ) -> None:
        super().__init__(level)
        self._client = client
        self._aside = tuple(aside)
        self._shown = shown
        self._thread = _Thread()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, from any thread; no lock, since the client needs none."""
        ours = self._thread.bridging or _is_a_writers(record)
        if not ours:
            self.emit(record)
        if ours or not self._shown:
            self._show(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the client."""
        self._thread.bridging = True
        try:
            self._client.observe(_event_of(record))
        except Exception:
            self.handleError(record)
        finally:
            self._thread.bridging = False

    def _show(self, record: logging.LogRecord) -> None:
        """Do what `logging` would do with a record if there were no bridge."""
        alone = logging.getLogger().handlers == [self]
        last = [logging.lastResort] if alone and logging.lastResort else []
        for each in self._aside or last:
            if record.levelno >= each.level:
                each.handle(record)


def _is_a_writers(record: logging.LogRecord) -> bool:
    name = f"{record.name}."
    return name.startswith(tuple(f"{each}." for each in _WRITERS)) or (
        current_thread().name.startswith(_WRITING_THREADS)
    )


def _event_of(record: logging.LogRecord) -> LogEvent:
    attributes: dict[str, AttributeValue] = {
        str(name): _plain(value)
        for name, value in list(vars(record).items())
        if name not in _ORDINARY and value is not None
    }
    attributes["logger"] = record.name
    if record.exc_info and (error := record.exc_info[1]) is not None:
        attributes |= _exception(error)
    if record.stack_info:
        attributes["code.stacktrace"] = record.stack_info
    return LogEvent(
        level=_LEVELS[min(max(record.levelno // _STEP, 1), len(_LEVELS)) - 1],
        text=record.getMessage(),
        attributes=attributes,
        timestamp=record.created,
        parent_id=emitting_parent_id(),
    )


def _exception(error: BaseException) -> dict[str, AttributeValue]:
    info = ErrorInfo.of(error)
    return {
        "exception.type": info.type,
        "exception.message": info.message,
        "exception.stacktrace": info.traceback,
    }


def _plain(value: object) -> AttributeValue:
    if isinstance(value, str | int | float):
        return value
    text = attempt(str, value)
    return f"<{type(value).__qualname__}>" if isinstance(text, Caught) else text

"""Standard `logging` as events: what the application and its libraries log reaches all handlers.

    with bridged_logging(client, "info"):
        logging.getLogger("shop").warning("sold out", extra={"item": "tea"})

What handlers and exporters log themselves isn't handed to handlers, who would never come to an
end over it: it goes to standard error, as it would without the bridge.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from threading import current_thread, local
from typing import Final

from llmgine.contracts.events import AttributeValue, LogEvent, LogLevel
from llmgine.contracts.messages import ErrorInfo
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.client import ObservabilityClient, emitting_parent_id

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

    The root logger lets through what is at least of this level; its own handlers write no more
    than before. Where the client has a handler on the terminal, those that write to standard error
    leave out what the client shows, so that nothing stands there twice. All this is undone at the
    end.

    Args:
        client: has the handlers.
        level: the least level.
    """
    root, least = logging.getLogger(), (_LEVELS.index(level) + 1) * _STEP
    # Another application may have bridged it, and may end first or last.
    before = next((each.before for each in _bridges()), root.level)
    bridge = _Bridge(client, least, before)
    gates = [(each, partial(bridge.lets, on_stderr=_is_on_stderr(each))) for each in root.handlers]
    for handler, gate in gates:
        handler.addFilter(gate)
    root.addHandler(bridge)
    root.setLevel(min(root.level, least))
    try:
        yield
    finally:
        untouched = root.level == _level(before)
        root.removeHandler(bridge)
        if untouched:
            root.setLevel(_level(before))
        for handler, gate in gates:
            handler.removeFilter(gate)


def _bridges() -> list[_Bridge]:
    """Return those that the root logger has, the oldest first."""
    return [each for each in logging.getLogger().handlers if isinstance(each, _Bridge)]


def _level(before: int) -> int:
    """Return the level that the root logger has for its bridges, beside its own."""
    return min([before, *(each.least for each in _bridges())])


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
        least: their least level.
        before: the root logger's level as it was.

    Attributes:
        least: the same.
        before: the same.
    """

    def __init__(self, client: ObservabilityClient, least: int, before: int) -> None:
        super().__init__()
        self._client, self.least, self.before = client, least, before
        self._shown = any(handler.on_terminal for handler in client.handlers)
        self._thread = _Thread()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, from any thread; no lock, since the client needs none."""
        last = logging.lastResort if self._is_alone(record.name) else None
        if last and record.levelno >= last.level and self.lets(record, on_stderr=True):
            last.handle(record)  # as `logging` does where there are no handlers
        if self._takes(record):
            self.emit(record)
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

    def lets(self, record: logging.LogRecord, *, on_stderr: bool) -> bool:
        """Tell whether a handler that was there before writes a record."""
        if on_stderr and self._shown and self._takes(record):
            return False
        logger = logging.getLogger(record.name)
        while not logger.level and logger.parent is not None:
            logger = logger.parent
        return record.levelno >= (self.before if logger.parent is None else logger.level)

    def _is_alone(self, name: str) -> bool:
        """Tell whether bridges alone hear a logger, which propagates, and this is the first."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None and all(isinstance(each, _Bridge) for each in logger.handlers):
            logger = logger.parent
        return logger is None and next(iter(_bridges()), self) is self

    def _takes(self, record: logging.LogRecord) -> bool:
        if record.levelno < self.least or self._thread.bridging:
            return False
        return not _is_a_writers(record)


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

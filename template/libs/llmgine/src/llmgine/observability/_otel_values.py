"""Values as OpenTelemetry takes them: without secrets, short, and encodable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.events import AttributeValue
from llmgine.contracts.messages import Event
from llmgine.observability import _otel_names as names
from llmgine.observability._otel_pipeline import Pipeline
from llmgine.observability.record import Record
from llmgine.observability.redaction import hidden, is_secret_key, redact_text

__all__ = [
    "LONGEST", "Providers", "Values", "clean", "event_name", "fields_of", "known", "nanoseconds",
    "plain",
]  # fmt: skip

Values: TypeAlias = dict[str, AttributeValue | tuple[str, ...]]

LONGEST = 8 * 1024
"""Bytes of UTF-8 in one value."""


@dataclass(kw_only=True, slots=True)
class Providers:
    """What makes spans, instruments and log records; `None` is the process's global one.

    Attributes:
        traces: makes tracers.
        metrics: makes meters.
        logs: makes loggers.
        pipelines: send what the providers are given, and are flushed and ended with the handler.
    """

    traces: TracerProvider | None = None
    metrics: MeterProvider | None = None
    logs: LoggerProvider | None = None
    pipelines: list[Pipeline[Any]] = field(default_factory=list[Pipeline[Any]])


_MARK = "... [truncated]"
_LOOK = LONGEST + 4096
_TAIL = 1024  # where a long text is cut, half a secret may stand: so much of the end goes
_SHORT = 128
_ID_LENGTH = 32
_ENVELOPE = frozenset({"event_type", "id", "metadata", "parent_id", "session_id", "timestamp"})


def clean(text: str) -> str:
    """Return a text without secrets, encodable, and at most 8 KiB long."""
    if len(text) == _ID_LENGTH and text.isalnum():
        return text  # an id of our own making
    return _clean_short(text) if len(text) <= _SHORT else _clean(text)


def _clean(text: str) -> str:
    cut = len(text) > _LOOK
    text = redact_text(text[:_LOOK])
    if cut:
        text = text[:-_TAIL]
    data = text.encode("utf-8", "backslashreplace")
    if cut or len(data) > LONGEST:
        return data[: LONGEST - len(_MARK)].decode("utf-8", "ignore") + _MARK
    return data.decode()


# Names of commands, models, tools and sessions come again and again.
_clean_short = lru_cache(maxsize=4096)(_clean)


def known(values: Mapping[str, AttributeValue | None]) -> Values:
    """Return the values that there are."""
    there = {name: value for name, value in values.items() if value is not None and value != ""}
    return {name: clean(it) if isinstance(it, str) else it for name, it in there.items()}


def plain(given: Mapping[str, JsonValue] | Mapping[str, AttributeValue]) -> Values:
    """Return attributes that an application gave; what lies deeper becomes JSON."""
    kept = {name: hidden(value) if is_secret_key(name) else value for name, value in given.items()}
    return {clean(name): _scalar(value) for name, value in kept.items() if value is not None}


def fields_of(record: Record) -> Values:
    """Return the fields of an event's record."""
    own = {name: value for name, value in record.items() if name not in _ENVELOPE}
    return plain({f"{names.PREFIX}{name}": value for name, value in own.items()})


def _scalar(value: JsonValue) -> AttributeValue:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return clean(json.dumps(value, ensure_ascii=False))


@lru_cache(maxsize=2000)
def event_name(kind: type[Event]) -> str:
    """Return the name of a class's log records: `llmgine.session_start` for `SessionStartEvent`."""
    name = kind.__name__.strip("_").removesuffix("Event") or kind.__name__
    snake = "".join(
        f"_{letter}" if letter.isupper() and place and not name[place - 1].isupper() else letter
        for place, letter in enumerate(name)
    )
    return f"{names.PREFIX}{snake.lower()}"


def nanoseconds(seconds: float) -> int | None:
    """Return a moment as OpenTelemetry counts; None where it can't be one."""
    return int(seconds * 1e9) if 0 <= seconds < 2**63 / 1e9 else None

"""Values as OpenTelemetry takes them: without secrets, short, and encodable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from llmgine.contracts import chat
from llmgine.contracts import events as kinds
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.events import AttributeValue
from llmgine.contracts.messages import Event
from llmgine.observability import _otel_names as names
from llmgine.observability._otel_pipeline import Pipeline
from llmgine.observability.record import Record
from llmgine.observability.redaction import hidden, is_secret_key, redact_text

__all__ = [
    "LONGEST", "Providers", "Values", "clean", "command", "event_name", "fields_of", "known",
    "messages_text", "model_request", "model_response", "nanoseconds", "plain", "tool_call",
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


def command(event: kinds.CommandStartedEvent, name: str) -> Values:
    """Return what is known of a command, by its class's name."""
    values: Values = {
        names.MESSAGING_SYSTEM: names.SCOPE,
        names.MESSAGING_OPERATION: names.PROCESS,
        names.MESSAGING_OPERATION_TYPE: names.PROCESS,
        names.MESSAGING_DESTINATION: name,
        names.MESSAGING_MESSAGE: clean(event.command.id),
    }
    if event.session_id:
        session_id = clean(event.session_id)
        values[names.CONVERSATION] = values[names.MESSAGING_CONVERSATION] = session_id
    return values


def tool_call(event: kinds.ToolExecuteStartedEvent) -> Values:
    """Return what is known of a tool's call."""
    values = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL_NAME: event.call.name,
        names.TOOL_CALL: event.call.id,
        names.TOOL_TYPE: "function",
        names.CONVERSATION: event.session_id,
    }
    return known(values)


def model_request(event: kinds.LLMCallStartedEvent) -> Values:
    """Return what is known of a model call when it begins."""
    request = event.request
    values: dict[str, AttributeValue | None] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: event.provider,
        names.REQUEST_MODEL: request.model,
        names.CONVERSATION: event.session_id,
        names.MAX_TOKENS: request.max_output_tokens,
        names.TEMPERATURE: request.temperature,
        names.TOP_P: request.top_p,
    }
    return known(values)


def model_response(event: kinds.LLMCallResultEvent) -> Values:
    """Return what is known of a model call once it is over."""
    found = known({names.FIRST_CHUNK: event.time_to_first_chunk})
    if (response := event.response) is not None:
        usage = response.usage
        answer: dict[str, AttributeValue | None] = {
            names.RESPONSE_MODEL: response.model,
            names.RESPONSE_ID: response.id,
            names.INPUT_TOKENS: usage.input_tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHE_READ_TOKENS: usage.cache_read_tokens,
            names.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        }
        found |= known(answer)
        found[names.FINISH_REASONS] = (clean(response.finish_reason),)
    return found


def messages_text(messages: Iterable[chat.ChatMessage]) -> str:
    """Return messages as JSON in the conventions' form; of a long conversation the end."""
    kept: list[JsonValue] = []
    left = LONGEST
    for message in reversed(tuple(messages)):
        parts: list[JsonValue] = [_part(part) for part in message.parts]
        left -= len(json.dumps(parts, ensure_ascii=False))
        if kept and left < 0:
            break
        kept.append({"role": message.role, "parts": parts})
    return clean(json.dumps(kept[::-1], ensure_ascii=False))


def _part(part: chat.Part) -> JsonValue:
    match part:
        case chat.TextPart() | chat.ThinkingPart():
            kind = "text" if isinstance(part, chat.TextPart) else "reasoning"
            return {"type": kind, "content": clean(part.text)}
        case chat.ToolCall():
            arguments = clean(part.arguments)
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": arguments}
        case chat.ToolResult():
            answer = clean(part.text)
            return {"type": "tool_call_response", "id": part.tool_call_id, "response": answer}
        case _:
            return {"type": type(part).__name__.removesuffix("Part").lower()}

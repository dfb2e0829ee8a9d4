"""What spans say of commands, model calls and tools, as the published conventions name it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from llmgine.contracts import chat
from llmgine.contracts import events as kinds
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.events import AttributeValue
from llmgine.observability import _otel_names as names
from llmgine.observability._otel_values import LONGEST, Values, clean, known

__all__ = ["command", "messages_text", "model_request", "model_response", "tool_call"]


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

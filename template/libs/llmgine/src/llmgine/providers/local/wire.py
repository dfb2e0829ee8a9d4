"""Between our contracts and the pieces of llama.cpp, which are those of OpenAI's chat."""

from __future__ import annotations

from collections.abc import Iterator

from llmgine.contracts import (
    ChatMessage,
    FinishReason,
    LLMChunk,
    LLMRequest,
    RefusalPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingPart,
    Usage,
    UsageUpdate,
)
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.llm import JsonSchemaFormat
from llmgine.errors import (
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    ProviderServerError,
)
from llmgine.providers.local.model import Piece

__all__ = ["body_of", "chunks_of", "end_of", "finish_of", "raise_for", "refuse"]

_LONGEST_ANSWER = 512
_FAILURES: dict[str, type[ProviderError]] = {
    "exceed_context_size_error": ContextLengthError,
    "invalid_request_error": InvalidRequestError,
}
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _count(value: JsonValue) -> int | None:
    return value if isinstance(value, int) else None


def _wire_text(message: ChatMessage) -> str:
    texts: list[str] = []
    for part in message.parts:
        if isinstance(part, TextPart | RefusalPart):
            texts.append(part.text)
        elif not isinstance(part, ThinkingPart):
            raise InvalidRequestError(
                f"the local model reads text only; a {message.role} message holds "
                f"a {type(part).__name__}",
                provider="local",
            )
    return "".join(texts)


def _format(request: LLMRequest) -> dict[str, object]:
    wanted = request.response_format
    if wanted is None:
        return {}
    if isinstance(wanted, JsonSchemaFormat):
        schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": "json_object"}}


def refuse(request: LLMRequest, model: str) -> None:
    """Raise for what the model can't do: nothing of a request is dropped without a word."""
    if request.model not in {"", model}:
        raise NotFoundError(
            f"the local provider has {model!r}, not {request.model!r}", provider="local"
        )
    longest = request.max_output_tokens
    demands_tool = request.tool_choice not in {None, "auto", "none"}
    reasons = {
        "tools: the local model can't call any": request.tools,
        "tool_choice: the local model can't call tools": demands_tool,
        "reasoning: the local model doesn't think aloud": request.reasoning,
        "messages: there are none": not request.messages,
        "max_output_tokens: must be at least 1": longest is not None and longest < 1,
    }
    for reason, given in reasons.items():
        if given:
            raise InvalidRequestError(reason, provider="local")


def body_of(request: LLMRequest) -> dict[str, object]:
    """Return the request in the shape of OpenAI's chat completions."""
    chosen = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "stop": list(request.stop) or None,
        "max_tokens": request.max_output_tokens,
    }
    body: dict[str, object] = {
        "messages": [
            {"role": message.role, "content": _wire_text(message)} for message in request.messages
        ],
        "max_tokens": _LONGEST_ANSWER,
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in chosen.items() if value is not None},
        **_format(request),
    }
    clash = sorted(body.keys() & request.provider_options.keys())
    if clash:
        raise InvalidRequestError(
            f"provider_options: {clash[0]!r} belongs to the request itself", provider="local"
        )
    return {**request.provider_options, **body}


def raise_for(piece: Piece) -> None:
    """Raise the error that a piece tells of, if it does."""
    if "error" not in piece:
        return
    error = _object(piece["error"])
    kind = _text(error.get("type"))
    raise _FAILURES.get(kind, ProviderServerError)(
        _text(error.get("message")) or "the local model failed",
        provider="local",
        provider_code=kind or None,
        status=_count(error.get("code")),
    )


def _usage(counts: dict[str, JsonValue]) -> Usage:
    cached = _object(counts.get("prompt_tokens_details")).get("cached_tokens")
    return Usage(
        input_tokens=_count(counts.get("prompt_tokens")),
        output_tokens=_count(counts.get("completion_tokens")),
        cache_read_tokens=_count(cached),
    )


def chunks_of(piece: Piece, model: str, *, first: bool) -> Iterator[LLMChunk]:
    """Yield what a piece says, the first after a beginning; its finish reason is for the end."""
    if first:
        created = _count(piece.get("created"))
        yield StreamStart(id=_text(piece.get("id")), model=model, provider="local", created=created)
    yield from _said(piece)


def _said(piece: Piece) -> Iterator[LLMChunk]:
    choices = piece.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        text = _text(_object(_object(choice).get("delta")).get("content"))
        if text:
            yield TextDelta(text=text)
    counts = _object(piece.get("usage"))
    if counts:
        yield UsageUpdate(usage=_usage(counts))


def finish_of(piece: Piece) -> str:
    """Return why the answer ended, in the model's word; empty as long as it hasn't."""
    choices = piece.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return _text(_object(first).get("finish_reason"))


def end_of(finish: str) -> StreamEnd:
    """Return the end of an answer, given the model's word for why."""
    return StreamEnd(finish_reason=_FINISH.get(finish, "unknown"), finish_raw=finish)

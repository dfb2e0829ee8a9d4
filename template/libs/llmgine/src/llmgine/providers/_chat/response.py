"""Answers of chat completions, whole or in pieces, as ours.

A whole answer is read as a stream of one piece, so that both come out the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmgine.contracts import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    StreamEnd,
    StreamStart,
    Usage,
    UsageUpdate,
    fold,
)
from llmgine.contracts.chat import JsonValue
from llmgine.providers._chat.parts import AnswerParts
from llmgine.providers._sdk.reading import Reader
from llmgine.providers._sdk.shape import Fields, count, fields, items, joined, known, text

__all__ = ["ChunkReader", "response_of", "said_in"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
_READ_OF_CHUNK = (
    "id", "object", "created", "model", "choices", "usage", "service_tier", "obfuscation",
)  # fmt: skip
_READ_OF_CHOICE = ("index", "delta", "message", "finish_reason", "stop_reason", "logprobs")


class ChunkReader:
    """Makes chunks of the pieces of one answer.

    Args:
        provider: the provider's name.
        request_id: the provider's id of the call.
    """

    def __init__(self, provider: str, request_id: str | None = None) -> None:
        self._provider = provider
        self._request_id = request_id
        self._started = False
        self._finish = ""
        self._stop: str | None = None
        self._tier: str | None = None
        self._usage: Fields = {}
        self._parts = AnswerParts(provider)
        self._data: Fields = {}

    def read(self, item: object, /) -> Iterator[LLMChunk]:
        """Yield what a piece says."""
        piece = fields(item)
        # Azure begins with a piece that names no answer yet.
        if not self._started and any(map(piece.get, ("id", "choices", "usage"))):
            self._started = True
            created = count(piece.get("created"))
            yield StreamStart(
                id=text(piece.get("id")),
                model=text(piece.get("model")),
                provider=self._provider,
                created=None if created is None else float(created),
                request_id=self._request_id,
            )
        self._tier = text(piece.get("service_tier")) or self._tier
        self._data.update(known(piece, *_READ_OF_CHUNK))
        for each in items(piece.get("choices")):
            choice = fields(each)
            if not choice.get("index"):  # further answers can't have been asked for
                yield from self._choice(choice)
        yield from self._counted(fields(piece.get("usage")))

    def end(self) -> Iterator[LLMChunk]:
        """Yield the ends of the parts and of the answer; nothing if it isn't complete."""
        if not self._finish:
            return
        yield from self._parts.ends()
        yield StreamEnd(
            finish_reason=self._reason(),
            finish_raw=self._finish,
            stop_sequence=self._stop,
            service_tier=self._tier,
            provider_data=self._data or None,
        )

    def _counted(self, counts: Fields) -> Iterator[LLMChunk]:
        if counts and counts != self._usage:
            self._usage = counts
            yield UsageUpdate(usage=_usage(counts))
            # Whole numbers have their place there; others (a price, say) would be lost.
            others: Fields = {n: value for n, value in counts.items() if isinstance(value, float)}
            if others:
                self._data["usage"] = others

    def _choice(self, choice: Fields) -> Iterator[LLMChunk]:
        self._finish = text(choice.get("finish_reason")) or self._finish
        stop = choice.get("stop_reason")
        self._stop = stop if isinstance(stop, str) else self._stop
        extra = known(choice, *_READ_OF_CHOICE)
        if choice.get("logprobs") is not None:
            extra["logprobs"] = joined(self._data.get("logprobs"), choice["logprobs"])
        self._data.update(extra)
        yield from self._parts.read(said_in(choice))

    def _reason(self) -> FinishReason:
        if self._finish == "stop" and self._parts.refused:
            return "refusal"
        if self._finish == "stop" and self._parts.called:
            return "tool_calls"  # a tool that was demanded by name ends so
        return _FINISH.get(self._finish, "unknown")


def _usage(counts: Fields) -> Usage:
    details: dict[str, int] = {}
    for name, value in counts.items():
        for inner, each in {name: value, **_inner(name, value)}.items():
            found = count(each)
            if found is not None:
                details[inner] = found
    details.pop("total_tokens", None)
    return Usage(
        input_tokens=details.pop("prompt_tokens", None),
        output_tokens=details.pop("completion_tokens", None),
        cache_read_tokens=details.pop("prompt_tokens_details.cached_tokens", None),
        cache_write_tokens=details.pop("prompt_tokens_details.cache_write_tokens", None),
        reasoning_tokens=details.pop("completion_tokens_details.reasoning_tokens", None),
        details=details,
    )


def _inner(name: str, value: JsonValue) -> Fields:
    return {f"{name}.{inner}": each for inner, each in fields(value).items()}


def said_in(choice: Fields) -> Fields:
    """Return the piece of a message in a choice; a few servers repeat the whole beside it."""
    return fields(choice.get("delta" if "delta" in choice else "message"))


def response_of(body: Fields, reader: Reader[Fields]) -> LLMResponse | None:
    """Return a whole answer; nothing where the body holds none."""
    chunks = [*reader.read(body), *reader.end()]
    return fold(chunks) if chunks and isinstance(chunks[-1], StreamEnd) else None

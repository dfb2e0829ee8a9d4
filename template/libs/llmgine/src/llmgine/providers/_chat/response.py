"""Answers of chat completions, whole or in pieces, as ours.

A whole answer is read as a stream of one piece, so that both come out the same. Text, reasoning,
refusal and each tool call have an index of their own in the order in which they are sent back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmgine.contracts import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    OpaquePart,
    PartEnd,
    RefusalPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageUpdate,
    fold,
    new_id,
)
from llmgine.contracts.chat import JsonValue
from llmgine.providers._sdk.shape import Fields, count, fields, items, joined, known, text
from llmgine.providers._sdk.streams import Reader

__all__ = ["ChunkReader", "response_of", "said_in"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
_THINKING, _TEXT, _REFUSAL, _CALLS = range(4)
# The field's name depends on the server; one of them sends both, saying the same.
_REASONING = ("reasoning_content", "reasoning")
_READ_OF_CHUNK = (
    "id", "object", "created", "model", "choices", "usage", "service_tier", "obfuscation",
)  # fmt: skip
_READ_OF_CHOICE = ("index", "delta", "message", "finish_reason", "stop_reason", "logprobs")
_READ_OF_MESSAGE = ("role", "content", "refusal", "tool_calls", "function_call", *_REASONING)
_READ_OF_CALL = ("index", "id", "type", "function", "custom")


@dataclass(slots=True)
class _Call:
    """A tool call as far as it has come; `custom` in a tool's own form that isn't ours."""

    id: str
    key: JsonValue = None
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])
    extra: Fields = field(default_factory=dict[str, JsonValue])
    custom: Fields | None = None


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
        self._said: dict[int, list[str]] = {}
        self._calls: list[_Call] = []
        self._opaque: list[Fields] = []
        self._extra: Fields = {}
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
        yield from self._ends()
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
        yield from self._delta(said_in(choice))

    def _delta(self, delta: Fields) -> Iterator[LLMChunk]:
        thought = next((found for name in _REASONING if (found := text(delta.get(name)))), "")
        if thought:
            self._said.setdefault(_THINKING, []).append(thought)
            yield ThinkingDelta(index=_THINKING, text=thought)
        yield from self._content(delta.get("content"))
        refusal = text(delta.get("refusal"))
        if refusal:
            self._said.setdefault(_REFUSAL, []).append(refusal)
        calls = items(delta.get("tool_calls"))
        if delta.get("function_call"):  # as older servers call their one tool
            calls = [*calls, {"function": delta["function_call"]}]
        for each in calls:
            yield from self._call(fields(each))
        for name, value in known(delta, *_READ_OF_MESSAGE).items():
            self._extra[name] = joined(self._extra[name], value) if name in self._extra else value

    def _content(self, content: JsonValue) -> Iterator[LLMChunk]:
        """Yield the text of content, which some servers send as a list of parts."""
        for each in content if isinstance(content, list) else [content]:
            part = fields(each)
            if part and part.get("type") != "text":
                self._opaque.append(part)
            elif said := text(part.get("text") if part else each):
                self._said.setdefault(_TEXT, []).append(said)
                yield TextDelta(index=_TEXT, text=said)

    def _call(self, piece: Fields) -> Iterator[LLMChunk]:
        at = self._place(piece)
        call = self._calls[at]
        extra = known(piece, *_READ_OF_CALL)
        call.extra = fields(joined(call.extra, extra))
        if piece.get("custom") is not None:
            call.custom = fields(joined(call.custom, piece["custom"]))
            return
        function = fields(piece.get("function"))
        first = not call.arguments
        name = "" if call.name else text(function.get("name"))
        call.name = call.name or name
        arguments = text(function.get("arguments"))
        call.arguments.append(arguments)
        yield ToolCallDelta(
            index=_CALLS + at,
            id=call.id if first else "",
            name=name,
            arguments=arguments,
        )

    def _place(self, piece: Fields) -> int:
        """Return which call a piece belongs to; a new one where it begins one.

        Some servers send no index, or the same for all calls; some repeat the id in each piece.
        """
        key, given = piece.get("index"), text(piece.get("id"))
        named = bool(text(fields(piece.get("function")).get("name")) or piece.get("custom"))
        begins = named and (bool(given) or key is None)
        for at, call in reversed(list(enumerate(self._calls))):
            if call.id == given or (call.key == key and not begins):
                return at
        self._calls.append(_Call(id=given or f"call_{new_id()}", key=key))
        return len(self._calls) - 1

    def _ends(self) -> Iterator[LLMChunk]:
        if _THINKING in self._said:
            thought = "".join(self._said[_THINKING])
            part = ThinkingPart(text=thought, provider=self._provider)
            yield PartEnd(index=_THINKING, part=part)
        if _TEXT in self._said:
            yield PartEnd(index=_TEXT)
        if _REFUSAL in self._said:
            refusal = RefusalPart(text="".join(self._said[_REFUSAL]))
            yield PartEnd(index=_REFUSAL, part=refusal)
        for at, call in enumerate(self._calls):
            yield PartEnd(index=_CALLS + at, part=self._special(call))
        rest = [*self._opaque, *([self._extra] if self._extra else [])]
        for at, data in enumerate(rest, start=_CALLS + len(self._calls)):
            yield PartEnd(index=at, part=OpaquePart(provider=self._provider, data=data))

    def _special(self, call: _Call) -> ToolCall | OpaquePart | None:
        """Return a call that is more than its deltas said."""
        if call.custom is not None:
            whole: Fields = {**call.extra, "id": call.id, "type": "custom", "custom": call.custom}
            return OpaquePart(provider=self._provider, data={"tool_calls": [whole]})
        if not call.extra:
            return None
        arguments = "".join(call.arguments) or "{}"
        return ToolCall(id=call.id, name=call.name, arguments=arguments, provider_data=call.extra)

    def _reason(self) -> FinishReason:
        if self._finish == "stop" and _REFUSAL in self._said:
            return "refusal"
        if self._finish == "stop" and self._calls:  # said so where a tool was demanded by name
            return "tool_calls"
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

"""Answers in OpenAI's shape, whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.sse import format_sse_event
from llmgine.contracts import (
    ChatMessage,
    FinishReason,
    LLMChunk,
    LLMResponse,
    PartEnd,
    RefusalPart,
    StreamEnd,
    StreamStart,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llmgine.contracts.chat import Part

from api.completions.answering import Writer
from api.problems import Problem

__all__ = ["ChunkWriter", "completion"]

_FINISH: Mapping[FinishReason, str] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "pause": "length",
}
_encode = json.JSONEncoder(separators=(",", ":")).encode
_DONE = format_sse_event(data_str="[DONE]")


def completion(name: str, created: int, model: str, response: LLMResponse) -> bytes:
    """Return a whole answer.

    Args:
        name: the answer's id.
        created: when it was asked for, in Unix seconds.
        model: the model's name where the answer says none.
        response: the answer.
    """
    message = _message(response)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish(
            response.finish_reason,
            calls=bool(response.tool_calls),
            said_no=message["refusal"] is not None,
        ),
    }
    body = {
        "id": name,
        "object": "chat.completion",
        "created": created,
        "model": response.model or model,
        "choices": [choice],
        "usage": _usage(response.usage),
        "system_fingerprint": (response.provider_data or {}).get("system_fingerprint"),
    }
    return _encode(body).encode()


def _message(response: LLMResponse) -> dict[str, object]:
    parts, calls = response.message.parts, response.tool_calls
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    refusals = [part.text for part in parts if isinstance(part, RefusalPart)]
    thoughts = [part.text for part in parts if isinstance(part, ThinkingPart)]
    message: dict[str, object] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (refusals or calls) else None,
        "refusal": "".join(refusals) or None,
    }
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return message


class ChunkWriter(Writer):
    """Writes a streamed answer as events.

    Args:
        name: the answer's id.
        created: when it was asked for, in Unix seconds.
        model: the model's name where the answer says none.
        usage: whether the tokens are told at the end.
    """

    def __init__(self, name: str, created: int, model: str, *, usage: bool) -> None:
        self._about = {"id": name, "object": "chat.completion.chunk", "created": created}
        self._model = model
        self._usage = usage
        self._head = self._headed(model)
        self._seen: set[int] = set()
        self._calls: dict[int, int] = {}
        self._said_no = False
        self._bare: set[int] = set()  # the calls that no arguments have come for

    def written(self, piece: LLMChunk | ChatMessage) -> bytes:
        """Return the events for a piece of the answer; tools that are run for it aren't told."""
        if isinstance(piece, TextDelta):
            self._seen.add(piece.index)
            return self._event({"content": piece.text}) if piece.text else b""
        if isinstance(piece, ToolCallDelta):
            return self._event({"tool_calls": [self._call(piece)]})
        if isinstance(piece, ThinkingDelta):
            self._seen.add(piece.index)
            return self._event({"reasoning_content": piece.text}) if piece.text else b""
        return b"".join(self._rare(piece))

    def failed(self, problem: Problem) -> bytes:
        """Return the event that OpenAI's SDKs raise as an error."""
        return format_sse_event(data_str=_encode(problem.body()), event="error")

    def _rare(self, chunk: LLMChunk | ChatMessage) -> Iterator[bytes]:
        if isinstance(chunk, StreamStart):
            yield self._start(chunk)
        elif isinstance(chunk, PartEnd) and chunk.part is not None:
            yield self._part(chunk.index, chunk.part)
        elif isinstance(chunk, StreamEnd):
            yield from self._end(chunk)

    def _start(self, chunk: StreamStart) -> bytes:
        self._head = self._headed(chunk.model or self._model)
        return self._event({"role": "assistant", "content": ""})

    def _headed(self, model: str) -> str:
        """Return how events begin."""
        return _encode({**self._about, "model": model, "system_fingerprint": None})[:-1]

    def _part(self, index: int, part: Part) -> bytes:
        """Return what a part says that came as a whole."""
        if index in self._seen or index in self._calls:
            return b""
        if isinstance(part, RefusalPart):
            self._said_no = True
            return self._event({"refusal": part.text})
        if isinstance(part, TextPart):
            return self._event({"content": part.text})
        if isinstance(part, ThinkingPart) and part.text:
            return self._event({"reasoning_content": part.text})
        if isinstance(part, ToolCall):
            whole = ToolCallDelta(index=index, id=part.id, name=part.name, arguments=part.arguments)
            return self._event({"tool_calls": [self._call(whole)]})
        return b""

    def _call(self, chunk: ToolCallDelta) -> dict[str, object]:
        number = self._calls.setdefault(chunk.index, len(self._calls))
        function = {"arguments": chunk.arguments}
        if chunk.name:
            function["name"] = chunk.name
        if chunk.arguments:
            self._bare.discard(number)
        elif chunk.id:
            self._bare.add(number)
        piece: dict[str, object] = {"index": number, "function": function}
        return {**piece, "id": chunk.id, "type": "function"} if chunk.id else piece

    def _end(self, chunk: StreamEnd) -> Iterator[bytes]:
        for number in sorted(self._bare):
            whole = {"index": number, "function": {"arguments": "{}"}}
            yield self._event({"tool_calls": [whole]})
        calls, said_no = bool(self._calls), self._said_no
        yield self._event({}, _finish(chunk.finish_reason, calls=calls, said_no=said_no))
        usage = _usage(chunk.usage)
        if self._usage and usage is not None:
            told = f'{self._head},"choices":[],"usage":{_encode(usage)}'
            yield format_sse_event(data_str=told + "}")
        yield _DONE

    def _event(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        rest = ',"usage":null}' if self._usage else "}"
        return format_sse_event(data_str=f'{self._head},"choices":[{_encode(choice)}]{rest}')


def _call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _finish(reason: FinishReason, *, calls: bool, said_no: bool) -> str:
    """Return OpenAI's word for why an answer ended."""
    if calls and reason in {"stop", "unknown"}:
        return "tool_calls"
    if reason == "refusal" and not said_no:  # then nothing but this word tells of it
        return "content_filter"
    return _FINISH.get(reason, "stop")


def _usage(usage: Usage | None) -> dict[str, object] | None:
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    asked, answered = usage.input_tokens or 0, usage.output_tokens or 0
    told: dict[str, object] = {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
    }
    read = {
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    written = {"reasoning_tokens": usage.reasoning_tokens}
    for name, counts in (("prompt", read), ("completion", written)):
        known = {each: count for each, count in counts.items() if count is not None}
        if known:
            told[f"{name}_tokens_details"] = known
    return told

"""A conversation in the form that providers accept: every tool call answered, and only those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llmgine.contracts.chat import ChatMessage, Part, ToolCall, ToolResult

__all__ = ["INTERRUPTED", "repaired"]

INTERRUPTED = "interrupted"
"""The `error_code` of results that stand in for missing ones."""

_Answers = Mapping[int, Sequence[ToolResult]]


def _stand_in(call: ToolCall) -> ToolResult:
    return ToolResult(
        tool_call_id=call.id,
        name=call.name,
        content="The call was interrupted before it had a result.",
        is_error=True,
        error_code=INTERRUPTED,
    )


def _assigned(messages: Sequence[ChatMessage]) -> _Answers:
    """Return, for each message that calls tools, the results that answer it.

    A result belongs to the latest call of its id; ids may come again in later turns.
    """
    latest: dict[str, int] = {}
    waiting: dict[int, Counter[str]] = {}
    answers: dict[int, list[ToolResult]] = {}
    for at, message in enumerate(messages):
        for call in message.tool_calls:
            latest[call.id] = at
            waiting.setdefault(at, Counter())[call.id] += 1
        for result in message.tool_results:
            owner = latest.get(result.tool_call_id)
            if owner is not None and waiting[owner][result.tool_call_id] > 0:
                waiting[owner][result.tool_call_id] -= 1
                answers.setdefault(owner, []).append(result)
    return answers


def _kept(message: ChatMessage, allowed: Counter[int]) -> ChatMessage | None:
    """Return the message with the allowed results only, each once; nothing if nothing is left."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            if allowed[id(part)] == 0:
                continue
            allowed[id(part)] -= 1
        parts.append(part)
    if len(parts) == len(message.parts):
        return message
    return replace(message, parts=tuple(parts)) if parts else None


def _answered(
    message: ChatMessage, following: Sequence[ChatMessage], results: Sequence[ToolResult]
) -> Iterator[ChatMessage]:
    """Yield a message that calls tools, then the messages that answer it."""
    allowed = Counter(id(result) for result in results)
    for candidate in (message, *following):
        stays = _kept(candidate, allowed)
        if stays is not None:
            yield stays
    late = [result for result in results if allowed[id(result)] > 0]
    answered = Counter(result.tool_call_id for result in results)
    for call in message.tool_calls:
        if answered[call.id] > 0:
            answered[call.id] -= 1
        else:
            late.append(_stand_in(call))
    if late:
        yield ChatMessage.tool(*late)


def repaired(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the conversation with each tool call answered right after the message that made it.

    Providers refuse a history in which a call has no result (after a cancelled turn, say) or a
    result has no call. A missing result is stood in for by an error result with the code
    `interrupted`; a late one is moved up to its call; results without a call, and second ones,
    are left out. A sound history comes back as it is, and what was given is never changed.
    """
    answers = _assigned(messages)
    fixed: list[ChatMessage] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if message.tool_calls:
            first = at
            while at < len(messages) and messages[at].role == "tool":
                at += 1
            results = answers.get(first - 1, ())
            fixed.extend(_answered(message, messages[first:at], results))
        else:
            stays = _kept(message, Counter())
            if stays is not None:
                fixed.append(stays)
    return fixed

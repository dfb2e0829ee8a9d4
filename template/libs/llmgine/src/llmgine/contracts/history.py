"""A conversation in the form that providers accept: every tool call answered, and only those."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from llmgine.contracts.chat import ChatMessage, Part, ToolCall, ToolResult

__all__ = ["INTERRUPTED", "repaired"]

KeyT = TypeVar("KeyT")

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
    waiting: Counter[tuple[int, str]] = Counter()
    answers: defaultdict[int, list[ToolResult]] = defaultdict(list)
    for at, message in enumerate(messages):
        for call in message.tool_calls:
            latest[call.id] = at
            waiting[at, call.id] += 1
        for result in message.tool_results:
            owner = latest.get(result.tool_call_id, -1)
            if _taken(waiting, (owner, result.tool_call_id)):
                answers[owner].append(result)
    return answers


def _taken(left: Counter[KeyT], key: KeyT) -> bool:
    """Take one of what is counted; tell whether there was one."""
    if left[key] == 0:
        return False
    left[key] -= 1
    return True


def _kept(messages: Sequence[ChatMessage], allowed: Counter[int]) -> Iterator[ChatMessage]:
    """Yield the messages with the allowed results only, each once; none that holds nothing else."""

    def stays(part: Part) -> bool:
        return not isinstance(part, ToolResult) or _taken(allowed, id(part))

    for message in messages:
        parts = tuple(filter(stays, message.parts))
        if len(parts) == len(message.parts):
            yield message
        elif parts:
            yield replace(message, parts=parts)


def _answered(
    message: ChatMessage, following: Sequence[ChatMessage], results: Sequence[ToolResult]
) -> Iterator[ChatMessage]:
    """Yield a message that calls tools, then the messages that answer it."""
    allowed = Counter(map(id, results))
    yield from _kept((message, *following), allowed)
    late = [result for result in results if allowed[id(result)] > 0]
    answered = Counter(result.tool_call_id for result in results)
    late += [_stand_in(call) for call in message.tool_calls if not _taken(answered, call.id)]
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
            fixed.extend(_kept((message,), Counter()))
    return fixed

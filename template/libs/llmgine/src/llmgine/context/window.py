"""What stores hand out: copies that share nothing, and windows cut where a model can go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

from llmgine.contracts import ChatMessage, OpaquePart, Part, RefusalPart, ToolResult

__all__ = ["copied", "history_window", "unmatched_results", "window_start"]


def _copied_part(part: Part) -> Part:
    if isinstance(part, RefusalPart):
        return part
    if isinstance(part, OpaquePart):
        return deepcopy(part)
    if isinstance(part, ToolResult):
        return part if isinstance(part.content, str) else deepcopy(part)
    return part if part.provider_data is None else deepcopy(part)


def copied(message: ChatMessage) -> ChatMessage:
    """Return a message that no change to the given one's mappings can reach.

    Most messages hold nothing that can change, and are returned as they are.
    """
    parts = tuple(_copied_part(part) for part in message.parts)
    same = all(new is old for new, old in zip(parts, message.parts, strict=True))
    if same and message.provider_data is None and type(message.parts) is tuple:
        return message
    return replace(message, parts=parts, provider_data=deepcopy(message.provider_data))


def unmatched_results(messages: Sequence[ChatMessage]) -> frozenset[str]:
    """Return the ids of tool results that have no call before them among these messages.

    A store that reads the end of a long conversation goes back until there are none, or until
    the conversation's beginning.
    """
    called: set[str] = set()
    unmatched: set[str] = set()
    for message in messages:
        called.update(call.id for call in message.tool_calls)
        unmatched.update(
            result.tool_call_id
            for result in message.tool_results
            if result.tool_call_id not in called
        )
    return frozenset(unmatched)


def _latest_calls(messages: Sequence[ChatMessage], end: int, ids: frozenset[str]) -> int:
    """Return the index from which on, before `end`, every id that is called at all is called."""
    wanted = set(ids)
    start = end
    for at in range(end - 1, -1, -1):
        if not wanted:
            break
        found = wanted.intersection(call.id for call in messages[at].tool_calls)
        if found:
            wanted -= found
            start = at
    return start


def window_start(messages: Sequence[ChatMessage], last: int) -> int:
    """Return where a window of at least `last` messages starts.

    It never lies between a tool call and its results: the window grows to hold the call.

    Raises:
        ValueError: `last` is negative.
    """
    if last < 0:
        message = f"last must be 0 or more, not {last}"
        raise ValueError(message)
    end = len(messages)
    start = max(0, end - last)
    while True:
        earlier = _latest_calls(messages, start, unmatched_results(messages[start:end]))
        if earlier == start:
            return start
        start, end = earlier, start


def _without_orphans(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    called: set[str] = set()
    for message in messages:
        called.update(call.id for call in message.tool_calls)
        parts = tuple(
            part
            for part in message.parts
            if not isinstance(part, ToolResult) or part.tool_call_id in called
        )
        if len(parts) == len(message.parts):
            yield message
        elif parts:
            yield replace(message, parts=parts)


def history_window(messages: Sequence[ChatMessage], last: int | None) -> list[ChatMessage]:
    """Return the conversation, or a window of about its `last` messages.

    The whole conversation is returned as it is. A window holds a few messages more where it
    would start between a tool call and its results; a result whose call was never stored at all
    is left out of it, since no provider takes one.

    Raises:
        ValueError: `last` is negative.
    """
    if last is None:
        return list(messages)
    return list(_without_orphans(messages[window_start(messages, last) :]))

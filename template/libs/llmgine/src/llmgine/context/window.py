"""What stores hand out: copies that share nothing, windows cut where a model can go on, lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

from llmgine.contracts import ChatMessage, MediaPart, OpaquePart, RefusalPart, StoredSession
from llmgine.contracts.chat import Part, ToolCall, ToolResult

__all__ = [
    "FIRST_FEW",
    "SUMMARY",
    "check_limit",
    "copied",
    "estimated_tokens",
    "history_window",
    "listed",
    "opening",
    "summarised",
    "token_window",
    "unmatched_results",
    "window_start",
]

SUMMARY = "llmgine.summary"
"""The key under which a summary's `provider_data` names the messages that it stands for."""

_BYTES_PER_TOKEN = 4
_AROUND_A_MESSAGE = 4
_MEDIA_TOKENS = 1_500


def _copied_part(part: Part) -> Part:
    return part if _is_still(part) else deepcopy(part)


def _is_still(part: Part) -> bool:
    """Tell whether there is nothing in a part that could change."""
    if isinstance(part, RefusalPart):
        return True
    if isinstance(part, OpaquePart):
        return False
    if isinstance(part, ToolResult):
        return isinstance(part.content, str)
    return part.provider_data is None


def copied(message: ChatMessage) -> ChatMessage:
    """Return a message that no change to the given one's mappings can reach.

    Most messages hold nothing that can change, and are returned as they are.
    """
    still = message.provider_data is None and type(message.parts) is tuple
    if still and all(map(_is_still, message.parts)):
        return message
    parts = tuple(map(_copied_part, message.parts))
    return replace(message, parts=parts, provider_data=deepcopy(message.provider_data))


def unmatched_results(messages: Sequence[ChatMessage]) -> frozenset[str]:
    """Return the ids of tool results that have no call before them among these messages.

    A store that reads the end of a long conversation goes back until there are none, or until
    the conversation's beginning.
    """
    called: set[str] = set()
    unmatched: set[str] = set()
    for message in messages:
        _note_calls(message, called)
        for part in message.parts:
            if isinstance(part, ToolResult) and part.tool_call_id not in called:
                unmatched.add(part.tool_call_id)
    return frozenset(unmatched)


def _note_calls(message: ChatMessage, called: set[str]) -> None:
    for part in message.parts:
        if isinstance(part, ToolCall):
            called.add(part.id)


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
        _note_calls(message, called)
        parts = [
            part
            for part in message.parts
            if not isinstance(part, ToolResult) or part.tool_call_id in called
        ]
        if len(parts) == len(message.parts):
            yield message
        elif parts:
            yield replace(message, parts=tuple(parts))


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


def _bytes(part: Part) -> int:
    if isinstance(part, MediaPart):
        return _MEDIA_TOKENS * _BYTES_PER_TOKEN
    if isinstance(part, ToolResult) and not isinstance(part.content, str):
        return sum(map(_bytes, part.content))
    if isinstance(part, ToolCall):
        text = part.name + part.arguments
    else:
        text = str(part.data) if isinstance(part, OpaquePart) else part.text
    return len(text.encode(errors="replace"))


def estimated_tokens(message: ChatMessage) -> int:
    """Estimate what a message costs a model, without knowing the model.

    A token for every four bytes of UTF-8, four for the message itself, and 1,500 for each picture,
    recording, film or document. For English and code that is mostly within a quarter of the truth,
    for other scripts mostly too little: leave a margin, or count with the model's own tokenizer.
    """
    return _AROUND_A_MESSAGE - sum(map(_bytes, message.parts)) // -_BYTES_PER_TOKEN


def token_window(
    messages: Sequence[ChatMessage],
    budget: int,
    *,
    count: Callable[[ChatMessage], int] = estimated_tokens,
) -> list[ChatMessage]:
    """Return the system messages, and as many of the newest others as the budget allows.

    A tool call and its results stay or go together. Where the system messages alone take the
    budget, or not even the newest exchange fits into it, only they are returned.

    Args:
        messages: the conversation, oldest first.
        budget: the most tokens that the window may have.
        count: tells how many tokens a message has.
    """
    sound = list(_without_orphans(messages))
    left = budget - sum(count(message) for message in sound if message.role == "system")
    start = len(sound)
    uncalled: set[str] = set()
    for at in range(len(sound) - 1, -1, -1):
        message = sound[at]
        left -= 0 if message.role == "system" else count(message)
        if left < 0:
            break
        uncalled.update(result.tool_call_id for result in message.tool_results)
        uncalled.difference_update(call.id for call in message.tool_calls)
        if not uncalled:
            start = at
    return [each for at, each in enumerate(sound) if at >= start or each.role == "system"]


def _numbers(message: ChatMessage, number: int) -> tuple[int, int]:
    """Return the first and the last number of what a message stands for; usually its own."""
    match (message.provider_data or {}).get(SUMMARY):
        case {"first": int(first), "last": int(last)}:
            return first, last
        case _:
            return number, number


async def summarised(
    messages: Sequence[ChatMessage],
    *,
    last: int,
    summarise: Callable[[Sequence[ChatMessage]], Awaitable[str]],
) -> list[ChatMessage]:
    """Return a window of about the `last` messages, behind a summary of those before it.

    System messages stay as they are. The summary is a user's message; its `provider_data` names
    what it stands for, as numbers of messages in the conversation, which start at 1:

        {"llmgine.summary": {"first": 2, "last": 40}}

    A conversation that starts with such a summary can be summarised again: the new one stands for
    all that the old one stood for. It is for requests; what a store keeps stays complete.

    Args:
        messages: the whole conversation, or what this function made of it and what came since.
        last: how many messages to leave as they are, at least.
        summarise: tells in words what the given messages say.

    Raises:
        ValueError: `last` is negative.
    """
    start = window_start(messages, last)
    instructions: list[ChatMessage] = []
    replaced: list[ChatMessage] = []
    first = number = 0
    for message in messages[:start]:
        begin, number = _numbers(message, number + 1)
        if message.role == "system":
            instructions.append(message)
        else:
            first = first or begin
            replaced.append(message)
    if not replaced:
        return list(messages)
    text = await summarise(replaced)
    summary = replace(
        ChatMessage.user(text), provider_data={SUMMARY: {"first": first, "last": number}}
    )
    return [*instructions, summary, *history_window(messages, last)]


FIRST_FEW = 4
"""Among so many messages the user's first is looked for."""

_LONGEST_OPENING = 200


def opening(messages: Iterable[ChatMessage]) -> str:
    """Return how the user began, given the first few messages."""
    for message in messages:
        if message.role == "user":
            return message.text[:_LONGEST_OPENING]
    return ""


def _place(session: StoredSession) -> tuple[float, str]:
    return session.updated_at, session.session_id


def listed(
    sessions: Iterable[StoredSession], limit: int, after: StoredSession | None
) -> list[StoredSession]:
    """Return a page of all the sessions that there are.

    Raises:
        ValueError: `limit` is negative.
    """
    check_limit(limit)
    left = (
        sessions if after is None else (each for each in sessions if _place(each) < _place(after))
    )
    return sorted(left, key=_place, reverse=True)[:limit]


def check_limit(limit: int) -> None:
    """Refuse a limit that can't be meant.

    Raises:
        ValueError: it is negative.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")

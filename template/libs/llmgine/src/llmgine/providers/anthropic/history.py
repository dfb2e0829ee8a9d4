"""A conversation as Anthropic takes it: turns of blocks that alternate between user and assistant.

Consecutive messages of one side become one turn, all tool results of a turn come first in it, and
system messages stand apart. A history that another provider made is taken as well: its reasoning
and its private parts stay behind, which is noted, and its ids are made to fit.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TypeAlias

from llmgine.contracts.chat import (
    ChatMessage,
    JsonObject,
    JsonValue,
    MediaPart,
    OpaquePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolResult,
)
from llmgine.errors import InvalidRequestError
from llmgine.providers.anthropic.media import source_of

__all__ = ["NAME", "Block", "Conversation"]

NAME = "anthropic"

Block: TypeAlias = dict[str, object]

# What each kind of block may carry besides its content. `provider_data` may also hold what another
# provider sent, which Anthropic would refuse.
_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"cache_control", "citations"}),
    "image": frozenset({"cache_control", "transformations"}),
    "document": frozenset({"cache_control", "citations", "context", "title"}),
    "tool_use": frozenset({"cache_control", "caller", "toolset_name"}),
    "message": frozenset({"cache_control"}),
}
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")


def _legal(given: str) -> str:
    """Return an id in Anthropic's alphabet: the same one each time, another for another id."""
    cleaned = _ILLEGAL.sub("_", given)
    if cleaned == given and given:
        return given
    return f"{cleaned}_{sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


class _Ids:
    """Ids of tool calls, each made legal and used once; a call and its result share one.

    Some providers number the calls of every turn anew, while Anthropic refuses an id that comes
    again.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: dict[str, tuple[int, deque[str]]] = {}

    def of_call(self, given: str, turn: int) -> str:
        new = legal = _legal(given)
        count = 1
        while new in self._used:
            count += 1
            new = f"{legal}_{count}"
        self._used.add(new)
        last, waiting = self._open.get(given, (turn, deque[str]()))
        if last != turn:
            waiting = deque[str]()
        waiting.append(new)
        self._open[given] = (turn, waiting)
        return new

    def of_result(self, given: str) -> str:
        _, waiting = self._open.get(given, (0, deque[str]()))
        return waiting.popleft() if waiting else _legal(given)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return number


def _parsed(arguments: str) -> JsonObject | None:
    """Return a call's arguments as the object they are; `None` if they aren't one."""
    if not arguments.strip():
        return {}  # some providers say so for a tool without parameters
    try:
        value: JsonValue = json.loads(arguments, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # half a character can't be sent on
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_ours(part: ThinkingPart) -> bool:
    """Tell whether Anthropic made and sealed it.

    Thoughts that were cut off have no seal, and Anthropic would refuse the conversation for good.
    """
    sealed = bool(part.signature) or part.redacted is not None
    return sealed and part.provider in {NAME, None}


class Conversation:
    """Takes messages, oldest first, and writes them down as Anthropic's.

    Args:
        refusal: makes the error for what Anthropic can't take.

    Attributes:
        system: the blocks of the system prompt.
        turns: the user's and the assistant's, by turns.
        left_out: what had to stay behind, in words.
    """

    def __init__(self, refusal: Callable[[str], InvalidRequestError]) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self.left_out: set[str] = set()
        self._refusal = refusal
        self._ids = _Ids()
        self._role = ""
        self._blocks: list[Block] = []
        self._count = 0

    def add(self, message: ChatMessage) -> None:
        """Take the next message.

        Raises:
            InvalidRequestError: it holds what Anthropic can't take.
        """
        self._count += 1
        blocks = [each for part in message.parts if (each := self._block(message, part))]
        if blocks:
            # What holds for a whole message, such as where a cache ends, stands in its last block.
            blocks[-1].update(self._data("message", message.provider_data))
            self._sign(message, blocks)
        if message.role == "system":
            self.system.extend(blocks)
            return
        role = "assistant" if message.role == "assistant" else "user"
        if blocks and role != self._role:
            self.close()
            self._role = role
        self._blocks.extend(blocks)

    def close(self) -> None:
        """End the turn, and write it down if there is anything in it."""
        if self._blocks:
            # Stable: results keep their order in front, and all else keeps its own behind them.
            self._blocks.sort(key=lambda block: block.get("type") != "tool_result")
            self.turns.append({"role": self._role, "content": self._blocks})
        self._blocks = []

    def _sign(self, message: ChatMessage, blocks: list[Block]) -> None:
        """Say who speaks: for want of a field for it, in front of a user's text."""
        if message.name is None:
            return
        first = next((block for block in blocks if block.get("type") == "text"), None)
        if message.role == "user" and first is not None:
            first["text"] = f"{message.name}: {first['text']}"
        else:
            self.left_out.add("names of speakers")

    def _block(self, message: ChatMessage, part: Part) -> Block | None:
        if isinstance(part, TextPart):
            return self._text(part)
        if isinstance(part, OpaquePart):
            return self._opaque(part)
        if message.role == "assistant":
            return self._said(message, part)
        if message.role != "system":
            return self._heard(message, part)
        raise self._misplaced(message, part)

    def _said(self, message: ChatMessage, part: Part) -> Block | None:
        """Return the block of a part that only an assistant's message may hold."""
        if isinstance(part, ToolCall):
            return self._call(part)
        if isinstance(part, ThinkingPart):
            return self._thinking(part)
        if isinstance(part, RefusalPart):
            return self._text(TextPart(text=part.text))
        raise self._misplaced(message, part)

    def _heard(self, message: ChatMessage, part: Part) -> Block:
        """Return the block of a part that only a user's or a tool's message may hold."""
        if isinstance(part, MediaPart):
            return self._media(part)
        if isinstance(part, ToolResult):
            return self._result(part)
        raise self._misplaced(message, part)

    def _misplaced(self, message: ChatMessage, part: Part) -> InvalidRequestError:
        kind = type(part).__name__
        return self._refusal(f"messages: no {kind} is taken in a message of role {message.role!r}")

    def _data(self, kind: str, data: JsonObject | None) -> Block:
        """Return of a part's `provider_data` what Anthropic knows."""
        given = data or {}
        known: Block = {name: given[name] for name in given if name in _FIELDS[kind]}
        if len(known) < len(given):
            self.left_out.add("provider_data of another provider")
        return known

    def _text(self, part: TextPart) -> Block | None:
        if not part.text.strip():
            return None  # other providers send texts without a word, which Anthropic refuses
        return {"type": "text", "text": part.text, **self._data("text", part.provider_data)}

    def _opaque(self, part: OpaquePart) -> Block | None:
        if part.provider == NAME:
            return dict(part.data)
        self.left_out.add(f"parts that only {part.provider!r} understands")
        return None

    def _thinking(self, part: ThinkingPart) -> Block | None:
        if not _is_ours(part):
            self.left_out.add("reasoning that Anthropic hasn't signed")
            return None
        block: Block = {
            "type": "thinking",
            "thinking": part.text,
            "signature": part.signature or "",
        }
        if part.redacted is not None:
            block = {"type": "redacted_thinking", "data": part.redacted}
        return {**block, **(part.provider_data or {})}

    def _call(self, part: ToolCall) -> Block:
        arguments = _parsed(part.arguments)
        if arguments is None:
            self.left_out.add("arguments that are no JSON object, for which {} was sent")
        return {
            "type": "tool_use",
            "id": self._ids.of_call(part.id, self._count),
            "name": part.name,
            "input": arguments or {},
            **self._data("tool_use", part.provider_data),
        }

    def _result(self, part: ToolResult) -> Block:
        block: Block = {
            "type": "tool_result",
            "tool_use_id": self._ids.of_result(part.tool_call_id),
        }
        if content := self._content(part):
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        return block

    def _content(self, part: ToolResult) -> str | list[Block]:
        if isinstance(part.content, str):
            return part.content
        blocks = (
            self._text(each) if isinstance(each, TextPart) else self._media(each)
            for each in part.content
        )
        return [block for block in blocks if block is not None]

    def _media(self, part: MediaPart) -> Block:
        if part.kind not in {"image", "document"}:
            raise self._refusal(f"messages: images and documents are taken, {part.kind} isn't")
        block: Block = {"type": part.kind, "source": source_of(part, self._refusal)}
        if part.kind == "document" and part.name:
            block["title"] = part.name
        return {**block, **self._data(part.kind, part.provider_data)}

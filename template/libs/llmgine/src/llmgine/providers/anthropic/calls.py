"""Ids and arguments of tool calls, whoever made them, as Anthropic takes them."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from hashlib import sha256

from llmgine.contracts.chat import JsonObject, JsonValue

__all__ = ["CallIds", "arguments_of"]

_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")


def _legal(given: str) -> str:
    """Return an id in Anthropic's alphabet: the same one each time, another for another id."""
    cleaned = _ILLEGAL.sub("_", given)
    if cleaned == given and given:
        return given
    return f"{cleaned}_{sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


class CallIds:
    """Ids of tool calls, each made legal and used once; a call and its result share one.

    Some providers number the calls of every turn anew, while Anthropic refuses an id that comes
    again.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: dict[str, tuple[int, deque[str]]] = {}

    def of_call(self, given: str, turn: int) -> str:
        """Return the id of a call; those of one turn may have been given the same."""
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
        """Return the id of the call that a result is of: the first one that has none yet."""
        _, waiting = self._open.get(given, (0, deque[str]()))
        return waiting.popleft() if waiting else _legal(given)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("no finite number")
    return number


def arguments_of(arguments: str) -> JsonObject | None:
    """Return a call's arguments as the object they are; `None` if they aren't one."""
    if not arguments.strip():
        return {}  # some providers say so for a tool without parameters
    try:
        value: JsonValue = json.loads(arguments, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # half a character can't be sent on
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

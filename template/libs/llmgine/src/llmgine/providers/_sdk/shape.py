"""Looking at JSON of which no promise holds: a missing or odd value is an empty one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeGuard

from llmgine.contracts.chat import JsonValue

__all__ = ["Fields", "count", "fields", "is_fields", "items", "joined", "known", "text"]

Fields = dict[str, JsonValue]
_TOO_MUCH = 2**63


def is_fields(value: object) -> TypeGuard[Fields]:
    """Tell whether a value is a JSON object; what is in one came from JSON, too."""
    return isinstance(value, dict)


def fields(value: object) -> Fields:
    """Return an object."""
    return value if is_fields(value) else {}


def items(value: JsonValue) -> list[JsonValue]:
    """Return a list."""
    return value if isinstance(value, list) else []


def text(value: JsonValue) -> str:
    """Return a text; an object, where a server sends one in a text's place, as its JSON."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value if isinstance(value, str) else ""


def count(value: JsonValue) -> int | None:
    """Return a whole number, of a size that can be a count or a time."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if abs(value) < _TOO_MUCH else None


def known(value: Mapping[str, JsonValue], *without: str) -> Fields:
    """Return the fields that say something, without those that are read elsewhere."""
    return {
        name: each
        for name, each in value.items()
        if name not in without and each not in (None, [], {})
    }


def joined(old: JsonValue, new: JsonValue) -> JsonValue:
    """Return a value with its next piece: texts grow, lists too, objects field by field.

    Elements of a list that carry an `index` are joined with those of the same one.
    """
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return _joined_lists(old, new)
    if isinstance(old, dict) and isinstance(new, dict):
        both = {name: _joined_field(name, old[name], new[name]) for name in old.keys() & new.keys()}
        return {**old, **new, **both}
    return old if new is None else new


def _joined_field(name: str, old: JsonValue, new: JsonValue) -> JsonValue:
    # These are said anew with each piece, and not in pieces.
    return new if name in {"id", "type", "index", "format"} else joined(old, new)


def _joined_lists(old: list[JsonValue], new: list[JsonValue]) -> list[JsonValue]:
    result = list(old)
    for each in new:
        at = _same_index(result, each)
        if at is None:
            result.append(each)
        else:
            result[at] = joined(result[at], each)
    return result


def _same_index(found: list[JsonValue], wanted: JsonValue) -> int | None:
    index = fields(wanted).get("index")
    if index is None:
        return None
    return next((at for at, each in enumerate(found) if fields(each).get("index") == index), None)

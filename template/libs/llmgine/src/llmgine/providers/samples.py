"""JSON that fits a JSON Schema, made up from nothing but the schema and a few hints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from llmgine.contracts.chat import JsonValue

__all__ = ["Sampler"]

_DEPTH = 8
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"\"([^\"]+)\"|'([^']+)'|`([^`]+)`")
_SIMPLE: Mapping[str, JsonValue] = {"boolean": True, "null": None}

_OPERAND = r"\({0,9}-?\d+(?:\.\d+)?\){0,9}"
# A minus needs room around it: dates and telephone numbers are no sums.
_OPERATOR = r"(?:\s*(?:\*\*?|//?|[+^×÷])\s*|\s+[-−]\s+)"  # noqa: RUF001
_LOOKS: Mapping[str, re.Pattern[str]] = {
    "expression": re.compile(rf"(?<![\w.]){_OPERAND}(?:{_OPERATOR}{_OPERAND})+"),
    "path": re.compile(r"(?<![\w./-])[\w./-]*\w{2}\.[A-Za-z]\w{0,7}\b"),
    "zone": re.compile(r"\bUTC\b|\b[A-Z]\w+(?:/[A-Z]\w+)+"),
}
"""What looks like the value of a text parameter, by the parameter's name."""


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _number(value: JsonValue) -> float | None:
    return value if isinstance(value, int | float) else None


class Sampler:
    """Makes up values for a schema: numbers and quoted words of a text are used first.

    It serves to show a tool call, not to cover the whole of JSON Schema: what it doesn't know
    (patterns, conditions) it passes over.

    Args:
        schema: the schema; references into itself are followed.
        text: where the hints come from.
    """

    def __init__(self, schema: Mapping[str, object], text: str) -> None:
        plain: JsonValue = json.loads(json.dumps(schema))
        self._root = _object(plain)
        self._text = text
        self._numbers = [float(found) for found in _NUMBER.findall(text)]
        self._quoted = ["".join(groups) for groups in _QUOTED.findall(text)]
        matches = {name: look.search(text) for name, look in _LOOKS.items()}
        self._hints = {name: found[0] for name, found in matches.items() if found}

    def value(self) -> JsonValue:
        """Return a value for the whole schema."""
        return self._value(self._root, 0)

    def hinted(self) -> frozenset[str]:
        """Return the names of the properties that the text holds a value for."""
        properties = _object(self._root.get("properties"))
        return frozenset(name for name in properties if name in self._hints)

    def _value(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        if depth > _DEPTH:
            return None
        if "const" in schema:
            return schema["const"]
        if choices := _list(schema.get("enum")):
            named = [choice for choice in choices if str(choice).lower() in self._text.lower()]
            return (named or choices)[0]
        if isinstance(reference := schema.get("$ref"), str):
            return self._value(self._resolved(reference), depth + 1)
        for word in ("anyOf", "oneOf", "allOf"):
            if options := _list(schema.get(word)):
                return self._value(_object(options[0]), depth + 1)
        return self._of_kind(schema, depth)

    def _of_kind(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else None
        if kind == "object" or "properties" in schema:
            return self._object(schema, depth)
        if kind == "array":
            least = int(_number(schema.get("minItems")) or 1)
            items = _object(schema.get("items"))
            return [self._value(items, depth + 1) for _ in range(min(least, _DEPTH))]
        if kind in {"integer", "number"}:
            return self._in_range(schema, whole=kind == "integer")
        if isinstance(kind, str) and kind in _SIMPLE:
            return _SIMPLE[kind]
        return self._string(schema)

    def _object(self, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        properties = _object(schema.get("properties"))
        required = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        optional = [name for name in properties if name in self._hints and name not in required]
        return {
            name: self._property(name, _object(properties.get(name)), depth)
            for name in (*required, *optional)
        }

    def _property(self, name: str, schema: dict[str, JsonValue], depth: int) -> JsonValue:
        if name in self._hints and schema.get("type") == "string" and "enum" not in schema:
            return self._hints[name]
        return self._value(schema, depth + 1)

    def _in_range(self, schema: dict[str, JsonValue], *, whole: bool) -> JsonValue:
        value = self._numbers.pop(0) if self._numbers else 1.0
        if (most := _number(schema.get("maximum"))) is not None:
            value = min(value, most)
        if (least := _number(schema.get("minimum"))) is not None:
            value = max(value, least)
        return round(value) if whole or value == round(value) else value

    def _string(self, schema: dict[str, JsonValue]) -> JsonValue:
        value = self._quoted.pop(0) if self._quoted else self._text
        longest = _number(schema.get("maxLength"))
        value = value if longest is None else value[: int(longest)]
        return value.ljust(int(_number(schema.get("minLength")) or 0), ".")

    def _resolved(self, reference: str) -> dict[str, JsonValue]:
        found: JsonValue = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = _object(found).get(step.replace("~1", "/").replace("~0", "~"))
        return _object(found)

"""JSON Schemas (2020-12) of parameters, in the plain and in the strict form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["Definitions", "JsonSchema", "nullable", "options", "strict_form", "target", "tidied"]

JsonSchema: TypeAlias = dict[str, Any]
Definitions: TypeAlias = Mapping[str, JsonSchema]

_MAPS = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLES = frozenset({"items", "additionalProperties", "contains", "propertyNames", "not"})

# What strict modes understand of a schema; the rest is checked when the call comes.
_STRICT = frozenset(
    (
        *("$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum"),
        *("exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum"),
        *("minItems", "minimum", "multipleOf", "pattern", "properties", "required", "type"),
    )
)
_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid")
)
_TYPED = frozenset({"type", "$ref", "anyOf", "enum", "const"})


class _OpenError(Exception):
    """A schema that lets anything in can't be closed."""


def _mapped(schema: JsonSchema, change: Callable[[JsonSchema], JsonSchema]) -> JsonSchema:
    """Return a copy in which every schema is changed, the innermost first."""
    fresh = dict(schema)
    for key, value in schema.items():
        if key in _MAPS:
            fresh[key] = {name: _mapped(each, change) for name, each in value.items()}
        elif key in _LISTS:
            fresh[key] = [_mapped(each, change) for each in value]
        elif key in _SINGLES and not isinstance(value, bool):
            fresh[key] = _mapped(value, change)
    return change(fresh)


def tidied(schema: JsonSchema) -> JsonSchema:
    """Return a schema without titles, which repeat names and cost tokens."""
    return _mapped(schema, _untitled)


def _untitled(schema: JsonSchema) -> JsonSchema:
    schema.pop("title", None)
    return schema


def strict_form(schema: JsonSchema) -> JsonSchema | None:
    """Return the form in which a provider guarantees the fit; none if there is no such form.

    Objects are closed, and everything is required: what has a default may be `null` instead.
    Objects with any keys, and values of any type, have no strict form.
    """
    definitions = schema.get("$defs", {})
    try:
        return _mapped(schema, lambda each: _closed(each, definitions))
    except _OpenError:
        return None


def _closed(schema: JsonSchema, definitions: Definitions) -> JsonSchema:
    if "oneOf" in schema:
        schema["anyOf"] = schema["oneOf"]
    if "prefixItems" in schema:
        schema["items"] = {"anyOf": schema["prefixItems"]}
    strict = {key: value for key, value in schema.items() if key in _STRICT}
    if not strict.keys() & _TYPED:
        raise _OpenError
    if strict.get("type") == "array" and "items" not in strict:
        raise _OpenError
    if strict.get("type") == "object":
        _close(strict, definitions)
    return _spoken(strict)


def _spoken(strict: JsonSchema) -> JsonSchema:
    """Leave out what strict modes refuse: formats, patterns that look around, words at a `$ref`."""
    if strict.get("format") not in _FORMATS:
        strict.pop("format", None)
    if "(?" in strict.get("pattern", ""):
        del strict["pattern"]
    if "$ref" in strict and len(strict) > 1:
        strict["anyOf"] = [{"$ref": strict.pop("$ref")}]
    return strict


def _close(schema: JsonSchema, definitions: Definitions) -> None:
    if "properties" not in schema:
        raise _OpenError
    required = schema.get("required", ())
    schema["properties"] = {
        name: each
        if name in required or nullable(each, definitions)
        else {"anyOf": [each, {"type": "null"}]}
        for name, each in schema["properties"].items()
    }
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False


def nullable(schema: JsonSchema, definitions: Definitions) -> bool:
    """Tell whether a schema takes `null`."""
    schema = target(schema, definitions)
    if several := options(schema):
        return any(nullable(each, definitions) for each in several)
    if "enum" in schema:
        return None in schema["enum"]
    return schema.get("type", "null") == "null" and schema.get("const") is None


def target(schema: JsonSchema, definitions: Definitions) -> JsonSchema:
    """Return a schema, or the one that it refers to."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def options(schema: JsonSchema) -> list[JsonSchema]:
    """Return the schemas of which a value fits one; none where there is no choice."""
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]

"""JSON Schemas (2020-12) of parameters, in the plain and in the strict form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import Any, TypeAlias

from llmgine.contracts.chat import JsonValue

__all__ = ["JsonSchema", "strict_form", "tidied", "without_defaults"]

JsonSchema: TypeAlias = dict[str, Any]
_Definitions: TypeAlias = Mapping[str, JsonSchema]

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


def _closed(schema: JsonSchema, definitions: _Definitions) -> JsonSchema:
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


def _close(schema: JsonSchema, definitions: _Definitions) -> None:
    if "properties" not in schema:
        raise _OpenError
    required = schema.get("required", ())
    schema["properties"] = {
        name: each
        if name in required or _nullable(each, definitions)
        else {"anyOf": [each, {"type": "null"}]}
        for name, each in schema["properties"].items()
    }
    schema["required"] = list(schema["properties"])
    schema["additionalProperties"] = False


def _nullable(schema: JsonSchema, definitions: _Definitions) -> bool:
    """Tell whether a schema takes `null`."""
    schema = _target(schema, definitions)
    if several := _options(schema):
        return any(_nullable(each, definitions) for each in several)
    if "enum" in schema:
        return None in schema["enum"]
    return schema.get("type", "null") == "null" and schema.get("const") is None


def _target(schema: JsonSchema, definitions: _Definitions) -> JsonSchema:
    """Return a schema, or the one that it refers to."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def _options(schema: JsonSchema) -> list[JsonSchema]:
    """Return the schemas of which a value fits one; none where there is no choice."""
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def without_defaults(value: JsonValue, schema: JsonSchema, definitions: _Definitions) -> JsonValue:
    """Return arguments without each `null` that can only stand for a default.

    That is how the strict form lets a model leave something out.
    """
    schema = _fitting(value, schema, definitions)
    if isinstance(value, list):
        items = chain(schema.get("prefixItems", ()), repeat(schema.get("items", {})))
        pairs = zip(value, items, strict=False)  # the schema of further items is endless
        return [without_defaults(each, item, definitions) for each, item in pairs]
    if not isinstance(value, dict):
        return value
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: without_defaults(each, properties.get(name, {}), definitions)
        for name, each in value.items()
        if each is not None
        or name in required
        or name not in properties
        or _nullable(properties[name], definitions)
    }


def _fitting(value: JsonValue, schema: JsonSchema, definitions: _Definitions) -> JsonSchema:
    """Return which of a schema's options a list or an object is meant for."""
    schema = _target(schema, definitions)
    several = _options(schema)
    for each in several:
        fitting = _fitting(value, each, definitions)
        if _fits(value, fitting):
            return fitting
    return {} if several else schema


def _fits(value: JsonValue, schema: JsonSchema) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, list) and not schema.keys().isdisjoint({"items", "prefixItems"})
    properties = schema.get("properties", {})
    return value.keys() <= properties.keys() and all(
        value[name] == properties[name].get("const", value[name]) for name in value
    )

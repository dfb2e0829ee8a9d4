"""Layers of settings: what each source says, which of its names nobody knows, what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from inspect import isclass
from typing import Any, TypeAlias, TypeGuard, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmgine.errors import ConfigurationError
from llmgine.observability.redaction import is_secret_key, redact_text

__all__ = [
    "PREFIX",
    "Layer",
    "Shape",
    "is_table",
    "lines",
    "merged",
    "place",
    "problems",
    "shape_of",
    "shown",
    "variable",
    "with_lists",
]

PREFIX = "LLMGINE_"
_SHOWN = 60
# A table of free keys may hold secrets under any name.
_FREE_TABLES = (
    "mcp.servers.",
    "otel.headers.",
    "provider.fallback_options.",
    "provider.options.",
    "provider.variables.",
)

Shape: TypeAlias = Mapping[str, object]
"""The dotted name of every setting with its type; a table of free keys ends in a dot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """What one source of settings says.

    Attributes:
        origin: the source, in words for an error message.
        values: the settings as nested tables.
        variables: the names of its variables, where the source is an environment.
    """

    origin: str
    values: Mapping[str, object]
    variables: tuple[str, ...] | None = field(default=None)

    def says(self, name: str) -> bool:
        """Tell whether this layer sets a dotted name."""
        found: object = self.values
        for key in name.split("."):
            table = _as_table(found)
            if table is None or key not in table:
                return False
            found = table[key]
        return True

    def spelled(self, name: str) -> str:
        """Return a setting's dotted name as this source writes it."""
        return name if self.variables is None else variable(name)

    def place(self, name: str) -> str:
        """Return where this source sets a name, for the end of an error message."""
        return self.origin if self.variables is None else f"{variable(name)} in {self.origin}"


def variable(name: str) -> str:
    """Return the environment variable for a setting's dotted name."""
    return f"{PREFIX}{name.upper().replace('.', '__')}"


def shown(name: str, value: object) -> str:
    """Return a value for an error message: on one line, short, and never a secret."""
    if f"{name}.".startswith(_FREE_TABLES) or any(map(is_secret_key, name.split("."))):
        return f"a hidden {type(value).__name__}"
    text = redact_text(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shape_of(model: type[BaseModel]) -> Shape:
    """Return the dotted name and the type of every setting that a model takes."""
    return dict(_leaves("", _members(model) or {}))


def _members(annotation: object) -> dict[str, object] | None:
    if not isclass(annotation):
        return None
    if issubclass(annotation, BaseModel):
        return {name: info.annotation for name, info in annotation.model_fields.items()}
    if is_dataclass(annotation):
        hints: dict[str, object] = get_type_hints(annotation)
        return {each.name: hints[each.name] for each in fields(annotation) if each.init}
    return None


def _leaves(prefix: str, members: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, annotation in members.items():
        dotted = f"{prefix}{name}"
        inner = _members(annotation)
        if inner is not None:
            yield from _leaves(f"{dotted}.", inner)
        elif get_origin(annotation) is dict:
            yield f"{dotted}.", annotation
        else:
            yield dotted, annotation


def is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    """Tell whether a value is a table of settings."""
    return isinstance(value, Mapping)


def _as_table(value: object) -> Mapping[str, object] | None:
    """Return a table, or the fields of a group that was given as an object."""
    if is_table(value):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return dict(value) if isinstance(value, BaseModel) else None


def merged(layers: list[Layer]) -> dict[str, Any]:
    """Join the layers, the last one winning; tables are joined key by key."""
    result: dict[str, Any] = {}
    for layer in layers:
        result = _joined(result, layer.values)
    return result


def _joined(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    result = dict(lower)
    for key, value in upper.items():
        below = _as_table(result.get(key))
        if below is not None and is_table(value):
            result[key] = _joined(below, value)
        else:
            result[key] = value  # a group given as an object is complete: it replaces the rest
    return result


def with_lists(values: Mapping[str, object], shape: Shape) -> dict[str, object]:
    """Return the values with each list, which a variable holds as words and commas, as one."""
    result = dict(values)
    for name, annotation in shape.items():
        group, _, key = name.partition(".")
        table = result.get(group)
        if get_origin(annotation) is list and is_table(table):
            result[group] = {**table, **_as_list(key, table.get(key))}
    return result


def _as_list(key: str, text: object) -> dict[str, list[str]]:
    if not isinstance(text, str):
        return {}
    return {key: [word for each in text.split(",") if (word := each.strip())]}


def problems(layer: Layer, shape: Shape) -> Iterator[str]:
    """Yield a line for each name in a layer that is no setting, and for each misplaced boolean.

    Booleans are looked at here, since validation would take them for the numbers 0 and 1.
    """
    free = tuple(name for name in shape if name.endswith("."))
    for name, value in _entries(layer, shape):
        if name.startswith(free):
            continue
        if name in shape:
            if isinstance(value, bool) and (shape[name] is int or shape[name] is float):
                yield f"{name}: expected a number, found {shown(name, value)} ({layer.place(name)})"
        elif any(known.startswith(f"{name}.") for known in shape) and layer.variables is None:
            found = shown(name, value)
            yield f"{name}: expected a table of settings, found {found} ({layer.place(name)})"
        else:
            hint = _nearest(layer, name, shape)
            yield f"{layer.spelled(name)}: no such setting; {hint} ({layer.origin})"


def _entries(layer: Layer, shape: Shape) -> Iterator[tuple[str, object]]:
    if layer.variables is None:
        yield from _walk(layer.values, shape, "")
        return
    for each in layer.variables:
        yield each[len(PREFIX) :].lower().replace("__", "."), each


def _walk(values: Mapping[str, object], shape: Shape, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        table = _as_table(value)
        if table is not None and any(known.startswith(f"{name}.") for known in shape):
            yield from _walk(table, shape, f"{name}.")
        else:
            yield name, value


def _nearest(layer: Layer, name: str, shape: Shape) -> str:
    if f"{name}." in shape:
        return f"give each key a variable of its own, {layer.spelled(name)}__<KEY>"
    groups = sorted({each.partition(".")[0] for each in shape})
    known = [each.rstrip(".") for each in shape]
    if layer.variables is None:
        known += groups  # a variable sets a single setting, never a group
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {layer.spelled(close[0])}?"
    return f"there are {', '.join(layer.spelled(group) for group in groups)}"


_EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "dataclass_type": "a table of settings",
    "decimal_parsing": "a number",
    "decimal_type": "a number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "missing": "a value for it",
    "path_type": "a path",
    "string_type": "text",
    "unexpected_keyword_argument": "another name",
}


def lines(error: ValidationError, layers: Sequence[Layer]) -> Iterator[str]:
    """Yield one line for each wrong setting."""
    for detail in error.errors(include_url=False):
        name = ".".join(str(key) for key in detail["loc"])
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ConfigurationError):
            # A room refused its settings; its text begins with the field's name.
            field, _, text = str(cause).partition(":")
            name = f"{name}.{field}"
            finding = text.strip()
        else:
            finding = f"expected {_expected(detail)}, found {shown(name, detail['input'])}"
        yield f"{name}: {finding}{place(name, layers)}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        return str(detail.get("ctx", {})["expected"])
    return _EXPECTED.get(detail["type"]) or f"something else ({detail['msg']})"


def place(name: str, layers: Sequence[Layer]) -> str:
    """Return where a setting was set, for the end of a line; nothing for a default."""
    for layer in reversed(layers):
        if layer.says(name):
            return f" ({layer.place(name)})"
    return ""

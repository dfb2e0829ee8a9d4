"""pydantic's findings in our words: which setting, what was expected, what was found, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from llmgine.bootstrap.layers import Layer, shown
from llmgine.errors import ConfigurationError

__all__ = ["lines", "place"]

_EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "dataclass_type": "a table of settings",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "path_type": "a path",
    "string_type": "text",
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

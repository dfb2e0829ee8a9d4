"""What a docstring says: of a function, and of each of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from docstring_parser import ParseError, parse

__all__ = ["Described", "described"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """The parts of a docstring that are of use to a model."""

    text: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def described(docstring: str | None) -> Described:
    """Read a docstring in the style of Google, NumPy or Sphinx; any other is all text."""
    text = inspect.cleandoc(docstring or "")
    try:
        # The empty line in front lets the parser find a section that stands first.
        found = parse(f"\n{text}")
    except (ParseError, IndexError, ValueError):  # the parser trips over a stray `:raises:`, say
        return Described(text=text)
    parameters = {
        each.arg_name: " ".join(each.description.split())
        for each in found.params
        if each.description
    }
    return Described(text=(found.description or "").strip(), parameters=parameters)

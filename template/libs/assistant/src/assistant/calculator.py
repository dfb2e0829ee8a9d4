"""Arithmetic for models, which are poor at it: parsed and worked out here, never run as code."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from llmgine.errors import ToolError

__all__ = ["calculate"]

_LONGEST = 300
_MOST_BITS = 4096
_MOST_DIGITS = 400

_NO_EXPRESSION = 'This is no arithmetic expression. One is "12 * (3 + 4)".'
# Python's parser takes `1or 2`, and warns on standard error.
_GLUED = re.compile(r"\d\.?\w*?(?:and|else|for|if|in|is|not|or)")
_CHARACTERS = re.compile(r"[\w\s.,()+*/%-]+")
# What people write, in the parser's words: its own `^` would bind less than a sum.
_SPELLINGS = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-"})  # noqa: RUF001

Number: TypeAlias = int | float


def calculate(expression: str) -> str:
    """Work out an arithmetic expression instead of estimating it.

    Args:
        expression: numbers, parentheses, + - * / // % ^, the constants pi and e, and the
            functions abs, round, min, max, floor, ceil, sqrt, exp, log, log10, sin, cos, tan;
            for example "12 * (3 + 4) ^ 2".
    """
    try:
        value = _value(_parsed(expression))
    except (OverflowError, RecursionError):
        raise ToolError("The expression has a value that is too large.") from None
    except (ZeroDivisionError, TypeError, ValueError) as error:
        raise ToolError(f"The expression can't be worked out: {error}.") from None
    # Fifteen digits are what a float holds for sure: 0.1 + 0.2 is 0.3.
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _parsed(expression: str) -> ast.expr:
    text = expression.strip().translate(_SPELLINGS)
    if len(text) > _LONGEST:
        raise ToolError(f"The expression is too long: at most {_LONGEST} characters.")
    if not _CHARACTERS.fullmatch(text) or _GLUED.search(text):
        raise ToolError(_NO_EXPRESSION)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, MemoryError):
        raise ToolError(_NO_EXPRESSION) from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATIONS:
            return _bounded(_OPERATIONS[type(kind)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*map(_value, arguments)))
        case _:
            raise ToolError(f"{ast.unparse(node)!r} is not understood: only arithmetic is.")


def _bounded(value: object) -> Number:
    match value:
        case int():
            fits = value.bit_length() <= _MOST_BITS
        case float():
            fits = math.isfinite(value)
        case _:
            raise ValueError("a root of a negative number")  # is complex
    if not fits:
        raise OverflowError
    return value


def _power(base: Number, exponent: Number) -> object:
    # Refused before it takes the machine's time and memory.
    if isinstance(base, int) and base.bit_length() * exponent > _MOST_BITS:
        raise OverflowError
    return base**exponent


def _round(value: Number, digits: int = 0) -> Number:
    if abs(digits) > _MOST_DIGITS:
        raise OverflowError
    return round(value, digits)


_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
_OPERATIONS: Mapping[type[ast.operator], Callable[[Number, Number], object]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
    ast.Pow: _power,
}
_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "abs": abs,
    "round": _round,
    "min": min,
    "max": max,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
}

"""JSON bodies, read strictly: what is wrong with one is said, and costs little to find out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request
from llmgine.contracts.chat import JsonValue
from pydantic import BaseModel, ValidationError

from api.problems import Problem

__all__ = ["body_of", "parsed", "read"]

ModelT = TypeVar("ModelT", bound=BaseModel)

_DEEPEST = 64
_MOST_MEMBERS = 10_000
_MOST_CONTAINERS = 50_000
# The closing quote may be missing, so that no quote is looked at twice.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(_OPENING + _CLOSING))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST = 200
_REFUSED = "Refused"  # how the descriptions of such fields begin
_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "it is required",
    "model_attributes_type": "expected an object",
    "model_type": "expected an object",
    "none_required": "it isn't supported",
    "too_long": "expected none",
    "too_short": "expected at least one",
    "union_tag_not_found": "expected a `type`, or a `role` in a message",
}


async def body_of(request: Request, kind: type[ModelT]) -> ModelT:
    """Return a request's body as what it should be.

    Raises:
        Problem: it isn't; what is wrong is named.
    """
    return read(kind, parsed(await request.body()))


def parsed(body: bytes) -> JsonValue:
    """Return what a JSON text says.

    Raises:
        Problem: it isn't JSON, is nested too deeply or into too many pieces, names a field twice,
            or holds a number or a character that there is not.
    """
    if body.count(b"[") + body.count(b"{") > _DEEPEST:
        _check_nesting(body)
    try:
        value: JsonValue = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _problem(f"expected UTF-8, found byte {body[error.start]:#04x}") from None
    except UnicodeEncodeError:
        raise _problem("a text holds half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _problem(f"{where}: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits, or one of the hooks below
        raise _problem(str(error).partition("; use sys.")[0]) from None
    return value


def read(kind: type[ModelT], body: JsonValue) -> ModelT:
    """Return JSON as what it should be.

    Raises:
        Problem: it isn't; the first wrong field is named.
    """
    if not isinstance(body, dict):
        raise Problem(message="The body should be a JSON object.")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = _path(body, first["loc"], missing=first["type"] == "missing")[:_LONGEST]
        field = kind.model_fields.get(param)
        told = (field and field.description) or ""
        more = f" {told}" if told.startswith(_REFUSED) else ""
        text = _WORDS.get(first["type"], first["msg"][:_LONGEST])
        raise Problem(message=f"{param}: {text}.{more}", param=param) from None


def _path(body: JsonValue, loc: Sequence[str | int], *, missing: bool) -> str:
    """Return where a field stands; a location also names the kinds of what it passes through."""
    path, value = "", body
    for at, step in enumerate(loc):
        if isinstance(value, list) and isinstance(step, int):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, dict) and isinstance(step, str) and step in value:
            path, value = f"{path}.{step}", value[step]
        elif missing and at == len(loc) - 1:
            path = f"{path}.{step}"
    return path.removeprefix(".")


def _check_nesting(body: bytes) -> None:
    brackets = _STRINGS.sub(b"", body).translate(None, _ALL_BUT_BRACKETS)
    if len(brackets) > 2 * _MOST_CONTAINERS:
        raise _problem(f"expected at most {_MOST_CONTAINERS:,} objects and lists")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in _OPENING else -1
        if depth > _DEEPEST:
            raise _problem(f"expected at most {_DEEPEST} levels of nesting")


def _object(members: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(members)
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"expected at most {_MOST_MEMBERS:,} members in an object")
    if len(made) < len(members):
        seen: set[str] = set()
        twice = next(name for name, _ in members if name in seen or seen.add(name))
        raise ValueError(f"{twice[:100]!r} stands twice in an object")
    return made


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:100]} is out of range")
    return number


def _problem(what: str) -> Problem:
    return Problem(message=f"The body isn't JSON that can be read: {what}.", code="invalid_json")

"""One JSON form for all contracts: for files, stores and other processes.

A class is written under its name, `{"type": "TextPart", "text": "Hello", ...}`, and every value
read is checked against the types that its class declares. All contracts of the spine are known;
your own commands, events, dataclasses and enumerations are registered once:

    @register
    @dataclass(frozen=True, kw_only=True)
    class Greet(Command[str]):
        name: str

    greet = decode(encode(Greet(name="Ada")), Greet)

What JSON lacks has a form of its own: bytes are base64, dates ISO 8601, numbers that aren't
finite `{"type": "$float", "value": "nan"}`; the text is always strict JSON in UTF-8. A live
exception is written as an `ErrorInfo`, and read as that. A message part that a newer version wrote
is read as an `OpaquePart`, and written again as it came.

Data from anywhere may be given to `decode`: whatever is wrong with it ends in a `CodecError`, and
no name in it is imported or looked up outside the register.
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from types import ModuleType
from typing import NoReturn, TypeVar, overload

from llmgine.contracts import chat, events, llm, messages
from llmgine.contracts.chat import JsonValue
from llmgine.contracts.codec._hints import Shapes
from llmgine.contracts.codec._records import NEWER
from llmgine.contracts.codec._registry import Registry
from llmgine.contracts.codec._shape import MAX_DEPTH, Misfit, is_deep
from llmgine.errors import CodecError

__all__ = ["MAX_BYTES", "NEWER", "decode", "encode", "register", "registered_types"]

MAX_BYTES = 64 * 1024 * 1024
"""The longest text that is written or read."""

ClassT = TypeVar("ClassT", bound=type)
ValueT = TypeVar("ValueT")

_registry = Registry()
_shapes = Shapes(_registry)


@overload
def register(kind: ClassT, /, *, name: str | None = None) -> ClassT: ...
@overload
def register(*kinds: type) -> None: ...
def register(*kinds: type, name: str | None = None) -> type | None:
    """Make classes known to the codec: dataclasses, messages among them, and enumerations.

    It serves as a decorator, above that of the dataclass. Data is bound to the name: give the
    old one as `name` when a class is renamed.

    Raises:
        CodecError: the name is taken by another class or can't be one, or a class is neither a
            dataclass nor an enumeration.
        UndecoratedMessageError: a class lacks its own dataclass decorator.
    """
    if name is not None and len(kinds) != 1:
        raise CodecError("`name` goes with a single class")
    for kind in kinds:
        _registry.add(kind, name)
    return kinds[0] if len(kinds) == 1 else None


def registered_types() -> tuple[type, ...]:
    """Return every class that the codec knows."""
    return tuple(_registry.types())


def encode(value: object) -> bytes:
    """Return a value as JSON in UTF-8.

    Raises:
        CodecError: it, or something in it, isn't of a known class or of the declared type, is
            nested too deeply (100 levels), or its text is too long (64 MiB).
    """
    try:
        written = _shallow(_shapes.any.write(value))
        try:
            text = json.dumps(written, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            data = text.encode()
        except UnicodeEncodeError:
            # A lone surrogate, which UTF-8 lacks but an escape sequence can name.
            data = json.dumps(written, allow_nan=False, separators=(",", ":")).encode()
    except Misfit as error:
        raise CodecError(f"can't encode {type(value).__qualname__}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CodecError(f"can't encode {type(value).__qualname__}: {error}") from error
    if len(data) > MAX_BYTES:
        raise CodecError(f"{type(value).__qualname__} takes {len(data)} bytes, over {MAX_BYTES}")
    return data


@overload
def decode(data: bytes) -> object: ...
@overload
def decode(data: bytes, expected: type[ValueT]) -> ValueT: ...
def decode(data: bytes, expected: type | None = None) -> object:
    """Return the value of a JSON text.

    Args:
        data: what `encode` returned, or anything else.
        expected: the class that the value must be of.

    Raises:
        CodecError: it isn't JSON in UTF-8, isn't what `encode` writes, names an unknown class, or
            isn't of the expected one.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"expected at most {MAX_BYTES} bytes, found {len(data)}")
    try:
        parsed: JsonValue = json.loads(data.decode(), parse_constant=_no_constant)
        value = _shapes.any.read(_shallow(parsed))
    except Misfit as error:
        raise CodecError(f"can't decode: {error}") from error
    except UnicodeDecodeError as error:
        raise CodecError("can't decode: expected UTF-8") from error
    except RecursionError as error:
        raise CodecError("can't decode: nested too deeply") from error
    except ValueError as error:
        raise CodecError(f"can't decode: expected JSON; {error}") from error
    if expected is not None and not isinstance(value, expected):
        raise CodecError(
            f"can't decode: expected {expected.__qualname__}, found {type(value).__qualname__}"
        )
    return value


def _no_constant(name: str) -> NoReturn:
    raise Misfit(f"expected JSON, which has no {name}")


def _shallow(data: JsonValue) -> JsonValue:
    if is_deep(data):
        raise Misfit(f"nested deeper than {MAX_DEPTH} levels")
    return data


def _contracts(module: ModuleType) -> list[type]:
    named: list[str] = module.__all__
    found = [vars(module)[name] for name in named]
    return [kind for kind in found if isinstance(kind, type) and is_dataclass(kind)]


for _module in (chat, llm, messages, events):
    register(*_contracts(_module))

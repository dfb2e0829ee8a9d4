"""One JSON form for all contracts: for files, stores and other processes.

A class is written under its name, `{"type": "TextPart", "text": "Hello", ...}`, and every value
read is checked against the types that its class declares. All contracts of the spine are known;
your own commands, events, dataclasses and enumerations are registered once, and so are those that
their fields hold:

    @register
    @dataclass(frozen=True, kw_only=True)
    class Greet(Command[str]):
        name: str

    greet = decode(encode(Greet(name="Ada")), Greet)

What JSON lacks has a form of its own, such as `{"type": "$bytes", "value": "aGk="}` (base64) or
`{"type": "$float", "value": "nan"}`. Where a field declares one such class alone the value stands
bare: a tuple as an array, bytes and dates as texts. The text is always strict JSON in UTF-8. A live
exception is written as an `ErrorInfo`, and read as that. A message part that a newer version wrote
is read as an `OpaquePart`, and written again as it came.

Data from anywhere may be given to `decode`: whatever is wrong with it ends in a `CodecError`, and
no name in it is imported or looked up outside the register.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum, Flag
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import NoReturn, TypeVar, overload

from pydantic_core import from_json, to_json

from llmgine.contracts import chat, events, llm, messages
from llmgine.contracts.chat import JsonValue, OpaquePart
from llmgine.contracts.codec._declared import (
    ARRAYS,
    TAG,
    TEXT_FORMS,
    TEXTS,
    DeclaredField,
    Form,
    Misfit,
    check_depth,
    declared,
    is_mapping,
    is_tag,
)
from llmgine.contracts.messages import ErrorInfo
from llmgine.errors import CodecError, UndecoratedMessageError

__all__ = ["MAX_BYTES", "NEWER", "decode", "encode", "register", "registered_types"]

MAX_BYTES = 64 * 1024 * 1024
"""The longest text that is written or read."""
NEWER = "llmgine.newer"
"""The `provider` of an `OpaquePart` that stands for a part which this version doesn't know."""

ClassT = TypeVar("ClassT", bound=type)
ValueT = TypeVar("ValueT")

_ERROR = "ErrorInfo"
_NAME = re.compile(r"[A-Z][A-Za-z0-9_.]*")

_types: dict[str, type[object]] = {}
_names: dict[type[object], str] = {}
_lock = Lock()


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
        _add(kind, kind.__name__ if name is None else name)
    return kinds[0] if len(kinds) == 1 else None


def _add(kind: type[object], name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CodecError(
            f"{name!r} can't be registered: a name starts with a capital letter, "
            "followed by letters, digits, `_` or `.`"
        )
    if not issubclass(kind, Enum):
        if not is_dataclass(kind):
            raise CodecError(f"{kind.__qualname__} is neither a dataclass nor an Enum")
        if "__dataclass_fields__" not in vars(kind):
            raise UndecoratedMessageError(kind)
    with _lock:
        holder = _types.get(name, kind)
        # A class that was made anew, by a module that is loaded again, may follow itself.
        same = (holder.__module__, holder.__qualname__) == (kind.__module__, kind.__qualname__)
        if name == _ERROR or not same:
            raise CodecError(
                f"the name {name!r} is taken; register {kind.__qualname__} under another: "
                f"register({kind.__qualname__}, name=...)"
            )
        if _names.get(kind, name) != name:
            raise CodecError(f"{kind.__qualname__} is registered as {_names[kind]!r}")
        _types[name] = kind
        _names[kind] = name


def registered_types() -> tuple[type, ...]:
    """Return every class that the codec knows."""
    return tuple(_names)


def encode(value: object) -> bytes:
    """Return a value as JSON in UTF-8.

    Raises:
        CodecError: it, or something in it, isn't of a known class or of the declared type, is
            nested too deeply (100 levels), or its text is too long (64 MiB).
    """
    try:
        data = _dumped(_write(value))
    except (Misfit, TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"can't encode {type(value).__qualname__}: {error}") from error
    if len(data) > MAX_BYTES:
        raise CodecError(f"{type(value).__qualname__} takes {len(data)} bytes, over {MAX_BYTES}")
    return data


def _dumped(written: JsonValue) -> bytes:
    try:
        data = to_json(written)
    except ValueError:  # a lone surrogate, which UTF-8 lacks but an escape sequence can name
        text = json.dumps(written, allow_nan=False, separators=(",", ":"))
        if json.loads(text) != written:
            raise Misfit("a text holds two surrogates in a row, which JSON would join") from None
        data = text.encode()
    check_depth(written, data.count(b"[") + data.count(b"{"))
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
        parsed = _parsed(data)
        check_depth(parsed, data.count(b"[") + data.count(b"{"))
        value = _read(parsed)
    except Misfit as error:
        raise CodecError(f"can't decode: {error}") from error
    except RecursionError as error:
        raise CodecError("can't decode: nested too deeply") from error
    except ValueError as error:
        text = "UTF-8" if isinstance(error, UnicodeDecodeError) else f"JSON; {error}"
        raise CodecError(f"can't decode: expected {text}") from error
    if expected is not None and not isinstance(value, expected):
        found = type(value).__qualname__
        raise CodecError(f"can't decode: expected {expected.__qualname__}, found {found}")
    return value


def _parsed(data: bytes) -> JsonValue:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError:  # it takes no lone surrogates, and has other words for what is wrong
        return _PARSER.decode(data.decode())


def _no_constant(name: str) -> NoReturn:
    raise Misfit(f"expected JSON, which has no {name}")


_PARSER = json.JSONDecoder(parse_constant=_no_constant)


def _write_all(values: Iterable[object]) -> JsonValue:
    return [_write(item) for item in values]


def _write_pairs(values: Mapping[object, object]) -> JsonValue:
    return [[_write(key), _write(item)] for key, item in values.items()]


_FORMS: Mapping[str, Form] = {
    **TEXT_FORMS,
    "$frozenset": Form(list, _write_all, frozenset),
    "$map": Form(list, _write_pairs, dict),
    "$set": Form(list, _write_all, set),
    "$tuple": Form(list, _write_all, tuple),
}
_MARKS: Mapping[object, str] = {**TEXTS, **ARRAYS, type(Path()): "$path"}


def _marked(mark: str, value: JsonValue) -> JsonValue:
    return {TAG: mark, "value": value}


def _write(value: object) -> JsonValue:
    if value is None or type(value) is str:
        return value
    mark = _MARKS.get(type(value))
    if mark is not None:
        return _marked(mark, _FORMS[mark].write(value))
    if is_mapping(value):
        return _write_mapping(value)
    if is_dataclass(value):
        return _write_fields(value)
    return _FORMS["$tuple"].write(value) if isinstance(value, list) else _write_plain(value)


_ERROR_KEYS = ("type_", "message", "traceback")


def _write_plain(value: object) -> JsonValue:
    if isinstance(value, Enum):
        number: JsonValue = value.value if isinstance(value, Flag) else value.name
        return _marked(_name_of(value), number)
    if isinstance(value, BaseException):
        texts = ErrorInfo.of(value).args
        return dict(zip((TAG, *_ERROR_KEYS), (_ERROR, *texts), strict=True))
    if isinstance(value, float) and not math.isfinite(value):
        return _marked("$float", repr(float(value)))
    if isinstance(value, int):
        str(value)  # refuses one of more digits than could be read again
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Misfit(f"expected a value of a known type, found {type(value).__qualname__}")


def _write_mapping(value: Mapping[object, object]) -> JsonValue:
    written: dict[str, JsonValue] = {}
    for key, item in value.items():
        if type(key) is not str:
            return _marked("$map", _write_pairs(value))
        written[key] = _write(item)
    return _marked("$dict", written) if is_tag(written.get(TAG)) else written


def _name_of(value: object) -> str:
    kind = type(value)
    if kind not in _names:
        raise Misfit(f"{kind.__qualname__} is not registered: register({kind.__qualname__})")
    return _names[kind]


def _is_unknown(data: Mapping[str, JsonValue]) -> bool:
    tag = data.get(TAG)
    return is_tag(tag) and tag[0] != "$" and tag not in _types and tag != _ERROR


def _write_fields(value: object) -> JsonValue:
    if isinstance(value, OpaquePart) and value.provider == NEWER and _is_unknown(value.data):
        json.dumps(data := dict(value.data), allow_nan=False)  # which refuses what is no JSON
        return data
    known = declared(type(value))
    values = known.values(value)
    written: dict[str, JsonValue] = {TAG: _name_of(value)}
    for key, field in known.by_key.items():
        item = values[field.name]
        written[key] = item if item is None or type(item) is str else _write_field(field, item)
    return written


def _write_field(field: DeclaredField, value: object) -> JsonValue:
    try:
        if field.bare is not None and _MARKS.get(type(value)) == field.bare:
            return _FORMS[field.bare].write(value)
        return _write(value)
    except Misfit as error:
        raise error.at(field.name) from None


def _read(data: JsonValue, *, newer: bool = False) -> object:
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, list):
        return [_read(item, newer=newer) for item in data]
    if isinstance(data, dict):
        tag = data.get(TAG)
        if is_tag(tag):
            return _read_tagged(tag, data, newer=newer)
        return {key: _read(item, newer=newer) for key, item in data.items()}
    if isinstance(data, float) and not math.isfinite(data):
        raise Misfit("expected a number, found one that no float holds")
    return data


def _read_tagged(tag: str, data: dict[str, JsonValue], *, newer: bool) -> object:
    kind = _types.get(tag)
    if tag == _ERROR:
        return _read_error(data)
    if tag[0] != "$" and kind is None:
        if newer:
            return OpaquePart(provider=NEWER, data=data)
        raise Misfit(f"expected a known type, found the unknown type {tag[:80]!r}")
    if kind is not None and not issubclass(kind, Enum):
        return _read_fields(kind, data)
    if data.keys() != {TAG, "value"}:
        raise Misfit(f"expected {TAG!r} and 'value' in a {tag[:80]}")
    return _read_marked(tag, data["value"], newer=newer)


def _read_marked(tag: str, inner: JsonValue, *, newer: bool) -> object:
    kind = _types.get(tag)
    if kind is not None:
        return _read_member(kind, inner)
    if tag == "$dict" and isinstance(inner, dict):
        return {key: _read(item, newer=newer) for key, item in inner.items()}
    form = _FORMS.get(tag)
    if form is None or type(inner) is not form.natural:
        raise Misfit(f"expected a known form, found {tag[:80]!r} of {type(inner).__qualname__}")
    try:
        return form.read(_read(inner, newer=newer))
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise Misfit(f"expected {tag[1:]}: {error}") from None


def _read_member(kind: type[object], inner: JsonValue) -> object:
    try:
        if issubclass(kind, Flag):
            if type(inner) is int:
                return kind(inner)
        elif issubclass(kind, Enum) and isinstance(inner, str):
            return kind[inner]
    except (ValueError, KeyError):
        pass
    raise Misfit(f"expected a member of {kind.__qualname__}")


def _read_error(data: dict[str, JsonValue]) -> object:
    texts = [item for key in _ERROR_KEYS if isinstance(item := data.get(key), str)]
    if data.keys() != {TAG, *_ERROR_KEYS} or len(texts) != len(_ERROR_KEYS):
        raise Misfit(f"expected {_ERROR} with the texts 'type_', 'message' and 'traceback'")
    return ErrorInfo(*texts)


def _read_fields(kind: type[object], data: dict[str, JsonValue]) -> object:
    known = declared(kind)
    values: dict[str, object] = {}
    for key, item in data.items():
        if key == TAG:
            continue
        field = known.by_key.get(key)
        if field is None:
            raise Misfit(f"expected {kind.__qualname__}, which has no field {key[:80]!r}")
        plain = item is None or (field.bare is None and type(item) is str)
        values[field.name] = item if plain else _read_field(field, item)
    known.check(values)
    try:
        return kind(**values)
    except Exception as error:
        raise Misfit(f"{kind.__qualname__} refuses these fields: {error}") from error


def _read_field(field: DeclaredField, item: JsonValue) -> object:
    try:
        if field.bare is not None and type(item) is _FORMS[field.bare].natural:
            return _read_marked(field.bare, item, newer=field.newer)
        return _read(item, newer=field.newer)
    except Misfit as error:
        raise error.at(field.name) from None


def _contracts(module: ModuleType) -> list[type]:
    named: list[str] = module.__all__
    found = [vars(module)[name] for name in named]
    return [kind for kind in found if isinstance(kind, type) and is_dataclass(kind)]


for _module in (chat, llm, messages, events):
    register(*_contracts(_module))

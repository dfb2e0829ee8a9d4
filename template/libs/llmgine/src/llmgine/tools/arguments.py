"""What a tool takes: described to the model, and checked when the model sends it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any, NoReturn, TypeAlias, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema, to_jsonable_python

from llmgine.contracts import ToolCall
from llmgine.contracts.chat import JsonValue
from llmgine.errors import ToolError, ToolRegistrationError
from llmgine.settings import ToolSettings
from llmgine.tools.parameters import Parameter, ToolContext
from llmgine.tools.schema import JsonSchema, strict_form, tidied, without_defaults

__all__ = ["Arguments", "GivenArguments"]

_log = logging.getLogger(__name__)

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)
_Adapter: TypeAlias = TypeAdapter[dict[str, Any]]
_Collection: TypeAlias = list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any]

_FINDINGS = 20
_MISFIT = "invalid_arguments"
# An escape may hide a letter of them.
_LONGEST_CHARACTER = 4
_UNBOUNDED = re.compile(r'"\s*[+-]?(?:nan|inf(?:inity)?)\s*"|\\u', re.IGNORECASE)


class _Quiet(GenerateJsonSchema):
    """Says nothing of defaults that are no JSON: they are left out."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's


class Arguments:
    """The parameters of one tool, as the model sees them and as Python gets them.

    Args:
        name: the tool's name, for errors.
        parameters: what the function takes.
        words: what its docstring says of them, by name.

    Attributes:
        schema: the JSON Schema of the arguments.

    Raises:
        ToolRegistrationError: a parameter can't be described.
    """

    def __init__(
        self, name: str, parameters: Iterable[Parameter], words: Mapping[str, str]
    ) -> None:
        given = list(parameters)
        filled = [each for each in given if not each.injected]
        for each in given:
            _refuse_field(name, each)
        self._adapter, schema = _described(name, filled)
        self._positional = [each for each in given if each.positional]
        self._injected = [each.name for each in given if each.injected]
        self.schema = tidied(schema)
        properties: dict[str, JsonSchema] = self.schema["properties"]
        for each in filled:
            _complete(properties[each.name], each, words.get(each.name))
        try:
            self.schema = json.loads(json.dumps(self.schema, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ToolRegistrationError(
                f"tool {name!r}: expected a schema in JSON, found what has none ({error}); use "
                "plain values in `Field(...)`"
            ) from error

    def closed(self) -> JsonSchema | None:
        """Return the schema's strict form, if it has one."""
        return strict_form(self.schema)

    def bind(
        self, call: ToolCall, session_id: str | None, settings: ToolSettings
    ) -> tuple[Sequence[object], dict[str, Any]]:
        """Return the function's arguments, by position and by name.

        What the model didn't send is left to the function's own defaults.

        Raises:
            ToolError: the text is no JSON object, or doesn't fit.
        """
        named = self._validated(call.arguments, settings)
        if self._injected:
            context = ToolContext(session_id=session_id, call=call)
            named.update(dict.fromkeys(self._injected, context))
        if not self._positional:
            return (), named
        return [named.pop(each.name, each.default) for each in self._positional], named

    def _validated(self, text: str, settings: ToolSettings) -> dict[str, Any]:
        if _is_plain(text, settings):
            return self._read(text)
        text = _checked(text, settings)
        if "null" in text:
            sent = json.loads(text)
            text = json.dumps(without_defaults(sent, self.schema, self.schema.get("$defs", {})))
        values = self._read(text)
        # Models of the user's own take such texts as numbers, whatever ours say of them.
        if _UNBOUNDED.search(text) and _has_unbounded(self._adapter.dump_python(values)):
            raise ToolError("The arguments don't fit: a number is not finite.", code=_MISFIT)
        return values

    def _read(self, text: str) -> dict[str, Any]:
        try:
            return self._adapter.validator.validate_json(text)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            lines = [f"{_place(each['loc'])}: {each['msg']}" for each in details[:_FINDINGS]]
            if len(details) > _FINDINGS:
                lines.append(f"and {len(details) - _FINDINGS} more")
            text = "The arguments don't fit:\n" + "\n".join(lines)
            raise ToolError(text, code=_MISFIT) from None


class GivenArguments:
    """Parameters whose schema is somebody else's, who checks what is sent.

    The function takes one dict. Only what any call has to be is checked here: one JSON object
    within the limits.

    Args:
        name: the tool's name, for errors.
        schema: the JSON Schema of the arguments, shown to models as it is.

    Attributes:
        schema: a copy of it.

    Raises:
        ToolRegistrationError: it is no JSON Schema of an object.
    """

    def __init__(self, name: str, schema: Mapping[str, object]) -> None:
        try:
            self.schema: JsonSchema = json.loads(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolRegistrationError(
                f"tool {name!r}: expected a schema in JSON, found what has none ({error})"
            ) from error
        if self.schema.get("type") != "object":
            raise ToolRegistrationError(
                f'tool {name!r}: expected the schema of an object, with `"type": "object"`, found '
                f"type {self.schema.get('type')!r}"
            )

    def closed(self) -> None:
        """Return no strict form: a schema that isn't ours is not rewritten."""

    def bind(
        self, call: ToolCall, session_id: str | None, settings: ToolSettings
    ) -> tuple[Sequence[object], dict[str, Any]]:
        """Return the one argument, by position.

        Raises:
            ToolError: the text is no JSON object, or past a limit.
        """
        del session_id
        return [json.loads(_checked(call.arguments, settings))], {}


def _has_unbounded(value: dict[Any, Any] | _Collection | float) -> bool:
    if isinstance(value, float):
        return not isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_unbounded, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_has_unbounded, value))


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "arguments"


# -- Describing


def _refuse_field(name: str, parameter: Parameter) -> None:
    if isinstance(parameter.default, FieldInfo):
        raise ToolRegistrationError(
            f"tool {name!r}, parameter {parameter.name!r}: expected a value as its default, found "
            "Field(...); write `Annotated[int, Field(...)] = 3`"
        )


class _Fields:
    """Describes parameters to pydantic as the fields of one object, which has no others."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._parameters = parameters

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Return the object's schema; a value that isn't sent is absent from what is read."""
        fields = {
            each.name: _field(each, handler.generate_schema(each.annotation))
            for each in self._parameters
        }
        finite = core_schema.CoreConfig(allow_inf_nan=False)
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid", config=finite)


def _field(parameter: Parameter, schema: core_schema.CoreSchema) -> core_schema.TypedDictField:
    # A default inside the annotation counts where the function has none of its own.
    inner = schema["schema"] if schema["type"] == "default" else schema
    return core_schema.typed_dict_field(
        inner if parameter.optional else schema,
        required=not parameter.optional and inner is schema,
    )


def _described(name: str, parameters: Sequence[Parameter]) -> tuple[_Adapter, JsonSchema]:
    """Return what reads the parameters and their schema, or name the one that is at fault."""
    try:
        return _adapted(parameters)
    except _UNDESCRIBABLE as error:
        whole = error
    for each in parameters:
        try:
            _adapted((each,))
        except _UNDESCRIBABLE as error:
            raise ToolRegistrationError(
                f"tool {name!r}, parameter {each.name!r}: {each.annotation!r} can't be described "
                f"in JSON ({_first_line(error)}); use types that pydantic can validate, bind it "
                "before (`functools.partial`), or take a `ToolContext`"
            ) from error
    raise ToolRegistrationError(f"tool {name!r}: {_first_line(whole)}") from whole


_UNDESCRIBABLE = (PydanticUserError, TypeError, ValueError, NameError, RecursionError)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _adapted(parameters: Sequence[Parameter]) -> tuple[_Adapter, JsonSchema]:
    adapter: _Adapter = TypeAdapter(Annotated[Any, _Fields(parameters)], config=_CONFIG)
    return adapter, adapter.json_schema(schema_generator=_Quiet)


def _complete(schema: JsonSchema, parameter: Parameter, text: str | None) -> None:
    """Add what is known of a parameter beside its type: its default and what it means."""
    if parameter.optional:
        schema.pop("default", None)
        try:
            value: object = to_jsonable_python(parameter.default)
            json.dumps(value, allow_nan=False)
            schema["default"] = value
        except ValueError:
            _log.debug("the default of %r has no JSON form, and isn't shown", parameter.name)
    if text := _note(parameter) or text:
        schema.setdefault("description", text)


def _note(parameter: Parameter) -> str | None:
    """Return the text of `Annotated[str, "text"]`."""
    if get_origin(parameter.annotation) is not Annotated:
        return None
    return next(
        (each for each in get_args(parameter.annotation)[1:] if isinstance(each, str)), None
    )


# -- Checking


def _is_plain(text: str, settings: ToolSettings) -> bool:
    """Tell whether arguments are what they mostly are: a flat object that needs no closer look.

    It has as many colons as keys, so that none is there twice, and nothing in it may stand for a
    default or for a number that isn't finite.
    """
    lower = (text or "").lower()
    if (
        lower.count("{") != 1
        or len(text) * _LONGEST_CHARACTER > settings.max_argument_bytes
        or lower.count("[") >= settings.max_depth
        or ("null" in lower or "nan" in lower or "inf" in lower or "\\u" in lower)
    ):
        return False
    try:
        found: tuple[JsonValue, int] = _PLAIN.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    value, end = found
    return end == len(text) and isinstance(value, dict) and len(value) == text.count(":")


def _checked(text: str, settings: ToolSettings) -> str:
    """Return the arguments' text once it is known to be one JSON object within the limits."""
    text = (text or "").strip() or "{}"  # some providers' answers have none at all
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > settings.max_argument_bytes:
        most = settings.max_argument_bytes
        _refuse("arguments_too_large", f"The arguments have {size} bytes; {most} are allowed.")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        _refuse_depth(settings)
    except ValueError as error:
        _refuse("invalid_json", f"The arguments are not valid JSON: {error}.")
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        _refuse("invalid_json", "The arguments are not a JSON object.")
    level: list[Any] = [value]
    for _ in range(settings.max_depth):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return text
    return _refuse_depth(settings)


def _inner(value: dict[str, Any] | list[Any]) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value
    return [each for each in children if isinstance(each, dict | list)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        _refuse("invalid_json", f"The arguments have {name!r} twice in one object.")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        _refuse("invalid_json", f"The arguments are not valid JSON: {text} is no number there.")
    return number


def _refuse_depth(settings: ToolSettings) -> NoReturn:
    most = settings.max_depth
    _refuse("arguments_too_deep", f"The arguments are nested more than {most} levels deep.")


def _refuse(code: str, text: str) -> NoReturn:
    raise ToolError(text, code=code)


# Made once: `json.loads` makes one for each call that isn't plain.
_PLAIN = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)

"""What a tool takes: described to the model, and checked when the model sends it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, repeat
from math import isfinite
from typing import Annotated, Any, NoReturn, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import to_jsonable_python

from llmgine.contracts.chat import JsonValue
from llmgine.errors import ToolError, ToolRegistrationError
from llmgine.settings import ToolSettings
from llmgine.tools.parameters import Parameter, ToolContext
from llmgine.tools.schema import (
    Definitions,
    JsonSchema,
    nullable,
    options,
    strict_form,
    target,
    tidied,
)

__all__ = ["Arguments", "GivenArguments"]

_log = logging.getLogger(__name__)

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)
_Collection: TypeAlias = list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any]

_FINDINGS = 20
_MISFIT = "invalid_arguments"
# An escape may hide a letter of them.
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
        self._parameters = {f"p{at}": each for at, each in enumerate(parameters)}
        for each in self._parameters.values():
            _refuse_field(name, each)
        self._model, schema = _described(name, self._parameters)
        self.schema = tidied(schema)
        properties: dict[str, JsonSchema] = self.schema["properties"]
        for each in self._parameters.values():
            if not each.injected:
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
        self, text: str, context: ToolContext, settings: ToolSettings
    ) -> tuple[list[object], dict[str, object]]:
        """Return the function's arguments, by position and by name.

        What the model didn't send is left to the function's own defaults.

        Raises:
            ToolError: the text is no JSON object, or doesn't fit.
        """
        model = self._validated(_checked(text, settings))
        sent, values = model.model_fields_set, vars(model)
        positional: list[object] = []
        named: dict[str, object] = {}
        for field, each in self._parameters.items():
            if each.injected:
                value = context
            elif field in sent or not each.optional:
                value = values[field]
            elif each.positional:
                value = each.default
            else:
                continue
            if each.positional:
                positional.append(value)
            else:
                named[each.name] = value
        return positional, named

    def _validated(self, text: str) -> BaseModel:
        if "null" in text:
            sent = json.loads(text)
            text = json.dumps(_without_defaults(sent, self.schema, self.schema.get("$defs", {})))
        try:
            model = self._model.model_validate_json(text)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            lines = [f"{_place(each['loc'])}: {each['msg']}" for each in details[:_FINDINGS]]
            if len(details) > _FINDINGS:
                lines.append(f"and {len(details) - _FINDINGS} more")
            text = "The arguments don't fit:\n" + "\n".join(lines)
            raise ToolError(text, code=_MISFIT) from None
        # Models of the user's own take such texts as numbers, whatever ours say of them.
        if _UNBOUNDED.search(text) and _has_unbounded(model.model_dump()):
            raise ToolError("The arguments don't fit: a number is not finite.", code=_MISFIT)
        return model


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
        self, text: str, context: ToolContext, settings: ToolSettings
    ) -> tuple[list[object], dict[str, object]]:
        """Return the one argument, by position.

        Raises:
            ToolError: the text is no JSON object, or past a limit.
        """
        del context
        return [json.loads(_checked(text, settings))], {}


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


def _described(name: str, fields: dict[str, Parameter]) -> tuple[type[BaseModel], JsonSchema]:
    """Return the parameters as a model and as a schema, or name the one that is at fault."""
    try:
        return _modelled(fields)
    except _UNDESCRIBABLE as error:
        whole = error
    for field, each in fields.items():
        try:
            _modelled({field: each})
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


def _modelled(fields: dict[str, Parameter]) -> tuple[type[BaseModel], JsonSchema]:
    # The names are aliases, so that a parameter may have any name; whether a value was sent is
    # known from `model_fields_set`, and Python's own default stays where it is.
    definitions: dict[str, Any] = {
        field: (
            each.annotation,
            Field(None if each.optional else ..., alias=each.name, validation_alias=each.name),
        )
        for field, each in fields.items()
        if not each.injected
    }
    model = create_model("Arguments", __config__=_CONFIG, **definitions)
    return model, model.model_json_schema(schema_generator=_Quiet)


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


def _without_defaults(value: JsonValue, schema: JsonSchema, definitions: Definitions) -> JsonValue:
    """Return arguments without each `null` that can only stand for a default.

    That is how the strict form lets a model leave something out.
    """
    schema = _fitting(value, schema, definitions)
    if isinstance(value, list):
        items = chain(schema.get("prefixItems", ()), repeat(schema.get("items", {})))
        pairs = zip(value, items, strict=False)  # the schema of further items is endless
        return [_without_defaults(each, item, definitions) for each, item in pairs]
    if not isinstance(value, dict):
        return value
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: _without_defaults(each, properties.get(name, {}), definitions)
        for name, each in value.items()
        if each is not None
        or name in required
        or name not in properties
        or nullable(properties[name], definitions)
    }


def _fitting(value: JsonValue, schema: JsonSchema, definitions: Definitions) -> JsonSchema:
    """Return which of a schema's options a list or an object is meant for."""
    schema = target(schema, definitions)
    several = options(schema)
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
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)

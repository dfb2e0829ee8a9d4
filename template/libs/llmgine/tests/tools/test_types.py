"""Every type of parameter: what the model is told, what the function gets, what is refused."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypeVar, Union
from uuid import UUID

import pytest
from llmgine.contracts import ToolCall
from llmgine.tools import ToolManager
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

UserId = NewType("UserId", int)
T = TypeVar("T")
Number = TypeVar("Number", int, float)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(BaseModel):
    """A place."""

    x: int
    title: str = "origin"


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date


@dataclass
class Span:
    start: int
    end: int = 10


class Options(TypedDict):
    verbose: bool
    depth: NotRequired[int]


ID = "12345678-1234-5678-1234-567812345678"
REF = "#/$defs/"
# Annotation, schema, what fits (as sent, as got), what doesn't.
TYPES: list[tuple[Any, dict[str, Any], list[tuple[Any, Any]], list[Any]]] = [
    (str, {"type": "string"}, [("a", "a"), ('{"a": 1}', '{"a": 1}'), ("5", "5")], [5, None, ["a"]]),
    (int, {"type": "integer"}, [(5, 5), (10**30, 10**30)], [3.7, "x", None, [], {}]),
    (float, {"type": "number"}, [(5, 5.0), (1.5, 1.5)], ["x", None, "Infinity", "nan"]),
    (bool, {"type": "boolean"}, [(True, True)], ["maybe", 2, None]),
    (None, {"type": "null"}, [(None, None)], [0, ""]),
    (Any, {}, [({"a": [1, None]}, {"a": [1, None]})], []),
    (
        Optional[int],  # noqa: UP045 - both forms are met
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        [(None, None), (1, 1)],
        ["x"],
    ),
    (
        Union[int, str],  # noqa: UP007
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        [("5", "5"), (5, 5)],
        [None, []],
    ),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, [(None, None)], [{}]),
    (Literal["a", 2], {"enum": ["a", 2]}, [("a", "a"), (2, 2)], ["b", "2"]),
    (Colour, {"$ref": f"{REF}Colour"}, [("red", Colour.RED)], ["RED", "green", None]),
    (Level, {"$ref": f"{REF}Level"}, [(2, Level.HIGH)], [3, "x"]),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [([1, 2], [1, 2])], [[1.5], "1"]),
    (
        dict[str, float],
        {"type": "object", "additionalProperties": {"type": "number"}},
        [({"a": 1}, {"a": 1.0})],
        [{"a": "x"}, [1]],
    ),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
        [([1, "a"], (1, "a"))],
        [[1], [1, "a", 2], ["a", 1]],
    ),
    (
        tuple[int, ...],
        {"type": "array", "items": {"type": "integer"}},
        [([1, 2], (1, 2)), ([], ())],
        [["a"]],
    ),
    (
        set[str],
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        [(["a", "a"], {"a"})],
        [[1]],
    ),
    (frozenset[int], {"type": "array"}, [([1], frozenset({1}))], [["a"]]),
    (
        Options,
        {"$ref": f"{REF}Options"},
        [({"verbose": True}, {"verbose": True})],
        [{}, {"depth": 1}, {"verbose": True, "deep": 1}],
    ),
    (
        Span,
        {"$ref": f"{REF}Span"},
        [({"start": 1}, Span(1, 10))],
        [{}, {"start": "x"}, {"start": 1, "stop": 2}],
    ),
    (Point, {"$ref": f"{REF}Point"}, [({"x": 1}, Point(x=1))], [{}, "x", [1]]),
    (
        Tree,
        {"$ref": f"{REF}Tree"},
        [({"value": 1, "children": [{"value": 2}]}, Tree(value=1, children=[Tree(value=2)]))],
        [{"value": 1, "children": [{}]}],
    ),
    (
        Annotated[Cat | Dog, Field(discriminator="kind")],
        {"oneOf": [{"$ref": f"{REF}Cat"}, {"$ref": f"{REF}Dog"}]},
        [({"kind": "dog", "tricks": []}, Dog(kind="dog", tricks=[]))],
        [{"kind": "dog"}, {"kind": "cow"}, {}],
    ),
    (
        Strict,
        {"$ref": f"{REF}Strict"},
        [({"day": "2026-01-02"}, Strict(day=date(2026, 1, 2)))],
        [{}],
    ),
    (
        Annotated[int, Field(ge=1, le=7, description="days")],
        {"type": "integer", "minimum": 1, "maximum": 7, "description": "days"},
        [(7, 7)],
        [0, 8],
    ),
    (Annotated[str, "in words"], {"type": "string", "description": "in words"}, [("a", "a")], [1]),
    (
        datetime,
        {"type": "string", "format": "date-time"},
        [("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))],
        ["yesterday"],
    ),
    (date, {"type": "string", "format": "date"}, [("2026-01-02", date(2026, 1, 2))], ["02.01."]),
    (time, {"type": "string", "format": "time"}, [("03:04:05", time(3, 4, 5))], ["x"]),
    (timedelta, {"type": "string", "format": "duration"}, [("PT1H", timedelta(hours=1))], ["x"]),
    (UUID, {"type": "string", "format": "uuid"}, [(ID, UUID(ID))], ["x"]),
    (Decimal, {}, [("1.10", Decimal("1.10"))], ["x", "NaN"]),
    (Path, {"type": "string", "format": "path"}, [("/tmp/x", Path("/tmp/x"))], [1]),  # noqa: S108
    (bytes, {"type": "string", "format": "binary"}, [("a", b"a")], [1]),
    (UserId, {"type": "integer"}, [(3, 3)], ["x"]),
    (T, {}, [("x", "x")], []),
    (Number, {"anyOf": [{"type": "integer"}, {"type": "number"}]}, [(1, 1), (1.5, 1.5)], ["x"]),
    ("list[Point]", {"type": "array", "items": {"$ref": f"{REF}Point"}}, [([], [])], [[1]]),
]
FITTING = [(kind, sent, got) for kind, _, pairs, _ in TYPES for sent, got in pairs]
UNFITTING = [(kind, sent) for kind, _, _, bad in TYPES for sent in bad]


def tool_of(kind: object) -> tuple[ToolManager, list[object]]:
    """Register a tool with one parameter `value`; also return what it will have got."""
    got: list[object] = []

    async def take(value: Any) -> None:
        got.append(value)

    take.__annotations__["value"] = kind
    manager = ToolManager()
    manager.register_tool(take)
    return manager, got


def called(arguments: object) -> ToolCall:
    return ToolCall(id="c", name="take", arguments=json.dumps(arguments))


def shown(kind: object) -> dict[str, Any]:
    manager, _ = tool_of(kind)
    return manager.get_tools()[0]["function"]["parameters"]


@pytest.mark.parametrize(("kind", "schema"), [(kind, schema) for kind, schema, _, _ in TYPES])
def test_a_type_is_described(kind: object, schema: dict[str, Any]) -> None:
    parameters = shown(kind)
    found = parameters["properties"]["value"]
    assert {key: found[key] for key in schema} == schema
    assert parameters["required"] == ["value"]
    assert parameters["additionalProperties"] is False
    assert "default" not in found
    for name in references(parameters):
        assert name in parameters["$defs"]


def references(schema: Any) -> list[str]:
    return re.findall(r'"\$ref": "#/\$defs/(.+?)"', json.dumps(schema))


@pytest.mark.parametrize(("kind", "sent", "got"), FITTING)
async def test_what_fits_arrives_as_its_own_type(kind: object, sent: object, got: object) -> None:
    manager, values = tool_of(kind)
    result = await manager.execute_tool_call(called({"value": sent}))
    assert not result.is_error, result.content
    assert values == [got]
    assert type(values[0]) is type(got)


@pytest.mark.parametrize(("kind", "sent"), UNFITTING)
async def test_what_does_not_fit_never_arrives(kind: object, sent: object) -> None:
    manager, values = tool_of(kind)
    result = await manager.execute_tool_call(called({"value": sent}))
    assert (result.is_error, result.error_code) == (True, "invalid_arguments")
    assert "value" in result.text
    assert values == []


def test_made_titles_are_gone_but_a_property_of_that_name_stays() -> None:
    parameters = shown(Point)
    assert parameters["$defs"]["Point"] == {
        "type": "object",
        "description": "A place.",
        "properties": {"x": {"type": "integer"}, "title": {"type": "string", "default": "origin"}},
        "required": ["x"],
    }
    assert "title" not in parameters


# -- Defaults

DEFAULTS: list[tuple[Any, Any, dict[str, Any]]] = [
    (int, 3, {"default": 3}),
    (Annotated[int, Field(default=1)], 3, {"default": 3}),
    (Colour, Colour.RED, {"default": "red"}),
    (date, date(2026, 1, 2), {"default": "2026-01-02"}),
    (Path, Path("a"), {"default": "a"}),
    (Span, Span(1), {"default": {"start": 1, "end": 10}}),
    (Point, Point(x=1), {"default": {"x": 1, "title": "origin"}}),
    (bytes, b"a", {"default": "a"}),
    (set[int], {1}, {"default": [1]}),
    (int | None, None, {"default": None}),
    (int, object(), {}),
    (int, lambda: 3, {}),
    (float, float("nan"), {}),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "default", "shown"), DEFAULTS)
async def test_a_default_is_shown_where_json_has_it_and_is_pythons_own(
    kind: object, default: object, shown: dict[str, Any]
) -> None:
    got: list[object] = []

    async def take(value: Any = default) -> None:
        got.append(value)

    take.__annotations__["value"] = kind
    manager = ToolManager()
    manager.register_tool(take)
    parameters: dict[str, Any] = manager.get_tools()[0]["function"]["parameters"]
    found: dict[str, Any] = parameters["properties"]["value"]
    assert {key: value for key, value in found.items() if key == "default"} == shown
    assert "required" not in parameters
    for arguments in ({}, {"value": None}):
        await manager.execute_tool_call(called(arguments))
    assert all(value is default for value in got)
    assert len(got) == 2


async def test_a_default_inside_the_annotation_counts_as_one() -> None:
    manager, got = tool_of(Annotated[int, Field(default=5)])
    assert (await manager.execute_tool_call(called({}))).content == "null"
    assert got == [5]


# -- The strict form


def strict_of(kind: object, default: object = inspect.Parameter.empty) -> dict[str, Any]:
    async def take(value: Any = default) -> None:
        pass

    take.__annotations__["value"] = kind
    if default is inspect.Parameter.empty:
        take.__defaults__ = None
    manager = ToolManager()
    manager.register_tool(take)
    return dict(manager.get_tools(strict=True)[0]["function"])


OPEN = (Any, T, dict[str, float])


@pytest.mark.parametrize("kind", [kind for kind, _, _, _ in TYPES if kind not in OPEN])
@pytest.mark.parametrize("default", [inspect.Parameter.empty, None])
def test_the_strict_form_is_closed_and_requires_everything(kind: object, default: object) -> None:
    function = strict_of(kind, default)
    assert function["strict"] is True
    check_closed(function["parameters"])


def check_closed(schema: dict[str, Any]) -> None:
    assert not schema.keys() & {"default", "oneOf", "prefixItems", "uniqueItems", "discriminator"}
    assert schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}
    assert "$ref" not in schema or len(schema) == 1
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    if schema.get("type") == "array":
        check_closed(schema["items"])
    for each in [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", ()),
    ]:
        check_closed(each)


@pytest.mark.parametrize("kind", OPEN)
def test_what_has_no_strict_form_says_so(kind: object) -> None:
    function = strict_of(kind)
    assert function["strict"] is False
    assert function["parameters"] == shown(kind)


def test_strict_defaults_are_nullable() -> None:
    null = {"type": "null"}
    assert strict_of(int, 3)["parameters"]["properties"]["value"] == {
        "anyOf": [{"type": "integer"}, null]
    }
    assert strict_of(Point | None, None)["parameters"]["properties"]["value"] == {
        "anyOf": [{"$ref": f"{REF}Point"}, null]
    }


@pytest.mark.parametrize(
    ("kind", "sent", "got"),
    [
        (Point, {"x": 1, "title": None}, Point(x=1)),
        (Point | None, {"x": 1, "title": None}, Point(x=1)),
        (list[Point], [{"x": 1, "title": None}], [Point(x=1)]),
        (Tree, {"value": 1, "children": None}, Tree(value=1)),
        (Cat | Dog, {"kind": "cat", "lives": None}, Cat(kind="cat")),
        (list[Point | int] | None, [3, {"x": 1, "title": None}], [3, Point(x=1)]),
    ],
)
async def test_a_null_stands_for_a_default_inside_too(
    kind: object, sent: object, got: object
) -> None:
    manager, values = tool_of(kind)
    result = await manager.execute_tool_call(called({"value": sent}))
    assert not result.is_error, result.content
    assert values == [got]


async def test_a_null_that_is_meant_stays() -> None:
    got: list[object] = []

    async def take(value: int | None = 3, name: str = "null") -> None:
        got.append((value, name))

    manager = ToolManager()
    manager.register_tool(take)
    await manager.execute_tool_call(called({"value": None, "name": None}))
    await manager.execute_tool_call(called({"value": 1, "name": "null"}))
    assert got == [(None, "null"), (1, "null")]


# -- Copies


def test_definitions_are_the_takers_own() -> None:
    manager, _ = tool_of(Point)
    before = json.dumps(manager.get_tools())
    looks: list[Callable[[Any], Any]] = [
        lambda tool: tool["function"],
        lambda tool: tool.get("function"),
        lambda tool: tool.pop("function"),
        lambda tool: tool.setdefault("function"),
        lambda tool: dict(tool)["function"],
        lambda tool: {**tool}["function"],
        lambda tool: (tool | {})["function"],
        lambda tool: ({} | tool)["function"],
        lambda tool: tool.copy()["function"],
        lambda tool: dict(tool.items())["function"],
        lambda tool: list(tool.values())[-1],
        lambda tool: tool.popitem()[1],
    ]
    for look in looks:
        tools: list[Any] = manager.get_tools()
        function = look(tools[0])
        function["parameters"]["$defs"]["Point"]["properties"].clear()
        function["name"] = "changed"
        tools.clear()
        assert json.dumps(manager.get_tools()) == before

"""Every type that a field can declare: what it takes, and what it refuses in both directions."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, make_dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import pytest
from llmgine.contracts.chat import JsonObject, TextPart
from llmgine.contracts.codec import decode, encode, register
from llmgine.contracts.llm import NamedTool
from llmgine.contracts.messages import ErrorInfo
from llmgine.errors import CodecError

AnyT = TypeVar("AnyT")
TextT = TypeVar("TextT", bound=str)
_numbers = count()


@partial(register, name="ShapeColour")
class Colour(enum.Enum):
    RED = 1


@partial(register, name="ShapeLevel")
class Level(enum.IntEnum):
    LOW = 1


@partial(register, name="ShapeAccess")
class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Loose(TypedDict, total=False):
    a: Required[int]
    b: str


class Tight(TypedDict):
    a: int
    b: NotRequired[str]


@register
@dataclass(frozen=True)
class Bare:
    n: int


@dataclass(frozen=True)
class BareToo:
    n: int


@register
@dataclass(frozen=True)
class Generous(Generic[AnyT]):
    item: AnyT


def holder(hint: object) -> type[Any]:
    """Return a registered class with one field, `x`, of the given type."""
    kind = make_dataclass(f"Holder{next(_numbers)}", [("x", hint)], frozen=True)
    return register(kind)


def there_and_back(hint: object, value: object) -> object:
    kind = holder(hint)
    held: Any = decode(encode(kind(x=value)))
    assert type(held) is kind
    return held.x


DATE = date(2026, 1, 2)
MOMENT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

GOOD: list[tuple[object, object]] = [
    (None, None),
    (Any, {"a": (1,)}),
    (AnyT, {2: 3}),
    (TextT, "x"),
    (Annotated[int, "note"], 1),
    (Final[int], 1),
    (Optional[int], 1),  # noqa: UP045 - the older spelling is a type of its own
    (list, [1, "a"]),
    (dict, {"a": 1}),
    (tuple, (1, "a")),
    (set, {1}),
    (tuple[()], ()),
    (tuple[int, str], (1, "a")),
    (frozenset[str], frozenset({"a"})),
    (Sequence[int], [1]),
    (Sequence[int] | None, (1,)),
    (Sequence[int] | None, None),
    (Iterable[str], ("a",)),
    (AbstractSet[int], frozenset({1})),
    (list[int] | tuple[int, ...] | set[int], (1,)),
    (Mapping[tuple[int, ...], str], {(1, 2): "a"}),
    (dict[str, int] | dict[int, int], {"type": 1}),
    (dict[str, int] | dict[int, int], {1: 1}),
    (dict[str, str] | NamedTool, {"type": "NamedTool", "name": "x"}),
    (dict[str, str] | NamedTool, NamedTool(name="x")),
    (str | datetime | date | UUID | bytes, MOMENT),
    (str | datetime | date | UUID | bytes, DATE),
    (str | datetime | date | UUID | bytes, MOMENT.isoformat()),
    (str | datetime | date | UUID | bytes, UUID(int=1)),
    (str | datetime | date | UUID | bytes, b"x"),
    (timedelta | int, timedelta(1)),
    (timedelta | int, 5),
    (int | float | bool, True),
    (int | float | bool, 1),
    (int | float | bool, 1.0),
    (float | str, 1.5),
    (float | str, float("inf")),
    (Colour | str, Colour.RED),
    (Colour | str, "RED"),
    (Level | int, Level.LOW),
    (Level, Level.LOW),
    (Access, Access.READ | Access.WRITE),
    (Literal["a", 1, Colour.RED], 1),
    (Literal[Colour.RED, 1], Colour.RED),
    (Literal["a"] | int, "a"),
    (Literal["a"] | int, 1),
    (Loose, {"a": 1}),
    (Tight | None, {"a": 1, "b": "x"}),
    (Bare, Bare(1)),
    (Bare | None, Bare(1)),
    (Bare | str, Bare(1)),
    (Generous[int], Generous(1)),
    (NamedTool | Bare, NamedTool(name="x")),
    (BaseException | int, ErrorInfo("ValueError", "x")),
    (BaseException | int, 3),
    (ValueError | None, None),
    (JsonObject, {"type": "TextPart"}),
    ("JsonValue | bytes", b"x"),
    ("JsonValue | None", [None, {"a": 1}]),
]


@pytest.mark.parametrize(("hint", "value"), GOOD, ids=lambda part: str(part)[:40])
def test_a_fitting_value_comes_back(hint: object, value: object) -> None:
    again = there_and_back(hint, value)
    assert again == value
    assert type(again) is type(value)


WRONG: list[tuple[object, object]] = [
    (type(None), 1),
    (bool, 1),
    (int, "1"),
    (float, "1"),
    (str, 1),
    (bytes, "x"),
    (date, MOMENT),
    (UUID, "x"),
    (Colour, "RED"),
    (Access, 1),
    (Literal["a", 1], "b"),
    (Literal["a", 1], 1.5),
    (list[int], (1,)),
    (list[int], ["1"]),
    (tuple[int, ...], [1]),
    (tuple[int, str], (1,)),
    (tuple[int, str], [1, "a"]),
    (set[int], frozenset({1})),
    (dict[str, int], [1]),
    (dict[str, int], {1: 1}),
    (dict[str, int], {"a": "b"}),
    (dict[int, int], {"a": 1}),
    (Loose, {}),
    (Loose, {"a": 1, "c": 1}),
    (Loose, {"a": "x"}),
    (Loose, "x"),
    (Bare, BareToo(1)),
    (TextPart, "x"),
    (BaseException, "x"),
    (int | str, b"x"),
    (JsonObject, {"a": b"x"}),
    (JsonObject, {"a": [(1,)]}),
    (JsonObject, "x"),
]


@pytest.mark.parametrize(("hint", "value"), WRONG, ids=lambda part: str(part)[:40])
def test_a_value_of_another_type_is_refused(hint: object, value: object) -> None:
    with pytest.raises(CodecError, match=r"x.*: (expected|.* is not registered|Extra)"):
        encode(holder(hint)(x=value))


UNREADABLE: list[tuple[object, object]] = [
    (type(None), 1),
    (bool, 0),
    (int, True),
    (float, True),
    (float, {"type": "$float", "value": 1}),
    (str, {"type": "$str", "value": 1}),
    (bytes, "ä"),
    (bytes, ["x"]),
    (date, "2026-13-01"),
    (timedelta, 10**30),
    (Colour, "GREEN"),
    (Colour, 1),
    (Access, 64),
    (Access, "READ"),
    (Literal["a"], ["a"]),
    (list[int], {}),
    (list[int], [None]),
    (tuple[int, str], [1]),
    (tuple[int, str], "x"),
    (set[Any], [[]]),
    (dict[str, int], []),
    (dict[str, int], {"a": "b"}),
    (dict[int, int], [[1]]),
    (dict[int, int], {"1": 1}),
    (dict[int, int], [["a", 1]]),
    (Loose, []),
    (Loose, {}),
    (Loose, {"a": 1, "c": 1}),
    (Bare, 1),
    (Bare, {"type": "NamedTool", "name": "x"}),
    (Bare, {"type": 3}),
    (NamedTool | Bare, {"n": 1}),
    (NamedTool, {"type": "Holder"}),
    (BaseException, {"type": "TextPart"}),
    (BaseException, "ValueError"),
    (BaseException, {"type": "ErrorInfo", "type_": 1, "message": "", "traceback": ""}),
    (int | str, [1]),
    (str | bytes, {"type": "$bytes"}),
    (str | bytes, {"type": "$unheard", "value": 1}),
    (JsonObject, {"a": {"type": "$dict", "value": 1}}),
    (JsonObject, {"a": {"type": "TextPart"}}),
    (JsonObject, []),
    (Any, {"type": "$tuple", "value": 1}),
    (Any, {"type": "$dict"}),
]


@pytest.mark.parametrize(("hint", "data"), UNREADABLE, ids=lambda part: str(part)[:40])
def test_data_of_another_type_is_refused(hint: object, data: object) -> None:
    kind = holder(hint)
    with pytest.raises(CodecError, match="can't decode: "):
        decode(json.dumps({"type": kind.__name__, "x": data}).encode())


@pytest.mark.parametrize(
    ("hint", "value"),
    [(type[int], int), (memoryview, memoryview(b"x")), (Literal[b"x"], object()), (Any, object())],
    ids=["type", "memoryview", "literal", "any"],
)
def test_a_type_that_json_lacks_is_refused(hint: object, value: object) -> None:
    with pytest.raises(CodecError, match="x: expected"):
        encode(holder(hint)(x=value))


def test_annotations_that_do_not_resolve_are_named() -> None:
    with pytest.raises(CodecError, match="don't resolve: name 'Missing'"):
        encode(holder("Missing")(x=1))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement came with 3.12")
def test_named_aliases_are_followed() -> None:
    names: dict[str, Any] = {}
    exec("type Pair = tuple[int, int]", names)  # noqa: S102 - older versions can't read it
    assert there_and_back(names["Pair"], (1, 2)) == (1, 2)

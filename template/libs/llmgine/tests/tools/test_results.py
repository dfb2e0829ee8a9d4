"""What tools return, as a model gets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from llmgine.contracts import MediaPart, TextPart, ToolCall, ToolResult
from llmgine.settings import ToolSettings
from llmgine.tools import ToolManager
from pydantic import BaseModel, Field


class Colour(Enum):
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"

    def __str__(self) -> str:
        return "Shade!"


class Weather(BaseModel):
    city: str
    at: datetime = datetime(2026, 1, 2, tzinfo=UTC)


class Aliased(BaseModel):
    inner: int = Field(serialization_alias="outer")


@dataclass
class Point:
    x: int
    day: date


class Pair(NamedTuple):
    left: int
    right: str


PICTURE = MediaPart(kind="image", media_type="image/png", data=b"png" * 100_000)


async def result_of(value: object, **settings: Any) -> ToolResult:
    async def give() -> object:
        return value

    tools = ToolManager("s", settings=ToolSettings(**settings))
    tools.register_tool(give)
    return await tools.execute_tool_call(ToolCall(id="c", name="give"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ('{"a": 1}', '{"a": 1}'),
        ("", ""),
        ("\ud800", "?"),
        (Shade.DARK, "dark"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.1, "0.1"),
        (float("nan"), '"NaN"'),
        (Decimal("1.10"), '"1.10"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (Colour.RED, '"red"'),
        (Path("a/b"), '"a/b"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (b"text", '"text"'),
        (b"\xff", '"_w=="'),
        ({"ä": [1, None]}, '{"ä":[1,null]}'),
        ({1: "a", Colour.RED: "b"}, '{"1":"a","red":"b"}'),
        ({3}, "[3]"),
        ((1, "a"), '[1,"a"]'),
        (Pair(1, "a"), '[1,"a"]'),
        ([], "[]"),
        (Point(1, date(2026, 1, 2)), '{"x":1,"day":"2026-01-02"}'),
        (Weather(city="Oslo"), '{"city":"Oslo","at":"2026-01-02T00:00:00Z"}'),
        ([Weather(city="Oslo")], '[{"city":"Oslo","at":"2026-01-02T00:00:00Z"}]'),
        (Aliased(inner=1), '{"outer":1}'),
        (["a", TextPart(text="b")], '["a",{"text":"b","provider_data":null}]'),
    ],
)
async def test_values_become_text(value: object, text: str) -> None:
    result = await result_of(value)
    assert (result.content, result.is_error) == (text, False)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (TextPart(text="a"), (TextPart(text="a"),)),
        (PICTURE, (PICTURE,)),
        ([TextPart(text="a"), PICTURE], (TextPart(text="a"), PICTURE)),
        ((PICTURE,), (PICTURE,)),
    ],
)
async def test_parts_pass_through(value: object, content: object) -> None:
    assert (await result_of(value)).content == content


async def test_a_result_passes_through_as_the_result_of_this_call() -> None:
    own = ToolResult(
        tool_call_id="?", name="?", content="half", is_error=True, error_code="partial"
    )
    assert await result_of(own) == ToolResult(
        tool_call_id="c", name="give", content="half", is_error=True, error_code="partial"
    )
    own = ToolResult(tool_call_id="?", name="?", content=(PICTURE,))
    assert (await result_of(own)).content == (PICTURE,)


class Plain:
    def __repr__(self) -> str:
        return "<Plain secret>"


def endless() -> Iterator[int]:
    while True:
        yield 1


def circle() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


@pytest.mark.parametrize("value", [Plain(), {"a": Plain()}, endless(), circle(), object, len])
async def test_what_has_no_json_is_an_error_and_never_its_repr(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    result = await result_of(value)
    assert (result.is_error, result.error_code) == (True, "failed")
    assert "Plain" not in result.text
    assert "0x" not in result.text
    assert "tool 'give' failed" in caplog.text


@pytest.mark.parametrize("limit", [256, 1000, 64 * 1024])
@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀"])
async def test_what_is_too_long_is_cut_at_a_character_and_says_so(limit: int, letter: str) -> None:
    size = len(letter.encode())
    fits = letter * (limit // size)
    assert (await result_of(fits, max_result_bytes=limit)).content == fits
    long = fits + letter * 1000
    text = (await result_of(long, max_result_bytes=limit)).text
    assert len(text.encode()) <= limit
    kept, _, mark = text.partition("\n[cut: ")
    assert long.startswith(kept)
    assert len(kept.encode()) > limit - 100
    missing = len(long.encode()) - len(kept.encode())
    assert mark == f"{missing} of {len(long.encode())} bytes are missing]"


async def test_json_parts_and_errors_are_cut_as_well() -> None:
    listed = await result_of(list(range(1000)), max_result_bytes=256)
    assert len(listed.text) <= 256
    parts = [TextPart(text="x" * 150), PICTURE, TextPart(text="y" * 200), TextPart(text="z" * 200)]
    result = await result_of(parts, max_result_bytes=256)
    assert len(result.text.encode()) <= 256
    assert result.content[1] == PICTURE
    assert result.content[0] == parts[0]
    assert [type(part) for part in result.content] == [TextPart, MediaPart, TextPart, TextPart]
    assert result.text.endswith(f"[cut: {400 - 42} of 550 bytes are missing]")
    own = ToolResult(tool_call_id="", name="", content="x" * 1000)
    assert len((await result_of(own, max_result_bytes=256)).text) <= 256
    tools = ToolManager(settings=ToolSettings(max_result_bytes=256))

    def take(numbers: list[int]) -> None: ...

    tools.register_tool(take)
    arguments = json.dumps({"numbers": ["x"] * 20})
    call = ToolCall(id="c", name="take", arguments=arguments)
    assert len((await tools.execute_tool_call(call)).text) <= 256

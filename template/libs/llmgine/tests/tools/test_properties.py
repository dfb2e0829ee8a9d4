"""Whatever a model sends: no exception, one result, one event, and only what fits is run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llmgine.contracts import ToolCall, ToolExecuteResultEvent, ToolExecuteStartedEvent, ToolResult
from llmgine.testing.recording import RecordingPublisher
from llmgine.tools import ToolManager
from pydantic import BaseModel, Field

NAMES = ("count", "unit", "place", "tags", "note")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("c")
KEYS = st.sampled_from((*NAMES, "x", "other")) | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
FITTING = st.fixed_dictionaries(
    {"count": st.integers(0, 9), "unit": st.sampled_from("cf")},
    optional={
        "place": st.none() | st.fixed_dictionaries({"x": st.integers()}),
        "tags": st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
        "note": st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    },
)


class Place(BaseModel):
    x: int
    name: str = ""


class Desk:
    """A tool whose every call is checked, and who is told of it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.told = RecordingPublisher()
        self.ran: list[tuple[object, ...]] = []
        self.tools = ToolManager("s", publisher=self.told)
        self.tools.register_tool(self.take)

    async def take(
        self,
        count: Annotated[int, Field(ge=0, le=9)],
        unit: Literal["c", "f"],
        place: Place | None = None,
        tags: frozenset[str] = frozenset(),
        note: int | str | None = "none",
    ) -> str:
        assert type(count) is int
        assert 0 <= count <= 9
        assert unit in {"c", "f"}
        assert place is None or type(place) is Place
        assert type(tags) is frozenset
        assert note is None or type(note) in {int, str}
        self.ran.append((count, unit, place, tags, note))
        return "taken"

    def send(self, name: str, arguments: str) -> ToolResult:
        self.told.clear()
        self.ran.clear()
        call = ToolCall(id="c", name=name, arguments=arguments)
        result = self.runner.run(self.tools.execute_tool_call(call))
        started, ended = self.told.events
        assert isinstance(started, ToolExecuteStartedEvent)
        assert isinstance(ended, ToolExecuteResultEvent)
        assert ended.result == result
        assert result.is_error == (result.error_code is not None)
        assert result.is_error == (not self.ran)
        assert result.error_code != "failed"
        result.text.encode()
        return result


@pytest.fixture(scope="module")
def desk() -> Generator[Desk]:
    with asyncio.Runner() as runner:
        yield Desk(runner)


@settings(max_examples=60, deadline=None)
@given(sent=OBJECTS)
def test_any_object_is_taken_or_told_what_is_wrong(desk: Desk, sent: dict[str, Any]) -> None:
    desk.send("take", json.dumps(sent))


@settings(max_examples=60, deadline=None)
@given(sent=st.text() | st.text(alphabet='{}[]",:0123456789.eE+-nul\\ \ud800'))
def test_any_text_is_told_what_is_wrong(desk: Desk, sent: str) -> None:
    assert desk.send("take", sent).is_error


@settings(max_examples=50, deadline=None)
@given(name=st.text(), arguments=st.text())
def test_any_name_is_told_what_is_wrong(desk: Desk, name: str, arguments: str) -> None:
    assert desk.send(name, arguments).error_code == "unknown_tool"


@settings(max_examples=100, deadline=None)
@given(sent=FITTING)
def test_what_fits_the_schema_is_taken(desk: Desk, sent: dict[str, Any]) -> None:
    assert desk.send("take", json.dumps(sent)).content == "taken"
    ((count, unit, place, tags, note),) = desk.ran
    assert (count, unit) == (sent["count"], sent["unit"])
    assert place == (sent.get("place") and Place(**sent["place"]))
    assert tags == frozenset(sent.get("tags", ()))
    assert note == sent.get("note", "none")


# Numbers as texts, numbers that no float holds, and strings that look like more of an object.
ODD = st.sampled_from(["NaN", "1e999", '"nan"', '"a: b"', '"{"', '"\\u006e"', "[[1]]", "01", "c"])
PAIRS = st.tuples(KEYS.map(json.dumps), LEAVES.map(json.dumps) | ODD)


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(PAIRS, max_size=4))
@example(pairs=[('"count"', "1"), ('"unit"', '"c"')])
@example(pairs=[('"count"', "1"), ('"unit"', '"c"'), ('"count"', "2")])
@example(pairs=[('"count"', "1"), ('"unit"', '"c"'), ('"note"', '"a: b"')])
def test_a_space_makes_no_difference(desk: Desk, pairs: list[tuple[str, str]]) -> None:
    text = "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
    first, ran = desk.send("take", text), list(desk.ran)
    assert desk.send("take", f" {text}") == first
    assert desk.ran == ran
    assert first.is_error or len({key for key, _ in pairs}) == len(pairs)

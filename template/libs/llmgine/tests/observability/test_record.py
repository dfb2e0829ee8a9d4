"""Records and lines: whatever an event holds becomes one line of strict JSON."""

from __future__ import annotations

import collections
import enum
import json
import math
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatMessage,
    Command,
    CommandResult,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMRequest,
    LLMResponse,
    LogEvent,
    MediaPart,
    OpaquePart,
    RefusalPart,
    SessionEndEvent,
    ThinkingPart,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
    Usage,
)
from llmgine.observability.encoder import EventEncoder
from llmgine.observability.record import to_record
from llmgine.testing.observability_suite import sample_events

Dumps = Callable[[object], bytes]


def stdlib_dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


ENCODERS: list[Dumps] = [orjson.dumps, stdlib_dumps]


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not strict JSON")


def decoded(line: bytes) -> dict[str, object]:
    """Read a line the strict way, and see that it is one line for every kind of reader."""
    assert len(line.decode().splitlines()) == 1
    record = json.loads(line, parse_constant=refuse)
    assert isinstance(record, dict)
    orjson.loads(line)
    return record  # pyright: ignore[reportUnknownVariableType] - the test looks into it


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    HI = "hi"


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Part(float):
    pass


@dataclass
class Point:
    x: int = 1
    y: float = 2.5


@dataclass
class Named:
    name: str


@dataclass(frozen=True, kw_only=True)
class Any_(Event):  # noqa: N801 - not typing's
    value: object = None


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    question: str
    number: int = 3
    password: str | None = None
    kept: str = field(default="kept", metadata={"content": False})
    flag: bool = field(default=True, metadata={"content": True})


def shown(value: object) -> object:
    """Return what the record of an event says of a value, the same by both ways."""
    event = Any_(value=value)
    record = to_record(event)
    for dumps in ENCODERS:
        assert decoded(EventEncoder(dumps, content=True).encode(event)) == record
    return record["value"]


VALUES: list[tuple[object, object]] = [
        (None, None),
        (True, True),
        (5, 5),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (2**64, {"$int": "0x10000000000000000"}),
        (1.5, 1.5),
        (math.nan, {"$float": "nan"}),
        (-math.inf, {"$float": "-inf"}),
        ("text", "text"),
        ("ünï\u2028\u2029\x85 \x00\x1b\n", "ünï\u2028\u2029\x85 \x00\x1b\n"),
        ("a\ud800b", {"$surrogates": "a\\ud800b"}),
        (Text("sub"), "sub"),
        (Whole(5), 5),
        (Part(0.5), 0.5),
        (Colour.RED, "red"),
        (Word.HI, "hi"),
        (b"\x00\xff", {"$bytes": "AP8="}),
        (bytearray(b"a"), {"$bytes": "YQ=="}),
        (memoryview(b"a"), {"$bytes": "YQ=="}),
        ([1, [2]], [1, [2]]),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        (collections.deque([1]), [1]),
        ({}, {}),
        ([], []),
        ({"a": {"b": [1.5]}}, {"a": {"b": [1.5]}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.Counter("aa"), {"a": 2}),
        (collections.OrderedDict([("a", 1)]), {"a": 1}),
        ({1: "a", "1": "b", None: "c"}, {"1": "a", "1#2": "b", "None": "c"}),
        ({(1, 2): "a", Colour.RED: "b"}, {"(1, 2)": "a", "red": "b"}),
        ({"a\ud800": 1}, {"a\\ud800": 1}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=1), 60.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Path("a/b"), str(Path("a/b"))),
        (Point(), {"$type": "Point", "x": 1, "y": 2.5}),
        (Usage, "llmgine.contracts.llm.Usage"),
        (math.sqrt, "math.sqrt"),
        (("Authorization", "x"), ["Authorization", "[redacted]"]),
        ({"api_key": "x", "input_tokens": 5, "token": None}, {
            "api_key": "[redacted]", "input_tokens": 5, "token": None,
        }),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda part: type(part).__name__)
def test_values(value: object, expected: object) -> None:
    assert shown(value) == expected


class Raises:
    """An object that nothing can be had from."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error

    def __getattr__(self, name: str) -> object:
        raise self.error

    def __hash__(self) -> int:
        raise self.error

    def __eq__(self, other: object) -> bool:
        raise self.error


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
def test_objects_that_refuse_leave_a_mark(error: type[BaseException]) -> None:
    assert shown([1, Raises(error)]) == [
        1,
        {
            "$unserialisable": f"{__name__}.Raises",
            "text": f"<repr of {__name__}.Raises raised {error.__name__}>",
        },
    ]


def test_a_field_that_raises_costs_that_field_only() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(Event):
        good: int = 1
        bad: int = 2

        def __getattribute__(self, name: str) -> object:
            if name == "bad":
                raise SystemExit
            return object.__getattribute__(self, name)

    record = to_record(Odd())
    assert record["good"] == 1
    assert record["bad"] == {"$unserialisable": "bad", "error": "SystemExit"}
    assert decoded(EventEncoder(orjson.dumps, content=True).encode(Odd()))["good"] == 1


def test_a_mapping_that_raises() -> None:
    class Broken(dict[str, int]):
        def items(self) -> NoReturn:
            raise SystemExit

    value = shown(Broken(a=1))
    assert value == {
        "$unserialisable": f"{Broken.__module__}.{Broken.__qualname__}",
        "error": "SystemExit",
    }


def test_cycles_depth_and_size_are_cut_and_marked() -> None:
    endless: list[object] = [1]
    endless.append(endless)
    assert shown(endless) == [1, {"$cycle": "list"}]
    deep: object = "bottom"
    for _ in range(500):
        deep = [deep]
    assert '"$depth"' in json.dumps(to_record(Any_(value=deep)))
    wide: object = [0]
    for _ in range(60):
        wide = [wide, wide]
    line = EventEncoder(orjson.dumps, content=True).encode(Any_(value=wide))
    assert b"$truncated" in line
    assert decoded(line)
    assert shown(["x" * 2_000_000]) == [{"$truncated": "x" * 2**20, "length": 2_000_000}]
    assert isinstance(shown(10**5000), dict)
    assert isinstance(shown(b"x" * 2_000_000), dict)


def fail(error: BaseException) -> NoReturn:
    raise error


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        fail(error)
    return caught.value


def test_exceptions_keep_type_message_and_traceback() -> None:
    value = to_record(Any_(value=raised(ValueError("no city"))))["value"]
    assert isinstance(value, dict)
    assert value["type"] == "ValueError"
    assert value["message"] == "no city"
    assert "in fail" in str(value["traceback"])


def test_exceptions_whose_text_raises() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise SystemExit

    value = shown(raised(Mute()))
    assert isinstance(value, dict)
    assert "Mute" in json.dumps(value)


def test_the_top_level() -> None:
    event = LogEvent(text="x", timestamp=1_769_860_800.25, session_id="s", metadata={"a": "b"})
    record = to_record(event)
    assert list(record)[:3] == ["event_type", "timestamp", "session_id"]
    assert record["event_type"] == "LogEvent"
    assert record["timestamp"] == "2026-01-31T12:00:00.250000Z"
    assert record["session_id"] == "s"
    assert record["id"] == event.id
    assert record["metadata"] == {"a": "b"}
    for dumps in ENCODERS:
        line = EventEncoder(dumps, content=True).encode(event)
        assert line.startswith(b'{"event_type":')
        assert decoded(line) == record


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, -math.inf, 1e300, "soon", None])
def test_a_timestamp_that_is_none_is_kept_as_it_is(timestamp: object) -> None:
    event = Any_(timestamp=timestamp)  # pyright: ignore[reportArgumentType]
    assert decoded(EventEncoder(orjson.dumps, content=True).encode(event)) == to_record(event)


@pytest.mark.parametrize("timestamp", [0.0, -0.5, -1e9, 5, 253402300799.5])
def test_timestamps_far_from_now(timestamp: float) -> None:
    text = to_record(Any_(timestamp=timestamp))["timestamp"]
    assert isinstance(text, str)
    assert datetime.fromisoformat(text).timestamp() == timestamp
    assert (
        decoded(EventEncoder(orjson.dumps, content=True).encode(Any_(timestamp=timestamp)))[
            "timestamp"
        ]
        == text
    )


def test_a_field_named_like_the_type_is_kept_beside_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Clash(Event):
        event_type: str = "mine"

    event = Clash()
    record = to_record(event)
    assert (record["event_type"], record["$event_type"]) == ("Clash", "mine")
    assert decoded(EventEncoder(orjson.dumps, content=True).encode(event)) == record


def test_events_without_a_decorator_or_of_one_field() -> None:
    class Bare(Event):
        pass

    assert to_record(Bare())["event_type"] == "Bare"
    assert decoded(EventEncoder(orjson.dumps, content=True).encode(Bare()))["event_type"] == "Bare"


@pytest.mark.parametrize("content", [True, False])
def test_both_ways_write_every_kind_of_event_alike(content: bool) -> None:
    for session_id in ("s", "x" * 32, None):
        for event in sample_events(session_id):
            record = to_record(event, content=content)
            for dumps in ENCODERS:
                assert decoded(EventEncoder(dumps, content=content).encode(event)) == record


MARKER = "MARKER"


def content_events() -> list[Event]:
    call = ToolCall(id="1", name="t", arguments=MARKER, provider_data={"x": MARKER})
    result = ToolResult(tool_call_id="1", name="t", content=MARKER)
    parts = (
        MARKER,
        MediaPart(kind="image", data=MARKER.encode()),
        MediaPart(kind="image", url=MARKER),
        ThinkingPart(text=MARKER, signature=MARKER, redacted=MARKER),
        RefusalPart(text=MARKER),
        OpaquePart(provider="p", data={"x": MARKER}),
        call,
        result,
    )
    message = ChatMessage.assistant(*parts)
    command = Ask(question=MARKER)
    request = LLMRequest(messages=(message,), provider_options={"system": MARKER})
    response = LLMResponse(message=message, provider_data={"raw": MARKER})
    return [
        CommandStartedEvent(command=command),
        CommandResultEvent(command=command, result=CommandResult(value=MARKER)),
        LLMCallStartedEvent(call_id="c", provider="p", request=request),
        LLMCallResultEvent(call_id="c", provider="p", response=response),
        ToolExecuteStartedEvent(call=call),
        ToolExecuteResultEvent(call=call, result=result),
        Any_(value=[MARKER]),
        Any_(value=MARKER),
    ]


def test_the_content_gate_holds_back_every_prompt_and_answer() -> None:
    encoder = EventEncoder(orjson.dumps, content=False)
    for event in content_events():
        line = encoder.encode(event)
        assert MARKER.encode() not in line
        assert b"TUFSS0VS" not in line
        assert MARKER not in json.dumps(to_record(event, content=False))
        assert b'"$content":"withheld"' in line


def test_the_content_gate_is_open_where_it_is_asked_to_be() -> None:
    for event in content_events():
        line = EventEncoder(orjson.dumps, content=True).encode(event)
        assert MARKER.encode() in line
        assert b"$content" not in line


def test_an_author_decides_about_a_field() -> None:
    record = to_record(CommandStartedEvent(command=Ask(question="q")), content=False)
    command = record["command"]
    assert isinstance(command, dict)
    assert command["question"] == {"$content": "withheld", "size": 1}
    assert command["kept"] == "kept"
    assert command["number"] == 3
    assert command["flag"] is True


def test_secrets_are_redacted_wherever_they_are() -> None:
    secret = "sk-proj-Ab3dEf6hIj9kLmNoPqRs"  # noqa: S105 - a made-up one
    values: list[object] = [
        secret,
        [secret],
        {secret: 1},
        {"password": secret},
        Named(secret),
        secret.encode(),
        raised(ValueError(f"refused {secret}")),
        raised(ExceptionGroup("g", [ValueError(secret)])),
        Ask(question=secret, password=secret),
        ToolCall(id="1", name="t", arguments=json.dumps({"api_key": "hunter2", "x": secret})),
        f"{secret} " + "x" * 2_000_000,
        types.SimpleNamespace(key=secret),
        types.SimpleNamespace(long="x" * 950, url="db://user:hunter2hunter2hunter2@host"),
    ]
    for value in values:
        for dumps in ENCODERS:
            line = EventEncoder(dumps, content=True).encode(Any_(value=value, session_id=secret))
            assert secret.encode() not in line
            assert b"hunter2" not in line
            assert b"c2stcHJvai" not in line
    error = SessionEndEvent(error=raised(OSError("login: password=hunter2")))
    assert b"hunter2" not in EventEncoder(orjson.dumps, content=True).encode(error)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"]), max_size=5)
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.just(Colour.RED)
    | st.builds(object)
    | st.builds(Raises, st.sampled_from([ValueError, SystemExit]))
    | st.builds(ValueError, st.text())
    | st.builds(Point, st.integers(), st.floats())
)
keys = st.text() | st.integers() | st.none() | st.tuples(st.integers()) | st.floats()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.sets(keys)
    ),
    max_leaves=20,
)


@given(values, st.text(), st.sampled_from(ENCODERS), st.booleans())
def test_any_value_becomes_one_line_of_strict_json(
    value: object, session_id: str, dumps: Dumps, content: bool
) -> None:
    event = Any_(value=value, session_id=session_id)
    line = EventEncoder(dumps, content=content).encode(event)
    record = decoded(line)
    assert record["event_type"] == "Any_"
    assert record["id"] == event.id
    assert record == to_record(event, content=content)

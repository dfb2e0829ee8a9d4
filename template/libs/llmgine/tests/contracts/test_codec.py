"""The codec's rules, one by one."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, Literal, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest
from llmgine.contracts import codec
from llmgine.contracts.ambient import AMBIENT, Ambient
from llmgine.contracts.chat import ChatMessage, JsonObject, JsonValue, OpaquePart, TextPart
from llmgine.contracts.codec import NEWER, decode, encode, register
from llmgine.contracts.events import CommandResultEvent, SessionEndEvent
from llmgine.contracts.llm import Usage
from llmgine.contracts.messages import Command, CommandResult, ErrorInfo, Event
from llmgine.errors import CodecError, RateLimitError, UndecoratedMessageError

ItemT = TypeVar("ItemT")
UserId = NewType("UserId", int)


@register
class Colour(enum.Enum):
    RED = "#f00"
    BLUE = "#00f"


@register
class Size(enum.StrEnum):
    S = "small"


@register
class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Address(TypedDict):
    street: str
    number: NotRequired[int]


@register
@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@register
@dataclass(frozen=True)
class Node:
    name: str
    inner: Sequence[Node] = ()


@register
@dataclass(frozen=True)
class Box(Generic[ItemT]):
    item: ItemT


@register
@dataclass(frozen=True)
class Shipment:
    type: str
    where: Point
    tuples: tuple[int, ...]
    pair: tuple[str, Point | None]
    lists: list[tuple[int, ...]]
    either: Sequence[int]
    sets: frozenset[int]
    by_number: Mapping[int, str]
    by_name: dict[str, list[Point]]
    colour: Colour
    size: Size | str
    rights: Right
    when: datetime
    day: date | datetime
    at: time
    wait: timedelta
    price: Decimal
    key: UUID
    raw: bytes
    path: Path
    user: UserId
    mode: Literal["fast", 3, True]
    address: Address
    tree: Node
    box: Box[int]
    note: JsonObject
    anything: Any = None
    maybe: str | int | float | bytes | None = None
    made: str = field(default="made", init=False)


SHIPMENT = Shipment(
    type="parcel",
    where=Point(1, 2.5),
    tuples=(1, 2),
    pair=("a", None),
    lists=[(1,), ()],
    either=(1, 2),
    sets=frozenset({1, 2}),
    by_number={1: "a", -2: "b"},
    by_name={"a": [Point(0)]},
    colour=Colour.BLUE,
    size=Size.S,
    rights=Right.READ | Right.WRITE,
    when=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    day=date(2026, 1, 2),
    at=time(1, 2, 3),
    wait=timedelta(days=-1, microseconds=1),
    price=Decimal("1.10"),
    key=UUID(int=7),
    raw=b"\x00",
    path=Path("a/b"),
    user=UserId(5),
    mode=3,
    address={"street": "x"},
    tree=Node("a", [Node("b"), Node("c", (Node("d"),))]),
    box=Box(3),
    note={"type": "Shipment", "n": [None]},
    anything={"a": (Colour.RED, {1})},
    maybe=b"x",
)


@register
@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str


@register
@dataclass(frozen=True, kw_only=True)
class Greeted(Event):
    name: str


def test_own_classes_come_back_with_their_declared_types() -> None:
    again = decode(encode(SHIPMENT), Shipment)
    assert again == SHIPMENT
    for name in ("either", "size", "mode", "day", "user", "price"):
        assert type(getattr(again, name)) is type(getattr(SHIPMENT, name))
    assert str(again.price) == "1.10"


def test_nested_messages_come_back() -> None:
    event = CommandResultEvent(
        command=Greet(name="Ada"), result=CommandResult(value=(1, "Hello"), duration=0.5)
    )
    again = decode(encode(event), CommandResultEvent)
    assert isinstance(again.command, Greet)
    assert (again.command.id, again.command.name) == (event.command.id, "Ada")
    assert again.result.value == (1, "Hello")


def test_a_live_exception_becomes_what_is_left_of_it() -> None:
    with pytest.raises(RateLimitError) as caught:
        raise RateLimitError("slow down")
    event = SessionEndEvent(error=caught.value)
    found = decode(encode(event), SessionEndEvent).error
    assert isinstance(found, ErrorInfo)
    assert (found.type, found.message) == ("llmgine.errors.RateLimitError", "slow down")
    assert "raise RateLimitError" in found.traceback
    assert decode(encode(SessionEndEvent(error=found)), SessionEndEvent).error == found


def test_an_exception_with_a_broken_text_is_written_all_the_same() -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    found = decode(encode(SessionEndEvent(error=RudeError())), SessionEndEvent).error
    assert isinstance(found, ErrorInfo)
    assert "RudeError" in found.type


def test_none_is_not_missing_and_missing_is_the_default() -> None:
    assert decode(b'{"type":"Usage","input_tokens":0}') == Usage(input_tokens=0)
    assert b'"output_tokens":null' in encode(Usage(input_tokens=0))


def test_a_decoded_message_does_not_take_on_the_readers_session() -> None:
    tree: dict[str, object] = json.loads(encode(Greeted(name="x")))
    reader = Ambient()
    reader.session_id, reader.parent_id = "reader", "parent"
    token = AMBIENT.set(reader)
    try:
        assert decode(json.dumps(tree).encode(), Greeted).session_id is None
        del tree["session_id"]
        with pytest.raises(CodecError, match="session_id: expected a value, which is missing"):
            decode(json.dumps(tree).encode())
    finally:
        AMBIENT.reset(token)


def test_a_part_of_a_newer_version_survives_unread() -> None:
    hologram: dict[str, JsonValue] = {
        "type": "Hologram",
        "depth": 3,
        "nested": [{"type": "TextPart"}],
    }
    tree = {"type": "ChatMessage", "role": "user", "parts": [hologram]}
    message = decode(json.dumps(tree).encode(), ChatMessage)
    assert message.parts == (OpaquePart(provider=codec.NEWER, data=hologram),)
    assert json.loads(encode(message))["parts"] == [hologram]
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected UTF-8"),
        ("{}".encode("utf-16"), "expected UTF-8"),
        (b"NaN", "no NaN"),
        (b"[1e999]", "expected a number"),
        (b"1" * 5000, "expected JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 150 + b"]" * 150, "nested deeper than 100"),
        (b'{"type":"Unheard"}', "unknown type 'Unheard'"),
        (b'{"type":"$unheard","value":1}', "'\\$unheard'"),
        (b'{"type":"os.system","value":"ls"}', ""),
        (b'{"type":"TextPart"}', "text: .* which is missing"),
        (b'{"type":"TextPart","text":"","x":1}', "no field 'x'"),
        (b'{"type":"TextPart","text":null}', "text: expected a valid string, found null"),
        (b'{"type":"ChatMessage","role":"boss"}', "role: expected 'system', 'user'"),
        (b'{"type":"ChatMessage","role":"user","parts":{}}', "parts: expected a valid tuple"),
        (
            b'{"type":"ChatMessage","role":"user","parts":[1]}',
            "parts.0: expected an instance of TextPart or",
        ),
        (b'{"type":"ChatMessage","role":"user","parts":[{"type":"Usage"}]}', "found Usage"),
        (
            b'{"type":"ChatMessage","role":"user","parts":[{}]}',
            "parts.0: expected an instance of TextPart or",
        ),
        (b'{"type":"MediaPart","kind":"image"}', "exactly one of data, url and file_id"),
        (b'{"type":"MediaPart","kind":"image","data":"!"}', "data: expected bytes: Only base64"),
        (b'{"type":"Usage","input_tokens":true}', "input_tokens: expected a valid integer"),
        (b'{"type":"Usage","input_tokens":1.0}', "input_tokens: expected a valid integer"),
        (b'{"type":"Colour","value":"GREEN"}', "a member of Colour"),
        (b'{"type":"$set","value":[[]]}', "expected set: unhashable"),
        (b'{"type":"$map","value":[[[1],2]]}', "expected map: unhashable"),
        (b'{"type":"$map","value":[[1]]}', "expected map: "),
        (b'{"type":"$tuple"}', "'value'"),
        (b'{"type":"$uuid","value":5}', "'\\$uuid' of int"),
        (b'{"type":"$decimal","value":"x"}', "expected decimal: "),
        (b'{"type":"$timedelta","value":1e3}', "'\\$timedelta' of float"),
        (b'{"type":"$float","value":"1"}', "expected float: "),
        (b'{"type":"ErrorInfo"}', "ErrorInfo with the texts"),
    ],
)
def test_bad_data_says_what_was_expected(data: bytes, expected: str) -> None:
    if not expected:
        # A lower-case type is an ordinary object: nothing is looked up, let alone imported.
        assert decode(data) == {"type": "os.system", "value": "ls"}
        return
    with pytest.raises(CodecError, match=expected):
        decode(data)


def test_the_expected_class_is_checked() -> None:
    with pytest.raises(CodecError, match="expected Usage, found TextPart"):
        decode(encode(TextPart(text="")), Usage)


def test_a_text_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BYTES", 100)
    with pytest.raises(CodecError, match="over 100"):
        encode(TextPart(text="x" * 100))
    with pytest.raises(CodecError, match="at most 100"):
        decode(b" " * 101)


class Unknown:
    pass


class Hidden(enum.Enum):
    A = 1


@dataclass(frozen=True)
class Unregistered:
    x: int = 0


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    return deep


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Unknown(), "known type, found Unknown"),
        (Unregistered(), "Unregistered is not registered"),
        (
            CommandResult(value=[Unknown()]),
            "value: expected a value of a known type, found Unknown",
        ),
        (Hidden.A, "Hidden is not registered"),
        (TextPart(text=1), "text: expected a valid string, found int"),  # type: ignore[arg-type]
        (
            TextPart(text="", provider_data={"x": (1,)}),  # type: ignore[dict-item]
            "provider_data.x: expected a valid JSON value, found tuple",
        ),
        (TextPart(text="", provider_data={"\ud83d\ude00": 1}), "two surrogates in a row"),
        (ChatMessage(role="boss"), "role: expected 'system', 'user'"),  # type: ignore[arg-type]
        (CommandResult(duration=10**400), "duration: expected a valid number"),
        pytest.param(10**5000, "4300 digits", id="huge"),
        (_deep(), "nested deeper than 100"),
        (_endless(), "recursion|nested"),
    ],
)
def test_what_cannot_be_written_says_where_and_why(value: object, expected: str) -> None:
    with pytest.raises(CodecError, match=expected):
        encode(value)


def test_a_million_mistakes_are_not_told_one_by_one() -> None:
    wrong = {str(number): "x" for number in range(1000)}
    with pytest.raises(CodecError, match="what Usage declares, found 1000 other values"):
        decode(json.dumps({"type": "Usage", "details": wrong}).encode())


def test_what_a_field_holds_is_registered_too() -> None:
    @register
    @dataclass(frozen=True)
    class Crate:
        content: object

    for content in (Unregistered(), Hidden.A, [Hidden.A], {"x": Hidden.A}):
        with pytest.raises(CodecError, match=r"content: .* is not registered: register\("):
            encode(Crate(content))


def test_names_are_taken_once() -> None:
    first = dataclass(type("Twin", (), {"__module__": "one"}))
    second = dataclass(type("Twin", (), {"__module__": "two"}))
    register(first)
    register(first)
    with pytest.raises(CodecError, match="'Twin' is taken"):
        register(second)
    register(second, name="OtherTwin")
    assert isinstance(decode(encode(second())), second)
    with pytest.raises(CodecError, match="is registered as 'OtherTwin'"):
        register(second, name="ThirdTwin")
    # A module that is loaded again brings its classes anew.
    anew = dataclass(type("Twin", (), {"__module__": "one"}))
    register(anew)
    assert isinstance(decode(encode(first())), anew)


def test_what_cannot_be_registered_is_refused() -> None:
    class Bare(Greeted):
        more: int = 0

    with pytest.raises(UndecoratedMessageError):
        register(Bare)
    with pytest.raises(CodecError, match="neither a dataclass nor an Enum"):
        register(Unknown)
    for name in ("small", "$tuple", "", "Two words", "ErrorInfo"):
        with pytest.raises(CodecError):
            register(Unregistered, name=name)
    with pytest.raises(CodecError, match="single class"):
        register(Point, Node, name="Both")  # type: ignore[call-overload]


@pytest.mark.parametrize("data", [{"type": "Newer", "v": {1}}, {"type": "Newer", "v": object()}])
def test_a_newer_part_that_is_no_json_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="can't encode OpaquePart"):
        encode(OpaquePart(provider=NEWER, data=data))


@pytest.mark.parametrize("tag", ["TextPart", "$map", "ErrorInfo"])
def test_a_newer_part_with_a_known_name_stays_what_it_is(tag: str) -> None:
    part = OpaquePart(provider=NEWER, data={"type": tag, "bad": 1})
    assert decode(encode(part)) == part

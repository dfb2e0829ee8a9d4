"""The quick constructor: the same arguments, the same object, the same refusals."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, asdict, dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import Command, Event
from llmgine.contracts.construction import quicken


@dataclass(frozen=True, kw_only=True)
class Plain(Command[None]):
    number: int
    name: str = "nobody"
    tags: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, kw_only=True)
class Quick(Command[None]):
    number: int
    name: str = "nobody"
    tags: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickSlots(Command[None]):
    number: int
    name: str = "nobody"
    tags: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, kw_only=True)
class Shadowing(Event):
    # Without slots of its own, the class's default hides the slot of its base.
    session_id: str | None = "fixed"


@dataclass
class Maker:
    """A factory that can't be a key."""

    value: int

    def __call__(self) -> int:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Made(Event):
    number: int = field(default_factory=Maker(7))


for _kind in (Quick, QuickSlots, Shadowing, Made):
    quicken(_kind)

KINDS = (Plain, Quick, QuickSlots)

arguments = st.fixed_dictionaries(
    {"number": st.integers()},
    optional={
        "name": st.text(),
        "tags": st.lists(st.text()),
        "id": st.text(),
        "timestamp": st.floats(allow_nan=False),
        "session_id": st.none() | st.text(),
        "parent_id": st.none() | st.text(),
        "metadata": st.dictionaries(st.text(), st.text()),
    },
)


@pytest.mark.parametrize("kind", [Quick, QuickSlots])
def test_a_plain_message_class_is_quickened_and_looks_as_before(kind: type) -> None:
    assert "_ABSENT" in kind.__init__.__code__.co_names
    assert str(inspect.signature(kind)) == str(inspect.signature(Plain))
    assert kind.__init__.__qualname__ == f"{kind.__name__}.__init__"


@given(given=arguments)
def test_the_same_arguments_make_the_same_message(given: dict[str, Any]) -> None:
    plain, *quick = [asdict(kind(**given)) for kind in KINDS]
    for made in quick:
        assert {name: made[name] for name in given} == given
        assert {name: type(value) for name, value in made.items() if name not in given} == {
            name: type(value) for name, value in plain.items() if name not in given
        }
        assert (made["name"], made["tags"]) == (plain["name"], plain["tags"])


@pytest.mark.parametrize("kind", [Quick, QuickSlots])
def test_defaults_are_made_anew_and_the_message_stays_frozen(kind: type[Quick]) -> None:
    one, other = kind(number=1), kind(number=1)
    assert one.id != other.id
    assert one.tags is not other.tags
    assert one.session_id is one.parent_id is None
    assert replace(one, number=2).id == one.id
    with pytest.raises(FrozenInstanceError):
        one.number = 3  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_refused_by_name(kind: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'number'"):
        kind()
    with pytest.raises(TypeError, match="unexpected keyword argument 'numbre'"):
        kind(number=1, numbre=2)
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        kind(1)


def test_a_default_that_hides_a_slot_is_kept() -> None:
    assert Shadowing().session_id == "fixed"
    assert Shadowing(session_id="own").session_id == "own"


def test_any_callable_may_be_a_default_factory() -> None:
    assert "_ABSENT" in Made.__init__.__code__.co_names
    assert (Made().number, Made(number=1).number) == (7, 1)


async def test_what_is_ambient_is_taken_on() -> None:
    async with MessageBus.isolated() as bus, BusSession("here", bus=bus) as session:

        async def answer(command: Quick) -> None:
            inner = QuickSlots(number=2)
            assert (inner.session_id, inner.parent_id) == ("here", command.id)

        bus.register_command_handler(Quick, answer)
        await session.execute(Quick(number=1))


class Initialised(Event):
    def __init__(self, *, number: int) -> None:
        super().__init__()
        object.__setattr__(self, "doubled", 2 * number)


@dataclass(frozen=True, kw_only=True)
class PostInitialised(Event):
    number: int
    seen: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.seen.append(self.number)


@dataclass(frozen=True, kw_only=True)
class PostInitialisedChild(PostInitialised):
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class WithInitVar(Event):
    number: InitVar[int] = 1


@dataclass(frozen=True)
class Positional(Event):
    number: int


@dataclass(frozen=True, kw_only=True)
class NotAnArgument(Event):
    number: int = field(default=1, init=False)


@dataclass(frozen=True, kw_only=True)
class Underscored(Event):
    _ambient: int = 1


@pytest.mark.parametrize(
    "kind",
    [Initialised, PostInitialised, PostInitialisedChild, WithInitVar, Positional, NotAnArgument,
     Underscored],
)  # fmt: skip
def test_whatever_does_more_than_set_its_fields_stays_as_it_is(kind: type) -> None:
    before = vars(kind)["__init__"]
    quicken(kind)
    assert vars(kind)["__init__"] is before


async def test_a_registered_message_class_is_quick_and_its_subclass_its_own() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Base(Event):
        number: int = 1

    @dataclass(frozen=True, kw_only=True)
    class Child(Base):
        more: str = "more"

    heard: list[Base] = []
    async with MessageBus.isolated() as bus:
        bus.register_event_handler(Base, heard.append)
        await bus.publish_and_wait(Base(number=2))
        await bus.publish_and_wait(Child(more="yet"))
        await bus.publish_and_wait(Child(number=3))
    assert [vars(each) for each in heard] == [
        {"number": 2}, {"number": 1, "more": "yet"}, {"number": 3, "more": "more"}
    ]  # fmt: skip

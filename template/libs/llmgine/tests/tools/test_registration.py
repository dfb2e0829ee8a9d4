"""What can be registered as a tool, under which name and description, and what is refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import pytest
from llmgine.contracts import ToolCall
from llmgine.tools import ToolContext, ToolManager, ToolRegistrationError
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    # Known to type checkers alone.
    from decimal import Decimal as Hidden

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class City(BaseModel):
    name: str


NO_JSON: Any = {"x": float("nan")}


class Word(str):
    __slots__ = ()


class Least(IntEnum):
    ONE = 1


def shout(word: str, times: int = 2) -> str:
    """Say it aloud.

    Args:
        word: what to say.
        times: how often.
    """
    return word.upper() * times


def described(func: Callable[..., object], **options: Any) -> dict[str, Any]:
    manager = ToolManager()
    manager.register_tool(func, **options)
    return dict(manager.get_tools()[0]["function"])


def properties(func: Callable[..., object], **options: Any) -> dict[str, Any]:
    return described(func, **options)["parameters"]["properties"]


async def call(func: Callable[..., object], arguments: str = "{}", **options: Any) -> str:
    async with ToolManager("s") as manager:
        manager.register_tool(func, **options)
        name = manager.get_tools()[0]["function"]["name"]
        result = await manager.execute_tool_call(ToolCall(id="c", name=name, arguments=arguments))
        assert not result.is_error, result.content
        return result.text


# -- Kinds of callables


def logged(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper


class Greeter:
    """Greets."""

    greeting = "Hello"

    def greet(self, name: str) -> str:
        """Greet somebody."""
        return f"{self.greeting}, {name}"

    @classmethod
    def shared(cls, name: str) -> str:
        return f"{cls.greeting}, {name}"

    @staticmethod
    def alone(name: str) -> str:
        return f"Hello, {name}"

    async def __call__(self, name: str) -> str:
        return f"{self.greeting}, {name}"


def keyed(pin: str, name: str, *, greeting: str = "Hi") -> str:
    """Greet.

    :param pin: not for models.
    :param name: whom.
    """
    return f"{greeting}, {name} ({pin})"


async def slowly(name: str) -> str:
    return f"Hello, {name}"


def late(name: str) -> Any:
    return slowly(name)


def by_place(name: str, greeting: str = "Hello", end: str = "", /) -> str:
    return f"{greeting}, {name}{end}"


def by_name(*, name: str) -> str:
    return f"Hello, {name}"


def generic(name: T) -> T:
    return name


def unresolvable(name: str) -> str | Hidden:
    return f"Hello, {name}"


CALLABLES: list[tuple[Any, str, str]] = [
    (Greeter().greet, "greet", "Hello, Ada"),
    (Greeter.shared, "shared", "Hello, Ada"),
    (Greeter.alone, "alone", "Hello, Ada"),
    (Greeter(), "Greeter", "Hello, Ada"),
    (functools.partial(keyed, "k3y"), "keyed", "Hi, Ada (k3y)"),
    (functools.partial(keyed, pin="k3y", greeting="Oh"), "keyed", "Oh, Ada (k3y)"),
    (functools.partial(Greeter()), "Greeter", "Hello, Ada"),
    (logged(Greeter.alone), "alone", "Hello, Ada"),
    (functools.lru_cache(Greeter.alone), "alone", "Hello, Ada"),
    (slowly, "slowly", "Hello, Ada"),
    (logged(slowly), "slowly", "Hello, Ada"),
    (late, "late", "Hello, Ada"),
    (by_place, "by_place", "Hello, Ada"),
    (by_name, "by_name", "Hello, Ada"),
    (generic, "generic", "Ada"),
    (unresolvable, "unresolvable", "Hello, Ada"),
]


@pytest.mark.parametrize(("func", "name", "answer"), CALLABLES)
async def test_a_callable_is_described_and_called(func: Any, name: str, answer: str) -> None:
    function = described(func)
    assert function["name"] == name
    assert function["parameters"]["required"] == ["name"]
    assert "k3y" not in str(function)
    assert await call(func, '{"name": "Ada"}') == answer


async def test_a_decorated_partial_keeps_what_it_binds_to_itself() -> None:
    func = logged(functools.partial(keyed, pin="k3y"))
    assert list(properties(func, name="greet")) == ["name", "greeting"]
    assert await call(func, '{"name": "Ada"}', name="greet") == "Hi, Ada (k3y)"


async def test_positional_only_parameters_keep_their_places() -> None:
    assert await call(by_place, '{"name": "Ada", "end": "!"}') == "Hello, Ada!"


async def test_a_bound_value_is_no_argument() -> None:
    manager = ToolManager()
    manager.register_tool(functools.partial(keyed, pin="k3y"))
    result = await manager.execute_tool_call(
        ToolCall(id="c", name="keyed", arguments='{"name": "Ada", "pin": "mine"}')
    )
    assert result.error_code == "invalid_arguments"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is new in Python 3.12")
def test_type_parameters_of_the_new_syntax() -> None:
    space: dict[str, Any] = {}
    source = (
        "from __future__ import annotations\ndef pick[T: int](value: T, more: list[T]) -> T: ..."
    )
    exec(source, space)  # noqa: S102 - older versions can't read it
    assert properties(space["pick"])["more"]["items"] == {"type": "integer"}


async def test_register_tool_is_a_decorator_and_returns_the_function() -> None:
    manager = ToolManager()

    @manager.register_tool
    def double(number: int) -> int:
        return 2 * number

    assert double(2) == 4
    assert [tool["function"]["name"] for tool in manager.get_tools()] == ["double"]


def test_any_name_of_a_parameter_will_do() -> None:
    def odd(
        schema: str, model_config: int, _hidden: bool, copy: str, title: str, p0: int = 1
    ) -> None: ...

    assert list(properties(odd)) == ["schema", "model_config", "_hidden", "copy", "title", "p0"]


# -- The context


@pytest.mark.parametrize("place", ["first", "last", "optional"])
async def test_the_context_is_injected_and_hidden(place: str) -> None:
    def first(context: ToolContext, /, name: str) -> str:
        return f"{context.session_id} {context.call.id} {name}"

    def last(name: str, *, context: ToolContext) -> str:
        return first(context, name)

    def optional(name: str, context: ToolContext | None = None) -> str:
        assert context is not None
        return first(context, name)

    func = {"first": first, "last": last, "optional": optional}[place]
    assert list(properties(func)) == ["name"]
    assert await call(func, '{"name": "Ada"}') == "s c Ada"


# -- Names and descriptions


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 65, "a\n", "<lambda>"])
def test_a_name_that_providers_refuse_is_refused(name: str) -> None:
    with pytest.raises(ToolRegistrationError, match="1 to 64 letters"):
        ToolManager().register_tool(shout, name=name)


def test_a_name_is_taken_once() -> None:
    manager = ToolManager()
    manager.register_tool(shout)
    with pytest.raises(ToolRegistrationError, match="'shout' is registered already"):
        manager.for_session("s").register_tool(shout)
    manager.register_tool(shout, name="shout-2_B")
    assert len(manager.get_tools()) == 2


NUMPY = """Say it aloud.

Parameters
----------
word : str
    what to say.
times : int, optional
    how often.

Returns
-------
str
    the words.
"""
SPHINX = """Say it aloud.

:param word: what to say.
:param int times: how often.
:returns: the words.
"""
GOOGLE = """Say it aloud.

    Args:
        word (str): what to
            say.
        times: how often.

    Returns:
        the words.
    """


@pytest.mark.parametrize("docstring", [NUMPY, SPHINX, GOOGLE])
@pytest.mark.parametrize("blank", [True, False])
@pytest.mark.parametrize("summary", [True, False])
def test_docstrings_of_each_style_are_read(docstring: str, blank: bool, summary: bool) -> None:
    def say(word: str, times: int = 2) -> str:
        return word * times

    text = docstring if blank else docstring.replace("aloud.\n\n", "aloud.\n")
    say.__doc__ = text if summary else text.partition("\n")[2].lstrip("\n")
    function = described(say)
    assert function["description"] == ("Say it aloud." if summary else "")
    found = function["parameters"]["properties"]
    assert found["word"]["description"] == "what to say."
    assert found["times"]["description"] == "how often."


@pytest.mark.parametrize("text", ["Only\n\ntwo paragraphs", ""])
def test_any_other_docstring_is_the_description(text: str) -> None:
    def say() -> None: ...

    say.__doc__ = text
    assert described(say)["description"] == text


def test_what_is_said_beside_the_type_wins_over_the_docstring() -> None:
    def say(word: Annotated[str, Field(description="aside")], times: int = 2) -> None: ...

    say.__doc__ = shout.__doc__
    assert properties(say)["word"]["description"] == "aside"
    assert properties(say)["times"]["description"] == "how often."


def test_name_and_description_can_be_given() -> None:
    function = described(lambda: None, name="nothing", description="Do nothing.")
    assert (function["name"], function["description"]) == ("nothing", "Do nothing.")


def test_a_very_long_description_is_kept_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert len(described(shout, description="x" * 1025)["description"]) == 1025
    assert "'shout' has a description of 1025 characters" in caplog.text
    caplog.clear()
    described(shout, description="x" * 1024)
    assert caplog.text == ""


# -- Refusals


class Plain:
    pass


def unannotated(word): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
def many(*words: str) -> None: ...
def options(**words: str) -> None: ...
def undescribable(word: str, plain: Plain) -> None: ...
def callback(function: Callable[[int], str]) -> None: ...
def misspelt(word: "Strin") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037  # pyright: ignore[reportUndefinedVariable]
def defaulted(word: str = Field(description="x")) -> None: ...
def hidden(word: Hidden) -> None: ...


def undecorated(function: Callable[..., object]) -> Callable[..., object]:
    def wrapper(*args: Any, **kwargs: Any) -> object:
        return function(*args, **kwargs)

    return wrapper


REFUSED: list[tuple[Any, tuple[str, ...]]] = [
    (unannotated, ("'unannotated'", "'word'", "write `word: str`")),
    (Greeter.greet, ("'greet'", "'self'", "register the method of an object")),
    (many, ("'many'", "'words'", "*words")),
    (options, ("'options'", "'words'", "**words")),
    (undecorated(shout), ("'wrapper'", "'args'", "functools.wraps")),
    (undescribable, ("'undescribable'", "'plain'", "Plain", "ToolContext")),
    (callback, ("'callback'", "'function'")),
    (misspelt, ("'misspelt'", "'word'", "Strin")),
    (hidden, ("'hidden'", "'word'", "TYPE_CHECKING")),
    (defaulted, ("'defaulted'", "'word'", "Annotated[int, Field(...)]")),
    (dict, ("expected a function", "dict")),
    (3, ("expected a function", "3")),
    (min, ("'min'", "annotated parameters")),
]


@pytest.mark.parametrize(("func", "named"), REFUSED)
def test_what_can_t_be_described_is_refused_by_name(func: Any, named: tuple[str, ...]) -> None:
    manager = ToolManager()
    with pytest.raises(ToolRegistrationError) as caught:
        manager.register_tool(func)
    for each in named:
        assert each in str(caught.value)
    assert manager.get_tools() == []


def yields() -> Iterator[int]:
    yield 1


async def streams() -> AsyncIterator[int]:
    yield 1


class Yields:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("func", [yields, streams, Yields(), functools.partial(yields)])
def test_generators_are_refused(func: Callable[..., object]) -> None:
    with pytest.raises(ToolRegistrationError, match="return a list"):
        ToolManager().register_tool(func)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_limit_that_can_t_be_meant_is_refused(timeout: float) -> None:
    with pytest.raises(ToolRegistrationError, match="'shout', timeout: expected more than 0"):
        ToolManager().register_tool(shout, timeout=timeout)


def test_a_predicate_that_would_have_to_be_awaited_is_refused() -> None:
    async def ask(call: ToolCall) -> bool:
        return True

    with pytest.raises(ToolRegistrationError, match="needs_approval: expected a bool or a plain"):
        ToolManager().register_tool(shout, needs_approval=ask)  # type: ignore[arg-type]


def test_definitions_are_plain_json() -> None:
    def take(number: Annotated[int, Field(ge=Least.ONE)]) -> None: ...

    tools = ToolManager()
    tools.register_tool(take, name=Word("take"), description=Word("Takes it."))
    definition: Any = tools.get_tools()[0]
    assert type(definition["function"]["description"]) is str
    number = definition["function"]["parameters"]["properties"]["number"]
    assert type(number["minimum"]) is int

    def wrong(number: Annotated[int, Field(json_schema_extra=NO_JSON)]) -> None: ...

    with pytest.raises(ToolRegistrationError, match="wrong"):
        tools.register_tool(wrong)


def test_an_object_is_described_by_its_class() -> None:
    class Caller:
        """Calls somebody."""

        def __call__(self, number: int) -> None: ...

    tools = ToolManager()
    tools.register_tool(Caller())
    assert tools.get_tools()[0]["function"]["description"] == "Calls somebody."


@pytest.mark.parametrize("text", ["Do.\n\n:raises\n", "Do it.\n\n:param:", "Do it.\n: x"])
def test_a_docstring_that_trips_the_parser_is_text(text: str) -> None:
    def take() -> None: ...

    take.__doc__ = text
    tools = ToolManager()
    tools.register_tool(take)
    assert tools.get_tools()[0]["function"]["description"].startswith("Do")


async def test_an_annotated_context_is_one_too() -> None:
    def take(
        one: Annotated[ToolContext, "which"], two: Annotated[ToolContext | None, "which"] = None
    ) -> bool:
        return two is one

    tools = ToolManager()
    tools.register_tool(take)
    assert tools.get_tools()[0]["function"]["parameters"]["properties"] == {}
    result = await tools.execute_tool_call(ToolCall(id="c", name="take", arguments="{}"))
    assert result.content == "true"


def test_sessions_share_registrations() -> None:
    manager = ToolManager()
    session = manager.for_session("s")
    assert manager.get_tools() == session.get_tools() == []
    session.register_tool(shout)
    manager.register_tool(by_name)
    names = [[tool["function"]["name"] for tool in each.get_tools()] for each in (manager, session)]
    assert names == [["shout", "by_name"]] * 2

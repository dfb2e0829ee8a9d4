"""A function as a tool: its name, what is said of it, and how it is called."""

from __future__ import annotations

import inspect
import logging
import marshal
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, TypeAlias

from docstring_parser import ParseError, parse

from llmgine.contracts import ToolCall, ToolDefinition
from llmgine.contracts.chat import JsonValue
from llmgine.errors import ToolRegistrationError
from llmgine.settings import ToolSettings
from llmgine.tools.arguments import Arguments, GivenArguments
from llmgine.tools.parameters import parameters_of

__all__ = ["NeedsApproval", "Shared", "Tool", "given", "handed_out", "made", "shared"]

NeedsApproval: TypeAlias = bool | Callable[[ToolCall], bool]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Providers have refused longer ones.
_LONGEST_DESCRIPTION = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A registered function.

    Attributes:
        name: how models call it.
        description: what it does.
        function: the function itself.
        arguments: what it takes.
        needs_approval: whether a person has to agree.
        timeout: its own limit in seconds, if it has one.
        threaded: whether it is a plain function, which might block.
    """

    name: str
    description: str
    function: Callable[..., object]
    arguments: Arguments | GivenArguments
    needs_approval: NeedsApproval
    timeout: float | None
    threaded: bool

    def definition(self, *, strict: bool) -> ToolDefinition:
        """Return what a model is told; a tool that has no strict form says so."""
        closed = self.arguments.closed() if strict else None
        plain: ToolDefinition = {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": closed or self.arguments.schema,
            },
        }
        if strict:
            plain["function"]["strict"] = closed is not None
        return plain

    def bound(
        self, call: ToolCall, session_id: str | None, settings: ToolSettings
    ) -> partial[object]:
        """Return the function with the arguments of a call.

        Raises:
            ToolError: the arguments don't fit.
        """
        positional, named = self.arguments.bind(call, session_id, settings)
        return partial(self.function, *positional, **named)

    def must_ask(self, call: ToolCall) -> bool:
        """Tell whether a person has to agree to a call; where that can't be told, one has to."""
        if isinstance(self.needs_approval, bool):
            return self.needs_approval
        try:
            return bool(self.needs_approval(call))
        except (Exception, SystemExit):
            _log.exception("needs_approval of tool %r failed: a person is asked", self.name)
            return True


def made(
    function: Callable[..., object],
    *,
    name: str | None,
    description: str | None,
    needs_approval: NeedsApproval,
    timeout: float | None,
) -> Tool:
    """Make a tool of a function.

    Raises:
        ToolRegistrationError: it can't be one.
    """
    _check_function(function)
    outer = _named(function)
    if name is None:
        name = outer.__name__ if inspect.isroutine(outer) else type(outer).__name__
    _check_options(name, needs_approval, timeout)
    own = None if inspect.isroutine(outer) else type(outer).__call__.__doc__
    words = _words_of(own or inspect.getdoc(outer))
    # Definitions are JSON: a member of a `StrEnum` becomes its text.
    text = str.__str__(words.text if description is None else description)
    if len(text) > _LONGEST_DESCRIPTION:
        _log.warning("tool %r has a description of %d characters", name, len(text))
    return Tool(
        name=str.__str__(name),
        description=text,
        function=function,
        arguments=Arguments(name, parameters_of(function, name), words.parameters),
        needs_approval=needs_approval,
        timeout=timeout,
        threaded=not inspect.iscoroutinefunction(function),
    )


def given(
    function: Callable[[dict[str, JsonValue]], object],
    *,
    name: str,
    description: str,
    parameters: Mapping[str, object],
    needs_approval: NeedsApproval,
    timeout: float | None,
) -> Tool:
    """Make a tool of a function whose description and schema are there already.

    Raises:
        ToolRegistrationError: it can't be one.
    """
    _check_function(function)
    _check_options(name, needs_approval, timeout)
    return Tool(
        name=name,
        description=description,
        function=function,
        arguments=GivenArguments(name, parameters),
        needs_approval=needs_approval,
        timeout=timeout,
        threaded=not inspect.iscoroutinefunction(function),
    )


def _named(function: Callable[..., object]) -> Callable[..., object]:
    """Return what has the name and the docstring: a function or, failing that, an object."""
    while isinstance(function, partial):
        function = function.func
    # A cache, say, is no function, but knows the one that it keeps results of.
    return inspect.unwrap(function, stop=inspect.isroutine)


def _check_function(function: object) -> None:
    if not callable(function) or inspect.isclass(function):
        raise ToolRegistrationError(f"expected a function as a tool, found {function!r}")
    for each in (function, type(function).__call__):
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise ToolRegistrationError(
                f"tool {function!r}: expected a function that returns its result, found one that "
                "yields; return a list"
            )


def _check_options(name: str, needs_approval: object, timeout: float | None) -> None:
    if not _NAME.fullmatch(name):
        raise ToolRegistrationError(
            f"tool {name!r}: expected a name of 1 to 64 letters, digits, `_` and `-`; give "
            "`name=` another one"
        )
    if timeout is not None and not timeout > 0:
        raise ToolRegistrationError(
            f"tool {name!r}, timeout: expected more than 0 seconds, found {timeout}; "
            "`math.inf` is no limit"
        )
    if inspect.iscoroutinefunction(needs_approval):
        raise ToolRegistrationError(
            f"tool {name!r}, needs_approval: expected a bool or a plain function, found a "
            "coroutine function, whose answer would always be yes"
        )


# Definitions are asked for in every turn: copying them then would take ten times as long as
# handing out what is copied when somebody first looks into it.


class _Uncopied(dict[str, Any]):
    """The inner part of a definition, for all who haven't looked yet."""

    __slots__ = ("packed",)

    packed: bytes


class _Definition(dict[str, Any]):
    """A definition; looking into it makes it the caller's own."""

    __slots__ = ()


Shared: TypeAlias = dict[str, Any]


def shared(definition: ToolDefinition) -> Shared:
    """Return a definition from which copies are made: a plain dict, whose copy takes least."""
    inner = _Uncopied(definition["function"])
    inner.packed = marshal.dumps(dict(inner))
    return {"type": "function", "function": inner}


_copy: Callable[[Shared], Any] = _Definition


def handed_out(definitions: Sequence[Shared]) -> list[ToolDefinition]:
    """Return definitions that their taker may change."""
    return list(map(_copy, definitions))


def _looking(name: str) -> Callable[..., object]:
    method: Callable[..., object] = getattr(dict, name)

    @wraps(method)
    def look(self: _Definition, *arguments: object) -> object:
        plain = super(_Definition, self)
        inner: object = plain.get("function")
        if isinstance(inner, _Uncopied):
            plain.__setitem__("function", marshal.loads(inner.packed))  # noqa: S302 - our own
        return method(self, *arguments)

    return look


# `dict(...)` and `{**...}` look in by themselves, unless `__iter__` is another than dict's own.
for _name in (
    *("__getitem__", "__iter__", "__or__", "__ror__", "copy", "get"),
    *("items", "pop", "popitem", "setdefault", "values"),
):
    setattr(_Definition, _name, _looking(_name))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Words:
    """The parts of a docstring that are of use to a model."""

    text: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def _words_of(docstring: str | None) -> _Words:
    """Read a docstring in the style of Google, NumPy or Sphinx; any other is all text."""
    text = inspect.cleandoc(docstring or "")
    try:
        # The empty line in front lets the parser find a section that stands first.
        found = parse(f"\n{text}")
    except (ParseError, IndexError, ValueError):  # the parser trips over a stray `:raises:`, say
        return _Words(text=text)
    parameters = {
        each.arg_name: " ".join(each.description.split())
        for each in found.params
        if each.description
    }
    return _Words(text=(found.description or "").strip(), parameters=parameters)

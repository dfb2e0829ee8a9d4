"""What a function takes, read from its signature and annotations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, get_type_hints

from llmgine.contracts import ToolCall
from llmgine.errors import ToolRegistrationError

__all__ = ["Parameter", "ToolContext", "parameters_of"]

Function = Callable[..., object]

_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Under which circumstances a tool is called.

    A tool that wants to know has a parameter of this type, of which the model sees nothing:

        async def remember(text: str, context: ToolContext) -> None: ...

    Attributes:
        session_id: the session that the call belongs to, if any.
        call: the call as the model sent it.
    """

    session_id: str | None
    call: ToolCall


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        name: its name.
        annotation: its type, resolved.
        default: its default; `inspect.Parameter.empty` where it has none.
        positional: whether it can be given by position alone.
        injected: whether it takes the `ToolContext`.
    """

    name: str
    annotation: Any
    default: object
    positional: bool
    injected: bool

    @property
    def optional(self) -> bool:
        """Whether the function has a default for it."""
        return self.default is not inspect.Parameter.empty


def _layers(function: Function) -> Iterator[Function]:
    """Yield what a callable is made of, from outside to the function that was written."""
    while True:
        # A bound method hands on its function's attributes, and a partial may have some, too.
        function = inspect.unwrap(
            function, stop=lambda each: isinstance(each, partial | MethodType)
        )
        yield function
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif not inspect.isroutine(function):
            function = type(function).__call__
        else:
            return


def parameters_of(function: Function, name: str) -> list[Parameter]:
    """Return the parameters that have to be filled; what a partial binds by name isn't among them.

    Raises:
        ToolRegistrationError: the signature can't be read, or a parameter can't be described.
    """
    try:
        signature = inspect.signature(function)
        parts = list(_layers(function))
    except (TypeError, ValueError) as error:
        raise ToolRegistrationError(
            f"tool {name!r}: expected a callable with a signature, found none ({error}); wrap it "
            "in a function with annotated parameters"
        ) from error
    bound = {key for part in parts if isinstance(part, partial) for key in part.keywords}
    return [
        _parameter(each, parts[-1], f"tool {name!r}, parameter {each.name!r}")
        for each in signature.parameters.values()
        if each.name not in bound
    ]


def _parameter(found: inspect.Parameter, source: Function, where: str) -> Parameter:
    if found.kind in _MANY:
        raise ToolRegistrationError(
            f"{where}: expected a single parameter, found `{found}`, which a model can't fill; "
            "name each parameter (a decorator keeps them with `functools.wraps`) or take a list "
            "or a dict"
        )
    if found.annotation is inspect.Parameter.empty:
        raise ToolRegistrationError(
            f"{where}: expected an annotation, found none; write `{found.name}: str`, say (for "
            "`self`, register the method of an object)"
        )
    annotation = _resolved(found.annotation, source, where)
    return Parameter(
        name=found.name,
        annotation=annotation,
        default=found.default,
        positional=found.kind is inspect.Parameter.POSITIONAL_ONLY,
        injected=_resolved(found.annotation, source, where, extras=False)
        in (ToolContext, ToolContext | None),
    )


def _resolved(annotation: object, source: Function, where: str, *, extras: bool = True) -> object:
    """Return an annotation without the names in it that are text.

    One by one, so that a return type which exists for type checkers alone is never looked at.
    """

    def only() -> None: ...

    # As one of the function's wrappers it is read in the function's own names.
    update_wrapper(only, source, assigned=("__type_params__",), updated=())
    only.__annotations__ = {"it": annotation}
    own: dict[str, object] | None = None
    if sys.version_info >= (3, 12):
        # Only later releases find the names of type parameters by themselves.
        own = {each.__name__: each for each in only.__type_params__} or None
    try:
        return get_type_hints(only, localns=own, include_extras=extras)["it"]
    except Exception as error:
        raise ToolRegistrationError(
            f"{where}: the annotation {annotation!r} can't be resolved ({error}); import its names "
            "at the top of the module, outside `if TYPE_CHECKING`"
        ) from error

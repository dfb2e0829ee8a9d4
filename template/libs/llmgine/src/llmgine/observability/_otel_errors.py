"""Exceptions as OpenTelemetry takes them."""

from __future__ import annotations

from llmgine.contracts.messages import ErrorInfo
from llmgine.observability import _otel_names as names
from llmgine.observability._guard import Caught, attempt
from llmgine.observability._otel_values import Values, clean

__all__ = ["error_text", "error_type", "error_values"]


def error_text(error: BaseException) -> str:
    """Return what an exception says, which may be nothing."""
    text = attempt(str, error)
    return "" if isinstance(text, Caught) else clean(text)


def error_type(error: BaseException) -> str:
    """Return the name of an exception's class."""
    if isinstance(error, ErrorInfo):
        return clean(error.type)
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def error_values(error: BaseException) -> Values:
    """Return an exception as attributes."""
    info = ErrorInfo.of(error)
    return {
        names.EXCEPTION_TYPE: clean(info.type),
        names.EXCEPTION_MESSAGE: clean(info.message),
        names.EXCEPTION_STACKTRACE: clean(info.traceback),
    }

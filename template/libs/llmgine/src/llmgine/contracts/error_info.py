"""What is left of an exception once it has crossed a process or a file."""

from __future__ import annotations

from traceback import TracebackException

from llmgine.errors import LlmgineError

__all__ = ["ErrorInfo"]

_TRACEBACK_LIMIT = 32 * 1024


class ErrorInfo(LlmgineError):  # noqa: N818 - it describes an error of any class
    """An exception that happened elsewhere, as it is decoded. Equal to another by its fields.

    It is an exception itself, so that fields declared as one hold it, and it can be raised.

    Attributes:
        type: the name of the exception's class, with its module unless that is `builtins`.
        message: its text.
        traceback: as Python prints it; of a very long one the end. Empty if it was never raised.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:  # noqa: A002
        super().__init__(type, message, traceback)
        self.type = type
        self.message = message
        self.traceback = traceback

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Return what can be kept of a live exception."""
        if isinstance(error, ErrorInfo):
            return error
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        # Its text and its traceback are taken the careful way: a broken `__str__` is survived.
        summary = TracebackException.from_exception(error)
        lines = "".join(summary.format()) if error.__traceback__ is not None else ""
        return cls(name, str(summary), lines[-_TRACEBACK_LIMIT:])

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ErrorInfo):
            return NotImplemented
        return self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

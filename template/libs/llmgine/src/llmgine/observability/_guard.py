"""Running foreign code so that nothing of it comes through, and saying so now and then."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from threading import Thread
from typing import Final, TypeVar, TypeVarTuple

from llmgine.observability.redaction import redact_text

__all__ = ["Caught", "SparseLog", "attempt"]

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

_log = logging.getLogger("llmgine.observability")


class Caught:
    """What a call raised, in place of what it would have returned."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: Final = error


def attempt(function: Callable[[*Ts], R], /, *args: *Ts) -> R | Caught:
    """Call a function and return what it returns, or whatever it raises as `Caught`.

    For threads of our own, where neither `SystemExit` nor `KeyboardInterrupt` has a meaning.
    """
    try:
        return function(*args)
    except BaseException as error:
        return Caught(error)


class SparseLog:
    """Warnings about one thing: the first at once, then at most one per interval, with a count.

    Args:
        interval: seconds between two warnings.
    """

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._next = float("-inf")
        self._kept_back = 0
        self._writer: Thread | None = None

    def warn(self, text: str, error: BaseException | None = None) -> None:
        """Write a warning from a thread that may block."""
        if (line := self._admit(text)) is not None:
            _write(line, error)

    def warn_aside(self, text: str, error: BaseException | None = None) -> None:
        """Write a warning from the application's thread, which mustn't wait for the log."""
        if self._writer is not None and self._writer.is_alive():
            return
        if (line := self._admit(text)) is None:
            return
        self._writer = Thread(target=_write, args=(line, error), daemon=True)
        try:
            self._writer.start()
        except RuntimeError:  # no more threads, or the interpreter is on its way out
            self._kept_back += 1

    def _admit(self, text: str) -> str | None:
        now = time.monotonic()
        if now < self._next:
            self._kept_back += 1
            return None
        more = f" ({self._kept_back} more since the last warning)" if self._kept_back else ""
        self._next, self._kept_back = now + self._interval, 0
        return f"{text}{more}"


def _write(line: str, error: BaseException | None) -> None:
    if isinstance(error, OSError):
        line += f": {redact_text(str(error))}"  # which file, and why: all there is to know
    elif error is not None:
        # Not by `exc_info`: what a handler raises may quote a secret.
        line += "\n" + redact_text("".join(traceback.format_exception(error))).rstrip()
    _log.warning("%s", line)

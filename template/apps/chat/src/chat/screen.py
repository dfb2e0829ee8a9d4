"""The terminal: answers on stdout, everything else on stderr, and neither tears the other."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from threading import Lock
from typing import TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["MARKS", "EventLines", "Screen", "decoded", "in_line", "lasting", "printable"]

MARKS = {"ok": ("✔", "green"), "error": ("✘", "red"), "cancelled": ("⊘", "yellow")}
"""How something went: a sign, and its colour."""

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"

_TAB, _NEWLINE, _RETURN, _DELETE = 0x09, 0x0A, 0x0D, 0x7F
_PICTURES = 0x2400

# What a terminal would obey becomes what it shows: the Unicode pictures of control characters.
_SHOWN: dict[int, int | None] = {
    **{code: _PICTURES + code for code in range(0x20) if code not in (_TAB, _NEWLINE)},
    _RETURN: None,
    _DELETE: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # Overrides of the writing direction can make a line read as another.
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], None),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}


class EventLines(io.TextIOBase):
    """A stand-in for stderr: its lines never tear an answer, and are dimmer than one.

    Handlers of events write to stderr from threads of their own, at any time. At a terminal,
    what they write during an answer is shown below it; elsewhere it's passed on at once.

    Args:
        stream: where the lines go; nowhere if stderr is closed.

    Attributes:
        shown: whether lines are shown at all.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._lock = Lock()
        self._holding = False
        self._held: list[str] = []
        self._terminal = stream is not None and stream.isatty()
        self.shown = True

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoding of the stream behind."""
        return self._stream.encoding if self._stream is not None else "utf-8"

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self._terminal

    def writable(self) -> bool:
        """Text can be written."""
        return True

    def write(self, text: str, /) -> int:
        """Write, or keep for later."""
        with self._lock:
            if self._holding:
                self._held.append(text)
            else:
                self._pass_on(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: lines are passed on at once, or held."""

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Keep lines back in the block, and pass them on at its end."""
        with self._lock:
            self._holding = self._terminal
        try:
            yield
        finally:
            with self._lock:
                self._holding = False
                self._pass_on("".join(self._held))
                self._held.clear()

    @contextmanager
    def above_prompt(self) -> Generator[None, None, None]:
        """Have prompt-toolkit put lines above its prompt in the block."""
        # A question from a pipe needs no prompt, and shouldn't wait for this to be imported.
        from prompt_toolkit.patch_stdout import patch_stdout

        behind = self._stream
        with patch_stdout(raw=True):
            with self._lock:
                self._stream = sys.stdout
            try:
                yield
            finally:
                with self._lock:
                    self._stream = behind

    def _pass_on(self, text: str) -> None:
        if self._stream is None or not text or not self.shown:
            return
        if _PLAIN in text:
            # Its writer uses colours: whatever goes back to plain goes back to dim instead.
            text = f"{_DIM}{text.replace(_PLAIN, _PLAIN + _DIM)}{_PLAIN}"
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # nobody reads there any more


class Screen:
    """Writes answers as they come, and remarks beside them.

    Attributes:
        events: what stands in for stderr.
        remarks: rich's view of stderr.
        broken: nobody reads the answers any more.
    """

    def __init__(self) -> None:
        # Without a standard output, which a shell can close, there is nothing to write to.
        self._out = sys.stdout or io.TextIOWrapper(io.BytesIO())
        self.events = EventLines(sys.stderr)
        self.remarks = Console(file=sys.stderr or io.StringIO(), highlight=False)
        self.broken = not sys.stdout
        self._open_line = False
        self._kept: list[Text] | None = None

    @contextmanager
    def in_charge(self) -> Generator[None, None, None]:
        """Stand in for stderr in the block."""
        with redirect_stderr(self.events):
            yield

    def write(self, text: str) -> None:
        """Write a piece of an answer."""
        shown = printable(text)
        if self.broken or not shown:
            return
        try:
            self._out.write(shown)
            self._out.flush()
        except (OSError, ValueError):
            self._give_up()
            return
        self._open_line = not shown.endswith("\n")

    def end_answer(self) -> None:
        """Let what comes next begin on a line of its own."""
        if self._open_line:
            self.write("\n")

    def _give_up(self) -> None:
        """Nobody reads any more; what lies in the buffer mustn't fail once more at exit."""
        self.broken = True
        if not self._out.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())
            os.close(nowhere)

    def remark(self, text: str, style: str = "dim") -> None:
        """Say something that is no answer."""
        self.line(Text(printable(text), style=style))

    def line(self, text: Text) -> None:
        """Show a line that is no answer; at a terminal, one without wrap is cut to its width."""
        if self._kept is not None:
            self._kept.append(text)
            return
        self.end_answer()
        if self.remarks.is_terminal:
            self.remarks.print(text, no_wrap=text.no_wrap, overflow=text.overflow)
        else:
            self.remarks.print(text, soft_wrap=True)

    @contextmanager
    def asking(self) -> Generator[None, None, None]:
        """Keep lines back while a question stands on the screen, and show them afterwards."""
        kept = self._kept = []
        try:
            yield
        finally:
            self._kept = None
            for text in kept:
                self.line(text)


def printable(text: str) -> str:
    """Return text that can do nothing to a terminal but fill it."""
    return text.translate(_SHOWN)


def in_line(text: str) -> str:
    """Return text that fills a single line, and does nothing else."""
    return " ".join(printable(text).split())


def lasting(seconds: float) -> str:
    """Return a duration in few characters."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def decoded(text: str) -> str:
    """Return what was typed, with a mark in place of each byte that is no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

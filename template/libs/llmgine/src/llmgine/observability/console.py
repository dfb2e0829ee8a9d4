"""The console: one aligned line for every event, on standard error.

    14:03:07.412  7f3a  v CommandResultEvent ChatCommand       1.84s
    14:03:07.413  7f3a  | v LLMCallResultEvent gpt-x           1.21s  in 812 out 164  stop
    14:03:07.414  7f3a  | x ToolExecuteResultEvent weather      38ms  ValueError: no city  a.py:41

From the left: local time, the end of the session's id, bars for depth, a mark for how it went, the
event's type and what it is about, the duration, and what else there is to know of its kind.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from shutil import get_terminal_size
from typing import TextIO, TypeAlias, get_args
from unicodedata import east_asian_width
from zlib import crc32

from llmgine.contracts.messages import Event
from llmgine.observability._guard import Caught, attempt
from llmgine.observability.description import Description, Mark, describe, duration_text
from llmgine.observability.handler import ObservabilityEventHandler
from llmgine.observability.redaction import redact_text
from llmgine.settings import ConsoleSettings

__all__ = ["ConsoleEventHandler", "Stream", "build"]

Stream: TypeAlias = TextIO | Callable[[], TextIO | None]
"""Where lines go: a stream, or a function that says which, asked anew for each line."""

_LABEL_WIDTH, _NARROW_LABEL = 46, 34
_WIDE = 110
_DURATION_WIDTH = 8
_MAX_TEXT = 160
_MAX_READ = 4096
_MAX_BARS = 12
_MAX_KNOWN = 4096
_STILL_RUNNING = 2.0
_SLOW, _VERY_SLOW = 1.0, 10.0
_RESET, _DIM, _RED, _GREEN, _YELLOW, _CYAN = (f"\x1b[{code}m" for code in (0, 2, 31, 32, 33, 36))
_SESSION_COLOURS = tuple(f"\x1b[{code}m" for code in (34, 35, 36, 94, 95, 96))
# One character for each `Mark`, in their order.
_MARKS, _ASCII_MARKS = "✔✘⊘•▸…", "vx-.>~"
_MARK_COLOURS = {"ok": _GREEN, "failed": _RED, "cancelled": _YELLOW, "running": _YELLOW}


class ConsoleEventHandler(ObservabilityEventHandler):
    """Prints a line for every event.

    With `fold` on, the event that starts something waits for the one that ends it, and both are
    one line; what still runs after two seconds, or at the end, gets a line of its own.

    Args:
        settings: what is shown.
        stream: where to; by default `sys.stderr`, as it is when the line is written.
    """

    on_terminal = True

    def __init__(
        self, settings: ConsoleSettings | None = None, stream: Stream | None = None
    ) -> None:
        self._settings = settings or ConsoleSettings()
        self._target: Callable[[], TextIO | None]
        if stream is None:
            self._target = lambda: sys.stderr
        else:
            self._target = stream if callable(stream) else lambda: stream
        self._style = _Style(colour=False, unicode=False)
        self._styled_for: TextIO | None = None
        self._depths: dict[str, int] = {}
        self._waiting: dict[str, tuple[Event, Description]] = {}

    def start(self) -> None:
        """Forget what a parent process has seen start."""
        self._waiting.clear()

    def handle(self, event: Event) -> None:
        """Print a line, unless the event waits for its other half.

        Raises:
            OSError: the stream takes no more.
            ValueError: the stream is closed.
        """
        if self._waiting:
            self._print_running(time.time() - _STILL_RUNNING)
        about = describe(event)
        self._remember_depth(event, about)
        if self._settings.fold and about.starts:
            self._waiting[about.starts] = (event, about)
            if len(self._waiting) > _MAX_KNOWN:
                self._print_running(float("inf"))
            return
        self._waiting.pop(about.ends, None)
        self._print(event, about)

    def stop(self, timeout: float) -> None:
        """Print what never came to an end."""
        del timeout
        self._print_running(float("inf"))

    def _print_running(self, since: float) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            event, about = self._waiting[key]
            if event.timestamp > since:
                break
            del self._waiting[key]
            about.mark = "running"
            self._print(event, about)

    def _remember_depth(self, event: Event, about: Description) -> None:
        depths = self._depths
        if about.ends in depths:
            depth = depths[about.ends]
        else:
            depth = depths.get(event.parent_id or "", -1) + 1
        if len(depths) > _MAX_KNOWN:
            self._depths = depths = dict(islice(depths.items(), _MAX_KNOWN // 2, None))
        depths[event.id] = depth
        if about.starts:
            depths[about.starts] = depth

    def _print(self, event: Event, about: Description) -> None:
        stream = self._target()
        if stream is None:
            raise BrokenPipeError("there is no standard error")
        if stream is not self._styled_for:
            self._style = _style_for(stream, self._settings)
            self._styled_for = stream
        depth = self._depths.get(event.id, 0)
        line = self._style.line(event, about, depth, content=self._settings.content)
        stream.write(f"{line}\n")
        stream.flush()


def build(settings: ConsoleSettings) -> ConsoleEventHandler:
    """Make the handler from its settings."""
    return ConsoleEventHandler(settings)


class _Style:
    """How lines look on one stream."""

    def __init__(
        self, *, colour: bool, unicode: bool, encoding: str = "ascii", label: int = _LABEL_WIDTH
    ) -> None:
        self._colour = colour
        self._dim, self._reset = (_DIM, _RESET) if colour else ("", "")
        self._label = label
        self._unicode = unicode
        self._encoding = encoding
        self._bar = "│ " if unicode else "| "
        marks = zip(get_args(Mark), _MARKS if unicode else _ASCII_MARKS, strict=True)
        self._marks = {
            kind: self._coloured(_MARK_COLOURS.get(kind, ""), mark) for kind, mark in marks
        }

    def line(self, event: Event, about: Description, depth: int, *, content: bool) -> str:
        """Return an event's line, without its end."""
        dim, reset = self._dim, self._reset
        bars = self._bar * min(depth, _MAX_BARS)
        name = type(event).__name__
        label = _clean_often(f"{name} {about.subject}" if about.subject else name)
        room = " " * (self._label - len(bars) - 2 - _width(label))
        line = (
            f"{dim}{_clock(event.timestamp)}{reset}  {self._session(event.session_id)}  "
            f"{dim}{bars}{reset}{self._marks[about.mark]} {label}{room}"
            f"{self._duration(about.duration)}{self._tail(about, content=content)}"
        ).rstrip()
        if self._unicode:
            return line
        return line.encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _session(self, session_id: str | None) -> str:
        if not session_id:
            return f"{self._dim}-   {self._reset}"
        shown = f"{_clean_often(session_id)[-4:]:4}"
        if not self._colour:
            return shown
        number = crc32(session_id.encode(errors="replace"))
        return self._coloured(_SESSION_COLOURS[number % len(_SESSION_COLOURS)], shown)

    def _duration(self, seconds: float | None) -> str:
        if seconds is None:
            return " " * _DURATION_WIDTH
        shown = f"{duration_text(seconds):>{_DURATION_WIDTH}}"
        if seconds < _SLOW:
            return shown
        return self._coloured(_RED if seconds >= _VERY_SLOW else _YELLOW, shown)

    def _tail(self, about: Description, *, content: bool) -> str:
        tail = f"  {_clean(about.facts)}" if about.facts else ""
        if about.error is not None:
            tail += f"  {self._coloured(_RED, _error(about.error))}"
        if content and about.content:
            tail += f"  {_clean(about.content)}"
        return tail

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour else text


def _style_for(stream: TextIO, settings: ConsoleSettings) -> _Style:
    encoding, terminal = stream.encoding or "utf-8", stream.isatty()
    narrow = terminal and get_terminal_size().columns < _WIDE
    return _Style(
        colour=_wants_colour(terminal)
        if settings.colour == "auto"
        else settings.colour == "always",
        unicode=encoding.lower().startswith("utf"),
        encoding=encoding,
        label=_NARROW_LABEL if narrow else _LABEL_WIDTH,
    )


def _wants_colour(terminal: bool) -> bool:
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# Texts and numbers as they are shown


def _clean(text: str) -> str:
    """Return a text on one line, short, without secrets and without control characters."""
    text = redact_text(text[:_MAX_READ])
    if len(text) > _MAX_TEXT:
        text = f"{text[: _MAX_TEXT - 3]}..."
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


# The same names and sessions come again and again.
_clean_often = lru_cache(maxsize=1024)(_clean)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def _clock(timestamp: float) -> str:
    try:
        return f"{_clock_second(int(timestamp // 1))}.{int(timestamp % 1 * 1000):03d}"
    except (ValueError, OverflowError, OSError, TypeError):
        return "--:--:--.---"


@lru_cache(maxsize=64)
def _clock_second(seconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _error(error: BaseException) -> str:
    text = attempt(str, error)
    kind = type(error).__name__
    shown = kind if isinstance(text, Caught) or not text else f"{kind}: {text}"
    # Apart, so that a long text doesn't push the place out.
    return f"{_clean(shown)}  {_clean(_place(error))}".rstrip()


_NOT_OURS = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame, better one outside of libraries."""
    place = ours = ""
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        place = f"{file}:{traceback.tb_lineno}"
        if not file.startswith(_NOT_OURS):
            ours = place
        traceback = traceback.tb_next
    return (ours or place).removeprefix(f"{Path.cwd()}{os.sep}")

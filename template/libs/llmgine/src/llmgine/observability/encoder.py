"""Events as single lines of strict JSON, quickly."""

from __future__ import annotations

from collections.abc import Callable

from llmgine.contracts.messages import Event
from llmgine.observability._guard import Caught, attempt
from llmgine.observability._quick import QuickWalk
from llmgine.observability.record import stub, to_record

__all__ = ["EventEncoder"]

_LONGEST_LINE = 1024 * 1024
_LINE_BREAKS = (("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"), ("\x85", b"\\u0085"))


class EventEncoder:
    """Turns events into lines.

    Most events hold nothing unusual. They take one quick pass, one search for what secrets begin
    with, and the encoder; only where that fails or finds something does `to_record` do the work.

    Args:
        dumps: the encoder; refuses what isn't strict JSON.
        content: whether content is written.
    """

    def __init__(self, dumps: Callable[[object], bytes], *, content: bool) -> None:
        self._dumps = dumps
        self._content = content
        self._walk = QuickWalk(dumps, content=content)

    def encode(self, event: Event) -> bytes:
        """Return an event as one line, without its end. It never raises.

        One thread at a time may call it.
        """
        line = attempt(self._walk.line, event)
        if isinstance(line, Caught) or len(line) > _LONGEST_LINE or self._walk.found_secret():
            line = self._encode_carefully(event)
        return line if line.isascii() else _one_line(line)

    def _encode_carefully(self, event: Event) -> bytes:
        line = attempt(self._dumps, to_record(event, content=self._content))
        return self._dumps(stub(event, line.error)) if isinstance(line, Caught) else line


def _one_line(line: bytes) -> bytes:
    # Many readers split at these as well.
    for character, escape in _LINE_BREAKS:
        line = line.replace(character.encode(), escape)
    return line

"""Dead letters in a file, one JSON object a line, where they outlive the process."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from llmgine.contracts.codec import decode, encode, register
from llmgine.contracts.messages import ErrorInfo, Message
from llmgine.errors import CodecError

__all__ = ["DeadLetter", "DeadLetterFile"]

_log = logging.getLogger(__name__)


@register
@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message that has failed for good.

    Attributes:
        message: the command or the event.
        error: what it failed with.
        handler: the name of the handler that failed at an event; empty for a command.
        failed_at: when, in Unix seconds (UTC).
        replays: how often it had been sent again before.
    """

    message: Message
    error: ErrorInfo
    handler: str = ""
    failed_at: float = field(default_factory=time.time)
    replays: int = 0


class DeadLetterFile:
    """A file that letters are added to, for their owner's eyes only.

        DeadLetters(sink=DeadLetterFile(Path("letters.jsonl")))
        letters = DeadLetterFile(Path("letters.jsonl")).letters()

    It takes messages whose classes the codec knows: `llmgine.contracts.codec.register`. Nothing is
    ever taken out of it; move it away before its letters are sent again.

    Args:
        path: the file; its folder is made on first use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, letter: DeadLetter) -> None:
        """Add a letter, in a single write.

        Raises:
            CodecError: the codec doesn't know the message's class.
            OSError: the file can't be written, or not to its end.
        """
        line = encode(letter) + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab+", buffering=0, opener=_private) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line  # a line that a crash has torn ends here
            written = file.write(line)
        if written != len(line):
            raise OSError(f"{self._path}: no room for a letter of {len(line)} bytes")

    def letters(self) -> list[DeadLetter]:
        """Return the letters, the oldest first; a line that can't be read is logged and left out.

        Raises:
            OSError: the file can't be read.
        """
        found: list[DeadLetter] = []
        for number, line in enumerate(self._path.read_bytes().splitlines(), 1):
            try:
                found.append(decode(line, DeadLetter))
            except CodecError as error:
                _log.warning("%s, line %d is no dead letter: %s", self._path, number, error)
        return found


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

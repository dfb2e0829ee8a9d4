"""The event file: the full data of every event, one JSON object a line.

    {"event_type": "LogEvent", "timestamp": "2026-01-31T12:00:00.000000Z", "session_id": ...}

Several processes may write to one file. Each line is a single append, so lines never mix. Who
finds the file full renames it to `<name>.1`, the older ones to `.2` and so on; the others notice
within `_CHECK_SECONDS` and open the new one.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from errno import ENOSPC
from io import BufferedReader
from itertools import chain
from math import inf
from pathlib import Path
from time import monotonic, sleep

from llmgine.contracts.chat import JsonValue
from llmgine.contracts.messages import Event
from llmgine.errors import ConfigurationError
from llmgine.observability._guard import SparseLog
from llmgine.observability.encoder import EventEncoder
from llmgine.observability.handler import ObservabilityEventHandler
from llmgine.settings import FileSettings

if sys.platform != "win32":
    import fcntl

__all__ = ["FileEventHandler", "build", "read_events"]

_CHECK_SECONDS = 0.05
_LOOKS = 5
_LOOK_SECONDS = 0.002
_MAX_GAP = 1
_START = b'{"event_type":'
_FLAGS = os.O_APPEND | os.O_CREAT | os.O_RDWR
if sys.platform == "win32":
    _FLAGS |= os.O_BINARY


class FileEventHandler(ObservabilityEventHandler):
    """Appends every event to a file that only its owner can read.

    A disk that is full, or a file that can't be opened, costs the events of that time: the client
    counts them and warns now and then. Writing goes on as soon as it works again, on a new line.

    Args:
        settings: where the file is, when it is rotated, and whether content is written.
    """

    def __init__(self, settings: FileSettings | None = None) -> None:
        self._settings = settings or FileSettings()
        self._encoder = EventEncoder(_fastest_dumps(), content=self._settings.content)
        self._file = _SharedFile(self._settings)

    @property
    def path(self) -> Path:
        """The file that is written at present."""
        return self._settings.path

    def start(self) -> None:
        """Open the file; a forked process mustn't share its parent's."""
        self._file.close()
        self._file.open()

    def handle(self, event: Event) -> None:
        """Append one line.

        Raises:
            OSError: it can't be written.
        """
        self._file.append(self._encoder.encode(event) + b"\n")

    def stop(self, timeout: float) -> None:
        """Close the file."""
        del timeout
        self._file.close()


def build(settings: FileSettings) -> FileEventHandler:
    """Make the handler from its settings.

    Raises:
        ConfigurationError: the path is a folder's.
    """
    if settings.path.is_dir():
        raise ConfigurationError(f"file.path: expected a file, found the folder {settings.path}")
    return FileEventHandler(settings)


class _SharedFile:
    """A file that several processes append to and rotate."""

    def __init__(self, settings: FileSettings) -> None:
        self._path = settings.path
        self._rotate_at = settings.max_bytes or inf
        self._max_bytes = inf
        self._backups = settings.backups
        self._descriptor: int | None = None
        self._is_regular = True
        self._size = 0
        self._torn = False  # whether the file ends in the middle of a line
        self._log = SparseLog()
        self._check_at = 0.0

    def open(self) -> int:
        """Open the file, and make its folder if that is missing.

        Raises:
            OSError: as the system says.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = self._descriptor = os.open(self._path, _FLAGS, 0o600)
        self._is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._max_bytes = self._rotate_at if self._is_regular else inf
        self._inspect(descriptor)
        return descriptor

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def append(self, line: bytes) -> None:
        """Write a line in one piece, at the end of the file that now has the name.

        Raises:
            OSError: it couldn't be written, or not whole; the next one begins on a line of its own.
        """
        try:
            descriptor = self._ready(len(line))
            whole = b"\n" + line if self._torn else line
            written = os.write(descriptor, whole)
        except OSError as error:
            self.close()  # to open and to inspect it anew, whatever has happened
            error.filename = error.filename or str(self._path)
            raise
        self._size += written
        self._torn = written < len(whole)
        if self._torn:
            self.close()
            raise OSError(ENOSPC, "half a line was written", str(self._path))

    def _ready(self, length: int) -> int:
        """Return the descriptor of a file that has the name, and room."""
        full = self._size + length > self._max_bytes
        if self._descriptor is None or full or monotonic() >= self._check_at:
            return self._prepare(length)
        return self._descriptor

    def _prepare(self, length: int) -> int:
        descriptor = self.open() if self._descriptor is None else self._current(self._descriptor)
        if self._size + length > self._max_bytes:
            return self._make_room(descriptor)
        return descriptor

    def _current(self, descriptor: int) -> int:
        """Return the descriptor of the file that now has the name; another process may rotate."""
        if self._is_regular and not self._has_name(descriptor):
            self.close()
            return self.open()
        self._inspect(descriptor)
        return descriptor

    def _has_name(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _inspect(self, descriptor: int) -> None:
        self._check_at = monotonic() + _CHECK_SECONDS
        if not self._is_regular:
            return
        # A process that was killed, or met a full disk, may have left half a line; what is only
        # being written at this moment is whole at another look.
        if self._torn and os.fstat(descriptor).st_size == self._size:
            return  # as this process left it
        for _ in range(_LOOKS):
            self._size = os.lseek(descriptor, 0, os.SEEK_END)
            self._torn = _is_torn(descriptor, self._size)
            if not self._torn:
                return
            sleep(_LOOK_SECONDS)

    def _make_room(self, descriptor: int) -> int:
        """Rotate the files, unless another process has just done so."""
        try:
            with _locked(descriptor):
                if self._has_name(descriptor):
                    if os.fstat(descriptor).st_size == 0:
                        return descriptor  # a single line may be longer than a whole file
                    self._shift()
        except OSError as error:
            # Better a file that is too long than lost events.
            self._log.warn(f"{self._path} can't be rotated", error)
            return descriptor
        self.close()
        return self.open()

    def _shift(self) -> None:
        if self._backups == 0:
            self._path.unlink()
            return
        oldest = 1
        while oldest < self._backups and _backup(self._path, oldest).exists():
            oldest += 1
        for number in range(oldest, 0, -1):
            _backup(self._path, number - 1).replace(_backup(self._path, number))


@contextmanager
def _locked(descriptor: int) -> Generator[None]:
    # The lock is on the old file itself: whoever has waited for it finds the name elsewhere.
    if sys.platform == "win32":
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_torn(descriptor: int, size: int) -> bool:
    if size == 0:
        return False
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) != b"\n"


def _backup(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _fastest_dumps() -> Callable[[object], bytes]:
    try:
        import orjson
    except ImportError:
        encode = json.JSONEncoder(
            allow_nan=False, check_circular=False, ensure_ascii=False, separators=(",", ":")
        ).encode
        return lambda value: encode(value).encode()
    return orjson.dumps


def read_events(path: Path, session_id: str | None = None) -> Iterator[dict[str, JsonValue]]:
    """Read the records of an event file and its rotated ones, oldest file first.

    Lines that are no records, such as one torn by a crash, are left out.

    Args:
        path: the file that is written at present.
        session_id: only this session's records.

    Raises:
        OSError: a file is there but can't be read.
    """
    needle = _needle(session_id)
    with ExitStack() as opened:
        for line in chain.from_iterable(_open_all(path, opened)):
            record = _parsed(line) if needle in line else None
            if record is not None and session_id in (None, record.get("session_id")):
                yield record


def _needle(session_id: str | None) -> bytes:
    """Return what no line of a session lacks."""
    if session_id is None or not session_id.isascii() or not session_id.isprintable():
        return b""
    return json.dumps(session_id).encode()


def _open_all(path: Path, opened: ExitStack) -> list[BufferedReader]:
    # Newest first: a rotation in between shows the same file twice, but hides none.
    found: dict[tuple[int, int], BufferedReader] = {}
    number = missing = 0
    while missing <= _MAX_GAP:
        try:
            file = opened.enter_context(_backup(path, number).open("rb"))
        except FileNotFoundError:
            missing += 1
        else:
            missing = 0
            status = os.fstat(file.fileno())
            found.setdefault((status.st_dev, status.st_ino), file)
        number += 1
    return list(found.values())[::-1]


def _parsed(line: bytes) -> dict[str, JsonValue] | None:
    # A whole record may stand behind half a line that another process couldn't end.
    start = line.find(_START)
    while start >= 0:
        try:
            return json.loads(line[start:])
        except (ValueError, RecursionError):
            start = line.find(_START, start + 1)
    return None

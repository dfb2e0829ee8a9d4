"""Standard input and output as streams that can be ended.

A read from standard input can't be called off, nor a write to a client that doesn't read: a server
that waits for either would never end by a signal. So threads read and write, and hand on through
sockets, which can be closed. Meanwhile the descriptor 0 is empty and 1 is standard error: what a
tool prints, or a program that it starts, must not mix with the client's words or ours.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import anyio

__all__ = ["StandardInput", "StandardOutput"]

_CHUNK = 64 * 1024


class StandardInput:
    """What the client says, until it has no more to say or `end` is called.

    Attributes:
        stream: its lines.
    """

    def __init__(self) -> None:
        self._writing, reading = socket.socketpair()
        with reading:
            file = reading.makefile(encoding="utf-8", errors="replace")
        self.stream = anyio.wrap_file(file)
        source = os.dup(0)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        Thread(target=self._hand_on, args=(source,), daemon=True).start()

    def end(self) -> None:
        """Let the stream end."""
        try:
            self._writing.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has ended already

    def _hand_on(self, source: int) -> None:
        try:
            while data := os.read(source, _CHUNK):
                self._writing.sendall(data)
        except OSError:
            return  # nobody listens any more
        finally:
            self.end()


class StandardOutput:
    """What the client is told, until `cut`.

    Attributes:
        stream: takes the lines.
    """

    def __init__(self) -> None:
        self._writing, self._reading = socket.socketpair()
        self.stream = anyio.wrap_file(self._writing.makefile("w", encoding="utf-8", newline=""))
        target = os.dup(1)
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(2 if sys.stderr else nothing.fileno(), 1)
        self._thread = Thread(target=self._hand_on, args=(target,), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Let writes that wait for the client fail."""
        self._writing.shutdown(socket.SHUT_RDWR)

    def finish(self, seconds: float) -> None:
        """Wait, so long at most, until the client has read what was written."""
        with suppress(OSError):
            self._writing.shutdown(socket.SHUT_WR)
        self._thread.join(seconds)

    def _hand_on(self, target: int) -> None:
        try:
            with self._reading, os.fdopen(target, "wb", buffering=0, closefd=False) as client:
                while data := self._reading.recv(_CHUNK):
                    while data:
                        data = data[client.write(data) :]
        except OSError:
            return  # the client has gone; the socket's end tells

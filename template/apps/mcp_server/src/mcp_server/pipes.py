"""Standard input as a stream that can be ended.

A read from standard input can't be called off: a server that waits for its client's next word
would never end by a signal. So a thread reads, and hands on through a socket, which can be closed.
Meanwhile the descriptor 0 is empty: a program that a tool starts must not take the client's words.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Thread

import anyio

__all__ = ["StandardInput"]

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

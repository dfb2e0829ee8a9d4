"""The API as a process on loopback for a browser to visit, and a connection that can be cut."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

__all__ = ["Proxy", "Server", "serving"]

# Answers of all kinds, good and evil, by what the user says.
_PROVIDER = """
from llmgine.contracts import ChatMessage, ThinkingPart, ToolCall
from llmgine.errors import AuthenticationError, RateLimitError
from llmgine.providers.scripted import ScriptedProvider
from llmgine.providers.scripted_answers import answer

LONG = " ".join(f"word{number}" for number in range(400)) + " end."


def step(request):
    last = request.messages[-1]
    text = last.text
    if text.startswith("say:"):
        return text.removeprefix("say:")
    if text == "long":
        return LONG
    if text == "longer":
        return LONG * 4
    if text == "think":
        return ChatMessage.assistant(ThinkingPart(text="Hm, let me see."), "Thought about it.")
    if text == "no key":
        return AuthenticationError("The key was refused.", provider="theirs")
    if text == "too fast":
        return RateLimitError("Slow down.", provider="theirs")
    if text.startswith("call:"):
        name, arguments = text.removeprefix("call:").split("|", 1)
        number = len(request.messages)
        return ChatMessage.assistant(ToolCall(id=f"call-{number}", name=name, arguments=arguments))
    return answer(request)


def build(config):
    return ScriptedProvider([step] * 10_000, delay=0.01)
"""
_LISTENING = re.compile(r"listening on (http://\S+:(\d+))")


class Server:
    """The program `api`, which can be ended and started again at the same address.

    Args:
        folder: where it runs.
        variables: its settings.

    Attributes:
        url: where it listens.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        kept = {name: it for name, it in os.environ.items() if not name.startswith("LLMGINE_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        self._environment = {**kept, **variables}
        self._folder = folder
        self._port = "0"
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "api.cli", "--port", self._port],
            cwd=self._folder,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            if found := _LISTENING.match(line):
                self.url, self._port = found[1], found[2]
                break
        else:
            raise AssertionError("".join(said))
        # It must never wait for somebody to read what it says.
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End it, and wait for that."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            assert self._process.stderr is not None
            self._process.stderr.close()


@contextmanager
def serving(folder: Path, **settings: str) -> Generator[Server]:
    """Run the API in a folder, with answers as above unless the settings name a provider.

    Args:
        folder: where it runs.
        settings: such as `api__key`, as the environment names them.
    """
    (folder / "theirs.py").write_text(_PROVIDER, "utf-8")
    given = {"provider__name": "theirs:build", "console__enabled": "false", **settings}
    server = Server(folder, **{f"LLMGINE_{name.upper()}": it for name, it in given.items()})
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Proxy:
    """A connection to a server, which can be cut and mended.

    Args:
        url: the server's.

    Attributes:
        url: its own.
    """

    def __init__(self, url: str) -> None:
        self._target = int(url.rpartition(":")[2])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        """Listen."""
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join(10)
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        """End all connections, and refuse further ones."""
        self._whole.clear()
        for each in (end for pair in self._pairs for end in pair):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        self._whole.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if not self._whole.is_set():
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, server))
                thread = threading.Thread(target=_join, args=(client, server))
                self._threads.append(thread)
                thread.start()


def _join(client: socket.socket, server: socket.socket) -> None:
    """Pass on what either says, until one has no more to say."""
    other = {client: server, server: client}
    with client, server, suppress(OSError):
        while True:
            for each in select.select([client, server], [], [])[0]:
                data = each.recv(65536)
                if not data:
                    return
                other[each].sendall(data)

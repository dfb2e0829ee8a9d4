"""Ways to an MCP server: a program of our own, or an address."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import TextIO

import httpx2
from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from llmgine.errors import ConfigurationError
from llmgine.settings import McpServerSettings
from llmgine.tools.mcp.streams import Watched, Writing

__all__ = ["LastWords", "opened", "program"]

# A picture in base64, say; the SDK's own limit is 1 MiB.
_LONGEST_EVENT = 32 * 1024 * 1024
_SESSION = "mcp-session-id"
_KEPT_LINES = 3
_LONGEST_LINE = 300
_LAST_LINES_WAIT = 0.5
_FAREWELL_WAIT = 2.0

_log = logging.getLogger(__name__)


class LastWords:
    """What a server said last beside the protocol, for whoever has to find out why it failed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def __str__(self) -> str:
        return " / ".join(self._lines)

    def add(self, line: str) -> None:
        """Log a line, and keep it for a while."""
        if line := "".join(each for each in line if each.isprintable())[:_LONGEST_LINE].strip():
            _log.info("MCP server %r: %s", self._name, line)
            self._lines.append(line)

    def no_message(self, error: Exception) -> None:
        """Note what came where only messages of the protocol belong."""
        faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        self.add(f"(no message) {faults[0]['input'] if faults else error}")

    @asynccontextmanager
    async def heard(self) -> AsyncGenerator[TextIO, None]:
        """Give a program's standard error: its lines come here, and don't tear the terminal."""
        reading, writing = os.pipe()
        thread = Thread(target=self._read, args=(reading,), daemon=True)
        thread.start()
        try:
            with os.fdopen(writing, "w") as stream:
                yield stream
        finally:
            await asyncio.to_thread(thread.join, _LAST_LINES_WAIT)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self.add(line)


def program(
    name: str, settings: McpServerSettings, folder: Path, variables: Mapping[str, str]
) -> StdioServerParameters:
    """Return how a server's program is run.

    Raises:
        ConfigurationError: a variable that it is to be passed isn't there.
    """
    known = {**variables, **os.environ}
    if missing := [each for each in settings.pass_env if each not in known]:
        raise ConfigurationError(
            f"mcp.servers.{name}.pass_env: expected the variable {missing[0]} in the environment "
            "or in .env, found none"
        )
    passed = {each: known[each] for each in settings.pass_env}
    return StdioServerParameters(
        command=settings.command,
        args=settings.args,
        env={**passed, **settings.env},
        cwd=folder / settings.folder,
    )


@asynccontextmanager
async def opened(
    server: StdioServerParameters | McpServerSettings, words: LastWords, ended: Callable[[], None]
) -> AsyncGenerator[tuple[Watched, Writing], None]:
    """Open the way to a server: start its program, or make ready to ask its address.

    Args:
        server: how it is run, or the settings with its address.
        words: told what it says beside the protocol.
        ended: called when nothing more will come from it.
    """
    async with AsyncExitStack() as stack:
        if isinstance(server, StdioServerParameters):
            logging.getLogger("mcp.client.stdio").addFilter(_is_news)
            errors = await stack.enter_async_context(words.heard())
            transport = stdio_client(server, errlog=errors)
        else:
            # A name and a password go into a header: the address stands in logs.
            address = httpx2.URL(server.url)
            login = (address.username, address.password) if address.userinfo else None
            client = await stack.enter_async_context(_http_client(server, words, login))
            transport = streamable_http_client(
                str(address.copy_with(userinfo=b"")),
                http_client=client,
                max_sse_event_size=_LONGEST_EVENT,
            )
        reading, writing = await stack.enter_async_context(transport)
        yield Watched(reading, ended, words.no_message), writing


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out the SDK's traceback for each line that is no message: `LastWords` has the line."""
    return not record.getMessage().startswith("Failed to parse")


def _http_client(
    settings: McpServerSettings, words: LastWords, login: tuple[str, str] | None
) -> httpx2.AsyncClient:
    async def hurry(request: httpx2.Request) -> None:
        if request.method == "DELETE":
            # The session's end: a server that has no answer to that must not hold up ours.
            request.extensions["timeout"] = httpx2.Timeout(_FAREWELL_WAIT).as_dict()

    async def note(response: httpx2.Response) -> None:
        if response.is_error:
            words.add(f"HTTP {response.status_code} {response.reason_phrase}")
        if response.status_code == HTTPStatus.NOT_FOUND and _SESSION in response.request.headers:
            # The session is gone. Each server says so in its own words, which the SDK would hand
            # on; without them it has the same for all.
            response.headers["content-type"] = "text/plain"

    # A call has a limit of its own; a stream of notifications may be silent for days.
    return httpx2.AsyncClient(
        auth=login,
        headers=settings.headers,
        timeout=httpx2.Timeout(settings.connect_timeout, read=None),
        event_hooks={"request": [hurry], "response": [note]},
    )

"""The server over standard input and output, or over HTTP, until a signal or its client ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, nullcontext
from functools import partial

import assistant
import uvicorn
from assistant import AssistantConfig
from llmgine.bootstrap import ApplicationBootstrap
from llmgine.bus import BusSession
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from mcp_server.gateway import Gateway, register
from mcp_server.pipes import StandardInput, StandardOutput

__all__ = ["OK", "SIGNALLED", "USAGE", "serve_http", "serve_stdio"]

OK, USAGE = 0, 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_GRACE = 3


def _application(config: AssistantConfig, *, approve: bool) -> ApplicationBootstrap:
    setup = partial(register, approve=approve)
    return ApplicationBootstrap(config, tools=assistant.toolbox, setup=setup)


async def serve_stdio(config: AssistantConfig, *, approve: bool) -> int:
    """Serve the client that started us, and return the exit status.

    What anything here prints goes to standard error: standard output is the protocol's.
    """
    status = OK
    source, sink = StandardInput(), StandardOutput()
    loop = asyncio.get_running_loop()

    def end() -> None:
        source.end()
        loop.call_later(_GRACE, sink.cut)  # by then the process has ended, or is stuck in a write

    try:
        async with stdio_server(stdin=source.stream, stdout=sink.stream) as (reading, writing):
            try:
                async with (
                    _application(config, approve=approve) as app,
                    BusSession(bus=app.bus) as session,
                ):
                    server = Gateway(app, lambda: nullcontext(session)).server
                    options = server.create_initialization_options()
                    running = server.run(reading, writing, options)
                    status = await _until_signal(app, running, end)
            finally:
                source.end()
    except* ConnectionError:
        sys.stderr.write("the client has gone without waiting for its answers\n")
    else:
        await asyncio.to_thread(sink.finish, _GRACE)
    return status


async def serve_http(
    config: AssistantConfig, host: str, port: int, *, names: Iterable[str], approve: bool
) -> int:
    """Serve whoever asks at an address of this machine, and return the exit status.

    Args:
        config: the settings.
        host: the address to listen at.
        port: the port; 0 means any that is free.
        names: further names that the server is called by, in requests' `Host`.
        approve: whether calls that need approval are run.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        sys.stderr.write(f"{host}:{port}: expected a free address, found: {error.strerror}\n")
        return USAGE
    with listening:
        async with _application(config, approve=approve) as app:
            # Clients can't be told from one another: each call has a session of its own.
            server = Gateway(app, lambda: BusSession(bus=app.bus)).server
            web = server.streamable_http_app(transport_security=_security({host, *names}))
            program = _Uvicorn(web, f"http://{_in_url(host)}:{listening.getsockname()[1]}/mcp")
            return await _until_signal(app, program.serve([listening]), program.end)


async def _until_signal(
    app: ApplicationBootstrap, work: Coroutine[object, object, None], end: Callable[[], None]
) -> int:
    """Wait for the work's end, which a signal brings about."""
    running = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(app.run_until_signal(signal.SIGINT, signal.SIGTERM))
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        end()
        await running
        heard = waiting.result() if waiting.done() else None
    finally:
        running.cancel()
        waiting.cancel()
    return OK if heard is None else SIGNALLED + heard


def _security(names: Iterable[str]) -> TransportSecuritySettings:
    """Return which names requests may use, so that no web page can reach us under its own."""
    known = [*_LOOPBACK, *map(_in_url, names)]
    return TransportSecuritySettings(
        allowed_hosts=[*known, *(f"{name}:*" for name in known)],
        allowed_origins=[
            f"{scheme}://{name}{port}"
            for scheme in ("http", "https")
            for name in known
            for port in ("", ":*")
        ],
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Uvicorn(uvicorn.Server):
    """The web server, without signal handlers of its own: bootstrap listens to signals.

    Args:
        web: what it serves.
        url: where, to be told once it listens.
    """

    def __init__(self, web: ASGIApp, url: str) -> None:
        config = uvicorn.Config(
            web,
            access_log=False,
            lifespan="on",
            log_config=None,
            timeout_graceful_shutdown=_GRACE,
            ws="none",
        )
        super().__init__(config)
        self._url = url

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        sys.stderr.write(f"listening on {self._url}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Take no more requests, and end once those under way are answered, or it takes long."""
        self.should_exit = True

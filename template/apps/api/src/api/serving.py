"""The web application at an address of this machine, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from math import ceil

import uvicorn
from fastapi import FastAPI

from api.deadlines import Deadlines
from api.settings import ApiConfig
from api.web import make_application, make_web

__all__ = ["SIGNALLED", "USAGE", "WebServer", "serve"]

USAGE = 2
SIGNALLED = 128
"""Added to a signal's number, as shells do."""

_LAST_WORDS = 2
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it is shown as
_SCRIPTED = (
    "; answers are scripted: `--provider NAME`, or [provider] in settings.toml, asks a model"
)


async def serve(config: ApiConfig, host: str, port: int) -> int:
    """Serve whoever asks, and return the exit status.

    Args:
        config: the settings.
        host: the address to listen at.
        port: the port; 0 means any that is free.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"{host}:{port}: expected a free address, found: {found}\n")
        return USAGE
    application = make_application(config)
    web = make_web(application)
    # Around the server, not within it: what is wrong with the settings is said before it listens.
    with listening:
        async with web.router.lifespan_context(web):
            server = WebServer(web)
            running = asyncio.create_task(server.serve([listening]))
            waiting = asyncio.create_task(
                application.run_until_signal(signal.SIGINT, signal.SIGTERM)
            )
            telling = asyncio.create_task(_tell(server, config, host, listening))
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            telling.cancel()
            server.end()
            await running
            heard = await waiting
    return 0 if heard is None else SIGNALLED + heard


async def _tell(server: WebServer, config: ApiConfig, host: str, listening: socket.socket) -> None:
    """Say where the page is, once it can be had."""
    await server.listening.wait()
    shown = _EVERYWHERE.get(host, host)
    name = f"[{shown}]" if ":" in shown else shown
    hint = _SCRIPTED if config.provider.name == "scripted" else ""
    sys.stderr.write(f"listening on http://{name}:{listening.getsockname()[1]}{hint}\n")
    sys.stderr.flush()


class WebServer(uvicorn.Server):
    """The web server, without signal handlers of its own: bootstrap listens to signals.

    Args:
        web: what it serves, whose lifespan is the caller's to run.

    Attributes:
        listening: set once it does.
    """

    def __init__(self, web: FastAPI) -> None:
        self._deadlines: Deadlines = web.state.deadlines
        config = uvicorn.Config(
            web,
            access_log=False,
            http="h11",  # which takes 64 KiB of headers; httptools, where installed, takes any
            lifespan="off",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=ceil(self._deadlines.grace) + _LAST_WORDS,
            ws="none",
        )
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start."""
        await super().startup(sockets)
        self.listening.set()

    def end(self) -> None:
        """Take no more requests, and end once those under way are answered, or it takes long."""
        self._deadlines.end()
        self.should_exit = True

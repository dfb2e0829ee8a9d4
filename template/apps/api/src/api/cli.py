"""The command line.

Exit statuses: 2 for a wrong command line, wrong settings or an address that isn't free; 128 + the
signal's number where a signal ended it: 130 for Ctrl-C, 143 for SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from ipaddress import ip_address
from typing import Annotated

import typer
from llmgine.bootstrap import exit_on_wrong_settings

from api.settings import ApiConfig, ApiSettings, is_name

__all__ = ["app", "main"]

_INTERRUPTED = 130
_LAST_WORDS = 2.0

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def api(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is every network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 is any that is free.")
    ] = 8000,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who answers, whatever settings.toml says.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model, whatever settings.toml says.")
    ] = None,
) -> None:
    """Serve the page, the sessions and the OpenAI-compatible endpoint, until a signal ends it."""
    config = _config(provider, model, host)
    if not (config.api.key or _is_loopback(host)):
        text = "there is no key: whoever reaches this address may call; LLMGINE_API__KEY sets one"
        sys.stderr.write(f"{text}\n")
    raise typer.Exit(asyncio.run(_served(config, host, port)))


def main() -> None:
    """Run the command line."""
    try:
        with exit_on_wrong_settings():
            app()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


async def _served(config: ApiConfig, host: str, port: int) -> int:
    # What serves takes a second to import: Ctrl-C within it is no traceback.
    from api.serving import SIGNALLED, serve

    status = await serve(config, host, port)
    if status >= SIGNALLED:
        # Everything is written out, and Python would wait for threads and tasks without end.
        last = threading.Timer(_LAST_WORDS, _leave, (status,))
        last.daemon = True
        last.start()
    return status


def _leave(status: int) -> None:
    sys.stderr.write("work that didn't end when it was cancelled is left behind\n")
    sys.stderr.flush()
    os._exit(status)


def _config(provider: str | None, model: str | None, host: str) -> ApiConfig:
    config = ApiConfig()
    settings = config.provider.chosen(provider, model)
    return ApiConfig(provider=settings, api=_called(config.api, host))


def _called(settings: ApiSettings, host: str) -> ApiSettings:
    """Let whoever listens under a name be called by it; addresses and `localhost` always may be.

    They aren't named: pages of other servers on this machine have the same ones.
    """
    if _is_loopback(host) or not is_name(host):
        return settings
    return replace(settings, hosts=[*settings.hosts, host])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()

"""The command line.

Exit statuses: 0 once the client has gone; 2 for a wrong command line, wrong settings or an address
that isn't free; 128 + the signal's number where a signal ended it: 130 for Ctrl-C.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from assistant import AssistantConfig
from llmgine.bootstrap import exit_on_wrong_settings
from llmgine.settings import ProviderSettings

from mcp_server.serving import USAGE, serve_http, serve_stdio

__all__ = ["app", "main"]

_INTERRUPTED = 130
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def serve(
    http: Annotated[
        bool, typer.Option("--http", help="Listen at an address, instead of standard input.")
    ] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="With --http: where to listen.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --http: the port; 0 is any that is free.")
    ] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --http: a further name that we are called by."),
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Run tools that need approval: the client asks.")
    ] = False,
) -> None:
    """Offer the project's tools over the Model Context Protocol.

    By default to the program that started this one, over standard input and output.
    """
    # No tool here asks a model: no key is needed, whatever the settings say.
    config = AssistantConfig(provider=ProviderSettings())
    if not http:
        _check_streams()
        raise typer.Exit(asyncio.run(serve_stdio(config, approve=approve)))
    if host not in _LOOPBACK:
        sys.stderr.write("there is no login: whoever reaches this address may call the tools\n")
    names = allow_host or []
    raise typer.Exit(asyncio.run(serve_http(config, host, port, names=names, approve=approve)))


def _check_streams() -> None:
    # A stream that was closed is none at all.
    if not (sys.stdin and sys.stdout):
        sys.stderr.write("expected standard input and output to be open, as a client opens them\n")
        raise typer.Exit(USAGE)
    if sys.stdin.isatty():
        sys.stderr.write("waiting for an MCP client; --http listens at an address instead\n")


def main() -> None:
    """Run the command line."""
    try:
        with exit_on_wrong_settings():
            app()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


if __name__ == "__main__":
    main()

"""The command line.

Exit statuses: 0 after `--demo`; 1 where Discord can't be reached or has closed the connection for
good; 2 for a wrong command line, wrong settings, or a token that is missing or refused; 128 + the
signal's number where a signal ended it: 130 for Ctrl-C.
"""

from __future__ import annotations

import asyncio
import io
import sys
from typing import Annotated

import typer
from llmgine.bootstrap import exit_on_wrong_settings
from llmgine.errors import ContextStoreError

from discord_bot.config import BotConfig, token_of
from discord_bot.serving import FAILED, serve

__all__ = ["app", "main"]

_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def discord_bot(
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="Play a conversation here: no token, no network.")
    ] = False,
) -> None:
    """Answer people on Discord.

    The bot's token is DISCORD_TOKEN in the environment or in `.env`.
    """
    if demo:
        from discord_bot.demo.play import play

        raise typer.Exit(asyncio.run(play()))
    config = BotConfig()
    raise typer.Exit(asyncio.run(serve(config, token_of(config))))


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that can't show a character gets a mark, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        with exit_on_wrong_settings():
            app()
    except ContextStoreError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


if __name__ == "__main__":
    main()

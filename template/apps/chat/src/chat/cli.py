"""The command line.

Exit statuses: 0; 1 where a turn failed, its answer had nowhere to go, or the store can't be used;
2 for a wrong command line or wrong settings; 128 + the signal's number where a signal ended it:
130 for Ctrl-C.
"""

from __future__ import annotations

import asyncio
import io
import sys
from typing import Annotated

import typer
from assistant import AssistantConfig
from llmgine.bootstrap import exit_on_wrong_settings
from llmgine.errors import ContextStoreError, InvalidSessionIdError
from rich.console import Console

from chat.screen import decoded, printable
from chat.trace import TraceError, session_tree
from chat.turn import FAILED, USAGE, approve, ask, refuse

__all__ = ["app", "main"]

_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def chat(
    context: typer.Context,
    *,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Answer this and leave.")] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who answers, whatever settings.toml says.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model, whatever settings.toml says.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The session to begin or go on with; a new one by default."
        ),
    ] = None,
    approve_all: Annotated[
        bool, typer.Option("--approve", help="Run tools that need approval without asking.")
    ] = False,
) -> None:
    """Talk to the model; away from a terminal, standard input as a whole is one message.

    Standard output then gets the answer and nothing else.
    """
    if context.invoked_subcommand is not None:
        return
    config = _config(provider, model)
    if once is None and _is_terminal():
        # What only a prompt needs takes a third of the time that the program takes to start.
        from chat.converse import converse

        decide = approve if approve_all else None
        raise typer.Exit(asyncio.run(converse(config, session, decide)))
    message = decoded(once) if once is not None else _piped()
    if not message.strip():
        sys.stderr.write("nothing to answer: the message is blank\n")
        raise typer.Exit(USAGE)
    decide = approve if approve_all else refuse
    raise typer.Exit(asyncio.run(ask(config, session, message, decide)))


@app.command()
def trace(
    session: Annotated[str | None, typer.Option(metavar="ID", help="The session to show.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The last session; the default.")] = False,
) -> None:
    """Print a session as a tree with durations, from the event file."""
    if last and session is not None:
        raise typer.BadParameter("choose either --last or --session")
    try:
        Console(highlight=False).print(session_tree(AssistantConfig(), session))
    except TraceError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        raise typer.Exit(1) from None


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that can't show a character gets a mark, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        with exit_on_wrong_settings():
            app()
    except InvalidSessionIdError as error:
        sys.stderr.write(f"--session: {error}\n")
        raise SystemExit(USAGE) from None
    except ContextStoreError as error:
        sys.stderr.write(f"{printable(str(error))}\n")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None


def _config(provider: str | None, model: str | None) -> AssistantConfig:
    config = AssistantConfig()
    settings = config.provider.chosen(provider, model)
    return config if settings is config.provider else AssistantConfig(provider=settings)


def _is_terminal() -> bool:
    # A stream that the shell has closed is none at all.
    return all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _piped() -> str:
    if not sys.stdin:
        return ""
    if sys.stdin.isatty():
        sys.stderr.write("Type a message; Ctrl-D sends it.\n")
    return sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\r\n")


if __name__ == "__main__":
    main()

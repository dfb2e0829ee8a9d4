"""The API as a program of its own, for tests that call it from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ApiProgram", "running_api"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiProgram:
    """A server that runs.

    Attributes:
        url: where, without a slash at the end.
        process: its process.
        errors: where its standard error goes.
    """

    url: str
    process: subprocess.Popen[bytes]
    errors: Path


@contextmanager
def running_api(folder: Path, *options: str, **environment: str) -> Generator[ApiProgram]:
    """Run the API in a folder, on a free port, for as long as the block lasts.

    Args:
        folder: its working directory.
        options: of its command line.
        environment: settings such as `LLMGINE_API__KEY`.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMGINE_")}
    errors = folder / "stderr.txt"
    with (
        errors.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "api.cli", "--port", "0", *options],
            cwd=folder,
            env={**kept, "LLMGINE_CONSOLE__ENABLED": "false", **environment},
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        try:
            line = process.stderr.readline().decode()
            assert line.startswith("listening on http://"), line
            yield ApiProgram(url=line.split()[2].rstrip(";"), process=process, errors=errors)
        finally:
            process.terminate()
            file.write(process.stderr.read())

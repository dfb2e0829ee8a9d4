"""Render versions of the template; runs where Copier is, as a process of its own.

It reads a request on its standard input and names each version before it renders it.
"""

import functools
import importlib
import json
import sys


def _main() -> None:
    request = json.load(sys.stdin)
    # Copier isn't among the project's packages: uv brings it for this process.
    copier = importlib.import_module("copier")
    _compile_once()
    for render in request["renders"]:
        sys.stdout.write(f"{render['version']}\n")
        sys.stdout.flush()
        copier.run_recopy(
            render["folder"],
            render["data"],
            answers_file=request["answers_file"],
            vcs_ref=render["version"],
            defaults=True,
            overwrite=True,
            quiet=True,
        )


def _compile_once() -> None:
    """Copier compiles every part of every path, `libs` some hundred times: a third of the work."""
    jinja = importlib.import_module("jinja2").Environment
    jinja.from_string = functools.cache(jinja.from_string)


if __name__ == "__main__":
    _main()

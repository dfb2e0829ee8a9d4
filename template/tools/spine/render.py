"""Render versions of the template; runs where Copier is, as a process of its own.

It reads a request on its standard input and names each version before it renders it.
"""

import functools
import importlib
import json
import sys
from typing import Any


def _main() -> None:
    request = json.load(sys.stdin)
    # Copier isn't among the project's packages: uv brings it for this process.
    copier = importlib.import_module("copier")
    quicken()
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


def quicken() -> None:
    """Spare Copier what comes to nothing here: three quarters of its work.

    It compiles every part of every path as a template, `libs` some hundred times, gathers all that
    a template may ask for even where none asks, and looks up before each file whether it is to mend
    an index that isn't there. In a Copier whose inside is another one, less is spared.
    """
    jinja = importlib.import_module("jinja2").Environment
    jinja.from_string = functools.cache(jinja.from_string)
    worker: Any = getattr(sys.modules.get("copier._main"), "Worker", None)
    render_string = getattr(worker, "_render_string", None)
    answers_relpath = getattr(worker, "answers_relpath", None)
    if render_string is None or not isinstance(answers_relpath, property):
        return

    def rendered(self: object, string: object, extra_context: object = None) -> object:
        if isinstance(string, str) and "{" not in string:
            return string
        return render_string(self, string, extra_context)

    worker._render_string = rendered  # noqa: SLF001 - nothing public is as narrow
    worker._sync_git_index_executable_bit = _nothing  # noqa: SLF001
    # The same throughout a render, and asked for at every part of every path.
    once = functools.cached_property(answers_relpath.__get__)
    once.__set_name__(worker, "answers_relpath")
    worker.answers_relpath = once


def _nothing(*_: object) -> None:
    """No index holds a file that is rendered into a folder of its own."""


if __name__ == "__main__":
    _main()

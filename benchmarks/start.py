# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "cookiecutter>=2.7,<3",
#   "copier>=9.19,<10",
# ]
# ///
"""What the first minutes cost: a project from the template, its first answer, its imports.

    uv run benchmarks/start.py [--quick] [--rounds N] [--json FILE] [--readme]

The last commit of this checkout is rendered with every default. The same files, made into a
template of cookiecutter's, are what it is compared with; both start as programs of their own. The
first answer begins with nothing: no project and no environment, but packages in uv's cache.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias

from peers import version
from reports import Report, Row, report_on

__all__ = ["main"]

_OURS = "llmgine"
_PEER = "cookiecutter"
_ROWS = (
    Row("copy", "a project, rendered with every default", _PEER, 9),
    Row("answer", "from nothing to the chat's first answer", "s", 15),
    Row("import", "`from llmgine.bus import MessageBus`", "CPU s", 0.15),
    Row("status", "`python tools/spine status`: what a project has changed", "CPU s", 0.2),
)
_ROOT = Path(__file__).parent.parent
_QUESTION = "What time is it?"
_Command: TypeAlias = list[str]


def _run(command: _Command, folder: Path) -> str:
    """Run a program and return what it printed; what it was given up for is shown."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=kept, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def _cpu(command: _Command, folder: Path) -> float:
    """Return the seconds of CPU time that a program takes, with all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(command, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _wall(work: Callable[[], str]) -> float:
    began = time.perf_counter()
    if not work().strip():
        raise SystemExit("the chat gave no answer")
    return time.perf_counter() - began


def _copying(template: Path, project: Path) -> _Command:
    copier = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", "--vcs-ref=HEAD"]
    return [*copier, str(template), str(project)]


def _as_cookiecutter(project: Path, folder: Path) -> _Command:
    """Make a template of the same files, and return the command that renders it."""
    (folder / "cookiecutter.json").write_text(json.dumps({"name": "my-app"}), "utf-8")
    for file in [path for path in project.rglob("*") if path.is_file()]:
        text = file.read_bytes()
        if any(mark in text for mark in (b"{{", b"{%", b"{#")):
            text = b"{% raw %}" + text + b"{% endraw %}"
        copy = folder / "{{cookiecutter.name}}" / file.relative_to(project)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text)
    made = ["--no-input", "--overwrite-if-exists", f"--output-dir={folder.parent}"]
    return [sys.executable, "-m", "cookiecutter", *made, str(folder)]


def _first_answer(template: Path, project: Path) -> str:
    _run(_copying(template, project), template)
    return _run(["uv", "run", "--no-dev", "--quiet", "chat", "--once", _QUESTION], project)


def _commit(project: Path) -> None:
    named = ["git", "-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "Start"]):
        _run([*named, *command], project)


def _seconds(rounds: int, folder: Path, peer: bool) -> dict[tuple[str, str], list[float]]:
    """Return what each round took, in seconds."""
    template, cookiecutter = folder / "template", folder / "cookiecutter"
    cookiecutter.mkdir()
    _run(["git", "clone", "--quiet", str(_ROOT), str(template)], folder)
    _run(_copying(template, folder / "project"), folder)
    theirs = _as_cookiecutter(folder / "project", cookiecutter)
    found: dict[tuple[str, str], list[float]] = {}

    def note(row: str, seconds: float, name: str = _OURS) -> None:
        found.setdefault((row, name), []).append(seconds)

    for number in range(rounds):
        project = folder / f"round-{number}"
        note("copy", _cpu(_copying(template, folder / f"copy-{number}"), folder))
        if peer:
            note("copy", _cpu(theirs, folder), _PEER)
        note("answer", _wall(lambda project=project: _first_answer(template, project)))
        python = str(project / ".venv/bin/python")
        note("import", _cpu([python, "-c", "from llmgine.bus import MessageBus"], project))
        _commit(project)
        note("status", _cpu([python, "tools/spine", "status"], project))
    return found


def _figures(seconds: Mapping[tuple[str, str], list[float]]) -> dict[tuple[str, str], float]:
    figures = {key: median(taken) for key, taken in seconds.items()}
    unit = figures.get(("copy", _PEER))
    for name in (_OURS, _PEER):
        if unit is None:
            figures.pop(("copy", name), None)
        elif ("copy", name) in figures:
            figures["copy", name] /= unit
    return figures


async def _measure(rounds: int, quick: bool) -> Report:
    rounds = 1 if quick else rounds
    peer = version(_PEER)
    with TemporaryDirectory() as folder:
        seconds = _seconds(rounds, Path(folder), peer is not None)
        files = sum(path.is_file() for path in (Path(folder) / "project").rglob("*"))
    copied = median(seconds["copy", _OURS])
    return Report(
        rows=_ROWS,
        names=[_OURS, _PEER],
        own=[_OURS],
        figures=_figures(seconds),
        notes=[
            f"Median of {rounds} rounds; {files} files; copying them took {copied:.1f} s of CPU.",
            f"Beside it: {_PEER} {peer}." if peer else f"Not installed, so not measured: {_PEER}.",
        ],
        wrong=[],
    )


def main() -> int:
    """Run the command line; return 1 if something was wrong."""
    return report_on("start", "What the first minutes with llmgine cost.", 7, _measure)


if __name__ == "__main__":
    sys.exit(main())

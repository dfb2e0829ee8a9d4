"""Our update beside Copier's over the corpus of histories.

`uv run python -m tests.compare_updates [WORD ...] [--readme]` runs the histories whose names have a
word in them, all by default. Each is brought to its new version by both; the table counts what was
lost, withheld and left to decide, and whether what needs no decision works. CPU time is that of one
everyday update with warm caches; for the counts, each version is rendered once.
"""

import argparse
import functools
import hashlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from copier import run_update

from benchmarks.measuring import put_between
from extensions.questionnaire import ROOT
from tests.conftest import snapshot
from tests.corpus import HISTORIES, History, begin, fixes, ours, release_all
from tests.rendering import stand_in
from tests.updating import Project

__all__ = ["main"]

Engine = Callable[[Project, History], tuple[bool, str]]

_EVERYDAY = "an edit far from a fix"
_ROUNDS = 3
# Everything compiles and imports, and what was fixed can be called.
_WHOLE = """\
import importlib, pathlib, pkgutil, tomllib
import llmgine
here = pathlib.Path.cwd()
assert pathlib.Path(llmgine.__file__).is_relative_to(here)
for path in here.rglob("*.toml"):
    tomllib.loads(path.read_text("utf-8"))
for path in here.rglob("*.py"):
    code = compile(path.read_bytes(), path, "exec")
    if b"def step_" in path.read_bytes():
        names = {}
        exec(code, names)
        assert all(isinstance(f(1), int) for name, f in names.items() if name.startswith("step_"))
for module in pkgutil.walk_packages(llmgine.__path__, "llmgine."):
    importlib.import_module(module.name)
"""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What an engine did over some histories.

    Attributes:
        lost: lines of the team's that are gone, and nothing says so.
        withheld: fixes that aren't there, and nothing says so.
        conflicts: histories that somebody has to look at.
        fixes_only: those among them that update to a version with fixes only.
        everyday: those among them that stand for everyday work.
        clean: histories that nobody has to look at.
        passing: those among them whose project works; looked at after our update alone.
    """

    lost: int = 0
    withheld: int = 0
    conflicts: int = 0
    fixes_only: int = 0
    everyday: int = 0
    clean: int = 0
    passing: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        pairs = zip(astuple(self), astuple(other), strict=True)
        lost, withheld, conflicts, fixes_only, everyday, clean, passing = map(sum, pairs)
        return Tally(
            lost=lost,
            withheld=withheld,
            conflicts=conflicts,
            fixes_only=fixes_only,
            everyday=everyday,
            clean=clean,
            passing=passing,
        )


def _spine(project: Project, history: History) -> tuple[bool, str]:
    data = [part for pair in history.data.items() for part in ("--data", "=".join(pair))]
    told = project.spine("update", "--to", history.to, *data, status=None)
    return ", 0 conflicted" not in told, told


def _copier(project: Project, history: History) -> tuple[bool, str]:
    data = dict(history.data)
    how: dict[str, Any] = {"defaults": True, "quiet": True, "overwrite": True}
    run_update(project.folder, data=data, vcs_ref=history.to, **how)
    found = any(b"<<<<<<< before updating" in text for text in project.files().values())
    return found, ""


ENGINES: dict[str, Engine] = {"tools/spine": _spine, "copier update": _copier}


def _has_fixes_only(history: History) -> bool:
    return history.to == "v0.2.0" and not history.data


def _fixes_told(told: str, contents: Mapping[str, bytes]) -> set[str]:
    """The fixes in files that are reported as skipped or in conflict."""
    reported = [
        line for line in told.splitlines() if line.startswith(("  skipped", "  conflicted"))
    ]
    named = {
        path: text for path, text in contents.items() if any(path in line for line in reported)
    }
    return fixes(named)


class _Checks:
    """Whether updated projects work; what was found out of one tree holds for its like.

    A test that fails is given another chance, since a busy machine has its own ways.
    """

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def pass_in(self, project: Project, before: Mapping[str, bytes]) -> bool:
        """Import everything, and run the tests of the rooms that the update changed."""
        after = project.files()
        if not self._run(project, "-c", _WHOLE):
            return False
        changed = (path for path in after if after[path] != before.get(path))
        rooms = {room[1] for path in changed if (room := re.search(r"/src/llmgine/(\w+)/", path))}
        tests = [
            str(folder)
            for room in sorted(rooms)
            for folder in project.folder.glob(f"libs/*/tests/{room}")
        ]
        code = {
            path: text for path, text in after.items() if re.match(r"libs/.+\.(py|toml)$", path)
        }
        relative = [path.removeprefix(str(project.folder)) for path in tests]
        key = hashlib.sha256(repr((relative, sorted(code.items()))).encode()).hexdigest()
        if key not in self._known:
            quiet = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
            tries = (self._run(project, *quiet, *tests) for _ in range(2))
            self._known[key] = not tests or any(tries)
        return self._known[key]

    def _run(self, project: Project, *arguments: str) -> bool:
        sources = [*project.folder.glob("libs/*/src"), *project.folder.glob("apps/*/src")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}
        done = subprocess.run(  # noqa: S603 - this Python
            [sys.executable, *arguments],
            cwd=project.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
        return not done.returncode


def _run(
    history: History, rendered: Project, fresh: Project, folder: Path, checks: _Checks
) -> Iterator[Tally]:
    new = fresh.files()
    for name, engine in ENGINES.items():
        project = begin(history, rendered, folder / name.replace("/", "-").replace(" ", "-"))
        before = project.files()
        conflicts, told = engine(project, history)
        after = project.files()
        yield Tally(
            lost=len(ours(before) - ours(after)),
            withheld=len(fixes(new) - fixes(after) - _fixes_told(told, new)),
            conflicts=int(conflicts),
            fixes_only=int(conflicts and _has_fixes_only(history)),
            everyday=int(conflicts and history.realistic),
            clean=int(not conflicts),
            passing=int(engine is _spine and not conflicts and checks.pass_in(project, before)),
        )


def _seconds(rendered: Project, folder: Path) -> dict[str, float]:
    """The CPU time that an everyday update takes, of the processes that it starts too."""
    found: dict[str, float] = {}
    for name, engine in ENGINES.items():
        times: list[float] = []
        for at in range(_ROUNDS + 1):  # the first one warms the caches
            project = begin(HISTORIES[_EVERYDAY], rendered, folder / f"{len(found)}-{at}")
            begun = os.times()
            engine(project, HISTORIES[_EVERYDAY])
            ended = os.times()
            times.append(sum(ended[:4]) - sum(begun[:4]))
        found[name] = min(times[1:])
    return found


@contextmanager
def _workshop() -> Generator[Path]:
    """A folder, and git and Copier without a developer's own settings."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "copier.yml").write_text("{}\n", "utf-8")
        (folder / "git").write_text("[user]\nname = Test\nemail = test@example.com\n", "utf-8")
        os.environ["COPIER_SETTINGS_PATH"] = str(folder / "copier.yml")
        os.environ["GIT_CONFIG_GLOBAL"] = str(folder / "git")
        os.environ.pop("VIRTUAL_ENV", None)
        yield folder


def main(words: list[str], *, readme: bool) -> None:
    """Run the histories, and write the table to standard output or into the README."""
    chosen = {
        name: history
        for name, history in HISTORIES.items()
        if not words or any(word in name for word in words)
    }
    totals = {name: Tally() for name in ENGINES}
    checks = _Checks()
    with _workshop() as folder:
        (folder / "snapshot").mkdir()
        template = snapshot(folder / "snapshot")
        releases = release_all(template, folder / "template")
        rendered = Project.copied(releases.folder, folder / "rendered", version="v0.1.0")
        seconds = _seconds(rendered, folder / "timed")
        sys.stderr.write(f"CPU seconds: {seconds}\n")
        (folder / "renders").mkdir()
        os.environ.update(stand_in(folder / "renders"))
        jinja = importlib.import_module("jinja2").Environment
        jinja.from_string = functools.cache(jinja.from_string)
        made: dict[str, Project] = {}
        for at, (name, history) in enumerate(chosen.items()):
            place, data = folder / f"fresh-{at}", dict(history.data)
            if (key := f"{history.to} {data}") not in made:
                made[key] = Project.copied(releases.folder, place, version=history.to, **data)
            fresh = made[key]
            tallies = _run(history, rendered, fresh, folder / str(at), checks)
            for engine, tally in zip(ENGINES, tallies, strict=True):
                sys.stderr.write(f"{name}: {engine}: {tally}\n")
                totals[engine] += tally
    table = _table(totals, seconds, chosen)
    sys.stdout.write(f"{table}\n")
    if readme:
        command = "```\nuv run python -m tests.compare_updates\n```"
        put_between(ROOT / "README.md", "updates", f"{command}\n\n{table}")


def _table(
    totals: dict[str, Tally], seconds: Mapping[str, float], chosen: dict[str, History]
) -> str:
    all_of, own = totals.values(), totals["tools/spine"]
    fixed = sum(map(_has_fixes_only, chosen.values()))
    everyday = sum(history.realistic for history in chosen.values())
    rows: dict[str, list[Any]] = {
        "lines lost silently": [tally.lost for tally in all_of],
        "fixes withheld silently": [tally.withheld for tally in all_of],
        f"conflicts, {len(chosen)} histories": [tally.conflicts for tally in all_of],
        f"... in {fixed} to a version with fixes only": [tally.fixes_only for tally in all_of],
        f"... in {everyday} everyday ones": [tally.everyday for tally in all_of],
        "clean merges that work": [f"{own.passing} of {own.clean}", "-"],
        "CPU seconds of an everyday update": [f"{seconds[name]:.1f}" for name in totals],
    }
    head = f"| | {' | '.join(totals)} |\n| --- |{' --: |' * len(totals)}"
    return "\n".join(
        [head, *(f"| {name} | {' | '.join(map(str, row))} |" for name, row in rows.items())]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    main(options.words, readme=options.readme)

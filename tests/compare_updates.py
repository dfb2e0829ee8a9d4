"""The corpus under `tools/spine` and under `copier update`, side by side.

`uv run python -m tests.compare_updates [WORD ...]` runs the histories whose names contain a word,
all by default. Each is brought to its new version by both; the table counts what was lost, withheld
and left to decide.
"""

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from copier import run_update

from tests.conftest import snapshot
from tests.corpus import HISTORIES, History, begin, fixes, ours, release_all
from tests.updating import Project

__all__ = ["main"]

Engine = Callable[[Project, History], tuple[bool, str]]


@dataclass(kw_only=True)
class Tally:
    """What an engine did over all histories."""

    lost: int = 0
    withheld: int = 0
    conflicts: int = 0
    realistic_conflicts: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            lost=self.lost + other.lost,
            withheld=self.withheld + other.withheld,
            conflicts=self.conflicts + other.conflicts,
            realistic_conflicts=self.realistic_conflicts + other.realistic_conflicts,
            seconds=self.seconds + other.seconds,
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


def _fixes_told(told: str, contents: dict[str, bytes]) -> set[str]:
    """The fixes in files that are reported as skipped or in conflict."""
    reported = [
        line for line in told.splitlines() if line.startswith(("  skipped", "  conflicted"))
    ]
    named = {
        path: text for path, text in contents.items() if any(path in line for line in reported)
    }
    return fixes(named)


def _run(history: History, rendered: Project, fresh: Project, folder: Path) -> Iterator[Tally]:
    for name, engine in ENGINES.items():
        place = folder / name.replace("/", "-").replace(" ", "-")
        project = begin(history, rendered, place)
        before = ours(project.files())
        begun = time.perf_counter()
        conflicts, told = engine(project, history)
        seconds = time.perf_counter() - begun
        after, new = project.files(), fresh.files()
        missing = fixes(new) - fixes(after) - _fixes_told(told, new)
        yield Tally(
            lost=len(before - ours(after)),
            withheld=len(missing),
            conflicts=int(conflicts),
            realistic_conflicts=int(conflicts and history.realistic),
            seconds=seconds,
        )


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


def main(words: list[str]) -> None:
    """Run the histories and write the table to standard output."""
    chosen = {
        name: history
        for name, history in HISTORIES.items()
        if not words or any(word in name for word in words)
    }
    totals = {name: Tally() for name in ENGINES}
    with _workshop() as folder:
        (folder / "snapshot").mkdir()
        template = snapshot(folder / "snapshot")
        releases = release_all(template, folder / "template")
        rendered = Project.copied(releases.folder, folder / "rendered", version="v0.1.0")
        for at, (name, history) in enumerate(chosen.items()):
            place = folder / f"fresh-{at}"
            data = dict(history.data)
            fresh = Project.copied(releases.folder, place, version=history.to, **data)
            for engine, tally in zip(
                ENGINES, _run(history, rendered, fresh, folder / str(at)), strict=True
            ):
                sys.stderr.write(f"{name}: {engine}: {tally}\n")
                totals[engine] += tally
    _write_table(totals, chosen)


def _write_table(totals: dict[str, Tally], chosen: dict[str, History]) -> None:
    realistic = sum(history.realistic for history in chosen.values())
    rows = {
        "lines lost silently": [tally.lost for tally in totals.values()],
        "fixes withheld silently": [tally.withheld for tally in totals.values()],
        f"conflicts, {len(chosen)} histories": [tally.conflicts for tally in totals.values()],
        f"of these in {realistic} everyday ones": [
            tally.realistic_conflicts for tally in totals.values()
        ],
        "seconds an update": [
            f"{tally.seconds / max(1, len(chosen)):.1f}" for tally in totals.values()
        ],
    }
    sys.stdout.write(f"| | {' | '.join(totals)} |\n|---|{'---|' * len(totals)}\n")
    for name, values in rows.items():
        sys.stdout.write(f"| {name} | {' | '.join(map(str, values))} |\n")


if __name__ == "__main__":
    main(sys.argv[1:])

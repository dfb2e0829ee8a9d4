"""The ledger of the spine's fixes, which every version of the template brings along."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from project import Manifest, Project, SpineError

__all__ = ["LEDGER", "Fix", "brought", "ledger_of", "path_of"]

LEDGER = "tools/spine/fixes.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """A fault of the spine that was mended.

    Attributes:
        id: what changelog and ledger call it.
        since: the version that brought it.
        title: what holds since then.
        tests: what fails without it: `path::function`, as pytest takes it.
    """

    id: str
    since: str
    title: str
    tests: tuple[str, ...]


def path_of(test: str) -> str:
    """The file that a test lies in."""
    return test.partition("::")[0]


def _read(folder: Path) -> list[Fix]:
    """The fixes that a folder's ledger has."""
    entries = tomllib.loads((folder / LEDGER).read_text("utf-8"))["fix"]
    return [
        Fix(
            id=entry["id"],
            since=entry["since"],
            title=entry["title"],
            tests=tuple(entry["tests"]),
        )
        for entry in entries
    ]


def ledger_of(project: Project) -> list[Fix]:
    """The fixes that the project's version knows of.

    Raises:
        SpineError: the ledger is missing or damaged.
    """
    try:
        return _read(project.root)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpineError(
            f"{LEDGER} is missing or damaged ({error!r}): restore it with"
            f" `git checkout HEAD -- {LEDGER}`"
        ) from None


def brought(old: Path, new: Path, manifest: Manifest) -> tuple[Fix, ...]:
    """The fixes that one render of the template has and an older one lacks.

    Args:
        old: the older one.
        new: the other.
        manifest: what the spine of the other is; fixes of parts that it lacks don't count.
    """
    # A version before the ledger has none.
    before, after = (_read(folder) if (folder / LEDGER).exists() else [] for folder in (old, new))
    known = {fix.id for fix in before}
    added = [fix for fix in after if fix.id not in known]
    return tuple(fix for fix in added if any(path_of(test) in manifest.files for test in fix.tests))

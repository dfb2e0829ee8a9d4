"""What a release promises to projects of earlier ones is held, here and in made-up templates."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.questionnaire import ROOT
from extensions.releases import newest_tag, problems
from tests.conftest import commit, git

BUS = "libs/llmgine/src/llmgine/bus.py"
TESTS = "libs/llmgine/tests/test_bus.py"
LEDGER = "tools/spine/fixes.toml"
FIX = """\
[[fix]]
id = "{id}"
since = "{since}"
title = "Bus: it holds"
tests = ["libs/llmgine/tests/test_bus.py::{test}"]
"""
RELEASED = """\
## 1.4.0 - 2026-01-31

### Fixed in the spine

- Bus: it holds (LF-001).

### Fixed elsewhere

- Chat: a line.
"""


class Repository:
    """A small template, released once as 1.4.0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version("1.4.0", "")
        self.ledger(("LF-001", "1.4.0", "test_it_holds"))
        self.write(BUS, "HOLDS = True\n")
        self.write(TESTS, "def test_it_holds(): ...\nasync def test_it_waits(): ...\n")
        self.write("pyproject.toml.jinja", "")
        commit(folder)
        git(folder, "tag", "v1.4.0")
        git(folder, "tag", "v9.0.0-rc1")

    def write(self, path: str, text: str) -> None:
        place = self.folder / "template" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")

    def version(self, version: str, changes: str) -> None:
        """Set the version; `changes` are what the changelog has before the release."""
        (self.folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n', "utf-8")
        (self.folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{changes}{RELEASED}", "utf-8")

    def ledger(self, *fixes: tuple[str, str, str]) -> None:
        entries = (FIX.format(id=name, since=since, test=test) for name, since, test in fixes)
        self.write(LEDGER, "\n".join(entries))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


NEXT = "## 1.4.1 - unreleased\n\n### Fixed in the spine\n\n- Bus: it waits{id}.\n\n"
MINOR = "## 1.5.0 - unreleased\n\n- More.\n\n"
MAJOR = "## 2.0.0 - unreleased\n\n- Another.\n\n"
HOLDS, WAITS = ("LF-001", "1.4.0", "test_it_holds"), ("LF-002", "1.4.1", "test_it_waits")


def _fixed(repository: Repository) -> None:
    repository.write(BUS, "HOLDS = True\nWAITS = True\n")
    repository.ledger(HOLDS, WAITS)
    repository.version("1.4.1", NEXT.format(id=" (LF-002)"))


def _renamed(repository: Repository) -> None:
    place = repository.folder / "template" / BUS
    place.rename(place.with_name("buses.py"))


def _removed_in_a_minor_version(repository: Repository) -> None:
    (repository.folder / "template" / BUS).unlink()
    repository.version("1.5.0", MINOR)


def _removed_in_a_major_version(repository: Repository) -> None:
    _removed_in_a_minor_version(repository)
    repository.version("2.0.0", MAJOR)


def _made_a_template(repository: Repository) -> None:
    _fixed(repository)
    place = repository.folder / "template" / BUS
    place.rename(place.with_name("bus.py.jinja"))


def _without_an_id(repository: Repository) -> None:
    _fixed(repository)
    repository.version("1.4.1", NEXT.format(id=""))


def _not_in_the_ledger(repository: Repository) -> None:
    _fixed(repository)
    repository.ledger(HOLDS)


def _not_in_the_changelog(repository: Repository) -> None:
    _fixed(repository)
    repository.version("1.4.1", "## 1.4.1 - unreleased\n\n- Bus: it waits (LF-002).\n\n")


def _under_another_version(repository: Repository) -> None:
    _fixed(repository)
    repository.ledger(HOLDS, ("LF-002", "1.4.2", "test_it_waits"))


def _without_its_test(repository: Repository) -> None:
    _fixed(repository)
    repository.write(TESTS, "def test_it_holds(): ...\n")


def _id_twice(repository: Repository) -> None:
    _fixed(repository)
    repository.ledger(HOLDS, WAITS, WAITS)


def _left_the_ledger(repository: Repository) -> None:
    _fixed(repository)
    repository.ledger(("LF-001", "1.4.1", "test_it_holds"), WAITS)


def _same_version(repository: Repository) -> None:
    repository.write(BUS, "HOLDS = 1\n")


def _patch_without_a_fix(repository: Repository) -> None:
    repository.write(BUS, "HOLDS = 1\n")
    repository.version("1.4.1", "## 1.4.1 - unreleased\n\n- Words.\n\n")


def _older(repository: Repository) -> None:
    repository.version("1.3.9", "## 1.3.9 - unreleased\n\n- Words.\n\n")


def _undated(repository: Repository) -> None:
    _fixed(repository)
    repository.version("1.5.0", MINOR + NEXT.format(id=" (LF-002)"))


@pytest.mark.parametrize("change", [None, _fixed, _removed_in_a_major_version, _made_a_template])
def test_what_a_release_may_do(
    repository: Repository, change: Callable[[Repository], None] | None
) -> None:
    if change is not None:
        change(repository)
    assert problems(repository.folder) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_renamed, f"{BUS} was renamed or removed"),
        (_removed_in_a_minor_version, f"{BUS} was renamed or removed"),
        (_without_an_id, "no id in '- Bus: it waits.'"),
        (_not_in_the_ledger, "names LF-002 under 1.4.1, tools/spine/fixes.toml under None"),
        (_not_in_the_changelog, "has LF-002, CHANGELOG.md has it nowhere"),
        (_under_another_version, "names LF-002 under 1.4.1, tools/spine/fixes.toml under 1.4.2"),
        (_without_its_test, f"LF-002: there is no test {TESTS}::test_it_waits"),
        (_id_twice, "each once, in order; found ['LF-001', 'LF-002', 'LF-002']"),
        (_left_the_ledger, "LF-001 was released in 1.4.0, the ledger has it no longer"),
        (_same_version, "the spine has changed since v1.4.0: set the next version"),
        (_patch_without_a_fix, "1.4.1 changes the spine and mends nothing"),
        (_older, "the version 1.3.9 is older than the tag v1.4.0"),
        (_undated, "CHANGELOG.md has no date for 1.4.1"),
    ],
)
def test_what_a_release_may_not_do(
    repository: Repository, change: Callable[[Repository], None], told: str
) -> None:
    change(repository)
    assert told in "\n".join(problems(repository.folder))


def test_without_a_version_changelog_and_ledger_are_held_together_all_the_same(
    repository: Repository,
) -> None:
    git(repository.folder, "tag", "--delete", "v1.4.0", "v9.0.0-rc1")
    assert newest_tag(repository.folder) is None
    assert problems(repository.folder) == []
    _not_in_the_ledger(repository)
    assert len(problems(repository.folder)) == 1


def test_a_heading_of_another_form_is_refused(repository: Repository) -> None:
    repository.version("1.4.1", "## Unreleased\n\n- More.\n\n")
    with pytest.raises(ValueError, match=r"expected `## X\.Y\.Z - date`, found '## Unr"):
        problems(repository.folder)


def test_this_repository_may_be_released() -> None:
    assert problems(ROOT) == []

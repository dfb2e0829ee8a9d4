"""`tools/spine status` and `check`: what the project changed, and what is in the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import commit, git
from tests.updating import Project, Releases, sample

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return Releases.of(template, tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="module")
def rendered(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("rendered") / "project"
    return Project.copied(releases.folder, folder, version="v0.1.0")


@pytest.fixture
def project(rendered: Project, tmp_path: Path) -> Project:
    return rendered.copy(tmp_path / "project")


def _changed(project: Project, *arguments: str) -> dict[str, dict[str, Any]]:
    report = json.loads(project.spine("status", "--format", "json", *arguments))
    return {file["path"]: file for file in report["files"] if file["state"] != "pristine"}


def _change_everything(project: Project) -> None:
    project.change(sample("alpha"), "value + 3", "value + 33")
    project.write(sample("ours"), "OURS = 1\n")
    (project.folder / sample("beta")).unlink()
    git(project.folder, "mv", sample("gamma"), sample("renamed"))
    project.write("docs/ours.md", "Not of the spine.\n")


def _expected(project: Project) -> None:
    found = _changed(project)
    assert {path: file["state"] for path, file in found.items()} == {
        sample("alpha"): "edited",
        sample("ours"): "added",
        sample("beta"): "deleted",
        sample("renamed"): "renamed",
    }
    assert (found[sample("alpha")]["added"], found[sample("alpha")]["removed"]) == (1, 1)
    assert found[sample("renamed")]["was"] == sample("gamma")


def test_a_fresh_project_is_pristine(project: Project) -> None:
    assert not _changed(project)
    assert "pristine" in project.spine("status")
    assert "Nothing is in the way" in project.spine("check")


@pytest.mark.parametrize("committed", [False, True])
def test_every_state_is_told_apart(project: Project, committed: bool) -> None:
    _change_everything(project)
    if committed:
        project.commit()
    before = git(project.folder, "status", "--porcelain"), project.files()
    _expected(project)
    assert (git(project.folder, "status", "--porcelain"), project.files()) == before


def test_text_and_markdown_name_what_differs(project: Project) -> None:
    _change_everything(project)
    text = project.spine("status")
    assert f"edited        +1 -1  {sample('alpha')}\n" in text
    assert f"{sample('renamed')} (was {sample('gamma')})\n" in text
    table = project.spine("status", "--format", "markdown")
    assert f"| edited | `{sample('alpha')}` | +1 -1 |  |\n" in table
    assert f"| deleted | `{sample('beta')}` |  |  |\n" in table


def test_in_a_subfolder_and_in_a_worktree(project: Project, tmp_path: Path) -> None:
    bigger = tmp_path / "bigger"
    shutil.copytree(
        project.folder, bigger / "services" / "llm", ignore=shutil.ignore_patterns(".git")
    )
    (bigger / "other.txt").write_text("Not ours.\n", "utf-8")
    commit(bigger)
    _expected_there = Project(folder=bigger / "services" / "llm")
    assert not _changed(_expected_there)
    _change_everything(_expected_there)
    _expected(_expected_there)

    git(project.folder, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    worktree = Project(folder=tmp_path / "worktree")
    _change_everything(worktree)
    _expected(worktree)
    assert not _changed(project)


def test_a_history_that_begins_with_edits_is_said_so(project: Project) -> None:
    project.change(sample("alpha"), "value + 3", "value + 33")
    (project.folder / sample("beta")).unlink()
    shutil.rmtree(project.folder / ".git")
    commit(project.folder)
    found = _changed(project)
    assert found[sample("alpha")]["state"] == "edited"
    assert "isn't in this repository's history" in found[sample("alpha")]["note"]
    assert found[sample("beta")]["state"] == "deleted"


def test_a_moved_spine_is_still_found(project: Project) -> None:
    git(project.folder, "mv", "libs/llmgine", "libs/engine")
    states = {file["state"] for file in _changed(project).values()}
    assert states == {"renamed"}


def test_check_names_what_is_in_the_way(project: Project) -> None:
    project.change(sample("alpha"), "value + 3", "<<<<<<< a\nvalue\n=======\n1\n>>>>>>> b\n")
    project.change(sample("alpha"), "    return <<<<<<< a", "<<<<<<< a")
    project.write("docs/rejected.md.rej", "@@ -1 +1 @@\n")
    project.change(".copier-answers.yml", "my-app", "your-app")
    project.commit()
    found = project.spine("check", status=1)
    assert f"conflict marks in {sample('alpha')}" in found
    assert "docs/rejected.md.rej" in found
    assert ".copier-answers.yml was edited by hand" in found
    assert "my-app" not in found


def test_where_the_template_lies_may_be_changed_by_hand(project: Project, tmp_path: Path) -> None:
    answers = project.text(".copier-answers.yml")
    [line] = [line for line in answers.splitlines() if line.startswith("_src_path")]
    project.edit(".copier-answers.yml", line, f"_src_path: '{tmp_path / 'nowhere'}'")
    assert "Nothing is in the way" in project.spine("check", "--offline")
    refused = project.spine("check", status=2)
    assert f"can't be reached at {tmp_path / 'nowhere'}" in refused


def test_a_newer_version_is_told_with_the_files_that_it_changes(
    template: Path, tmp_path: Path
) -> None:
    releases = Releases.of(template, tmp_path / "template")
    project = Project.copied(releases.folder, tmp_path / "project", version="v0.1.0")
    releases.edit(sample("alpha"), "value + 3", "value + 30")
    releases.edit(sample("beta"), "value + 3", "value + 30")
    releases.release("v0.2.0")
    releases.release("v0.3.0-rc1")
    project.edit(sample("beta"), "value + 3", "value + 30")

    assert "v0.2.0 of the template is out" in project.spine("check", status=3)
    project.spine("check", "--offline")
    report = json.loads(project.spine("status", "--format", "json", "--behind"))
    assert report["newest"] == "v0.2.0"
    # What somebody fixed by hand as the template did isn't behind.
    assert [file["path"] for file in report["files"] if file["behind"]] == [sample("alpha")]
    assert f"{sample('alpha')} (behind)" in project.spine("status", "--behind")
    assert "behind" not in project.spine("status")


@pytest.mark.parametrize("command", ["status", "check", "update", "finish", "abort"])
def test_without_a_repository_every_command_says_so(project: Project, command: str) -> None:
    shutil.rmtree(project.folder / ".git")
    refused = project.spine(command, status=2)
    assert refused.startswith("spine: ")
    assert "is in no git repository" in refused
    assert refused.count("\n") == 1

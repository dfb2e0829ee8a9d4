"""Updates: an unedited project becomes a fresh copy, an edited one keeps its edits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from tests.conftest import commit, git
from tests.updating import Project

pytestmark = pytest.mark.timeout(600)

Make = Callable[..., Project]


@pytest.fixture
def template_copy(template: Path, tmp_path: Path) -> Path:
    """The template at version 0.1.0, in a repository that the test may change."""
    copy = shutil.copytree(template, tmp_path / "template")
    git(copy, "tag", "v0.1.0")
    return copy


def _release(template: Path, version: str) -> None:
    """A later version: two files fixed, one added."""
    for page in ("libs/llmgine/README.md", "docs/concepts.md"):
        path = template / "template" / page
        path.write_text(path.read_text("utf-8") + "\nA later word.\n", "utf-8")
    (template / "template/docs/later.md").write_text("# Later\n", "utf-8")
    commit(template, f"Version {version}")
    git(template, "tag", version)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(Answers(), id="minimal"),
        pytest.param(Answers(preset="spine"), id="spine", marks=pytest.mark.heavy),
        pytest.param(
            Answers(preset="custom", apps=(), handlers=("file",), provider="local", ci="none"),
            id="custom",
            marks=pytest.mark.heavy,
        ),
    ],
)
def test_an_unedited_project_becomes_a_fresh_copy(
    template_copy: Path, tmp_path: Path, answers: Answers
) -> None:
    project = Project.copied(template_copy, tmp_path / "project", **answers.as_data())
    _release(template_copy, "v0.2.0")
    project.update()
    fresh = Project.copied(template_copy, tmp_path / "fresh", **answers.as_data())
    assert project.files() == fresh.files()
    assert b"_commit: v0.2.0\n" in project.files()[".copier-answers.yml"]


A_TO_B = [
    (Answers(), Answers(preset="custom", apps=(), handlers=())),
    (Answers(), Answers(preset="spine")),
    (Answers(preset="spine", handlers=("file",)), Answers(provider="local", ci="none")),
    (
        Answers(preset="custom", apps=(), python_version="3.13"),
        Answers(preset="custom", handlers=("console",), project_name="other-app"),
    ),
]


@pytest.mark.heavy
@pytest.mark.parametrize(("first", "second"), A_TO_B)
def test_answers_changed_and_changed_back_give_the_same_tree(
    template_copy: Path, tmp_path: Path, first: Answers, second: Answers
) -> None:
    project = Project.copied(template_copy, tmp_path / "project", **first.as_data())
    before = project.files()
    project.update(**second.as_data())
    fresh = Project.copied(template_copy, tmp_path / "fresh", **second.as_data())
    assert project.files() == fresh.files()
    project.update(**first.as_data())
    assert project.files() == before


def test_what_a_preset_decides_follows_the_preset(template_copy: Path, tmp_path: Path) -> None:
    project = Project.copied(template_copy, tmp_path / "project")
    before = project.files()
    project.update(preset="spine")
    assert "apps/chat/pyproject.toml" not in project.files()
    project.update(preset="minimal")
    assert project.files() == before


def test_edits_and_fixes_merge_and_a_conflict_is_marked_in_the_file(
    template_copy: Path, tmp_path: Path
) -> None:
    project = Project.copied(template_copy, tmp_path / "project")
    project.edit("libs/llmgine/README.md", "# llmgine\n", "# llmgine, ours\n")
    project.edit("settings.toml", 'name = "scripted"', 'name = "ours.provider:build"')
    page = project.folder / "docs/concepts.md"
    page.write_text(page.read_text("utf-8") + "\nOur own word.\n", "utf-8")
    commit(project.folder)
    _release(template_copy, "v0.2.0")
    project.update()
    found = project.files()
    assert project.conflicts() == ["docs/concepts.md"]
    assert b"Our own word." in found["docs/concepts.md"]
    assert b"A later word." in found["docs/concepts.md"]
    readme = found["libs/llmgine/README.md"].decode()
    assert readme.startswith("# llmgine, ours\n")
    assert readme.endswith("A later word.\n")
    assert b"ours.provider:build" in found["settings.toml"]
    assert "docs/later.md" in found


@pytest.mark.heavy
@pytest.mark.parametrize(("first", "second"), [(Answers(), Answers()), *A_TO_B])
def test_fixes_reach_an_edited_spine_while_answers_change(
    template_copy: Path, tmp_path: Path, first: Answers, second: Answers
) -> None:
    project = Project.copied(template_copy, tmp_path / "project", **first.as_data())
    edited = "libs/llmgine/README.md"
    project.edit(edited, "# llmgine\n", "# llmgine, ours\n")
    _release(template_copy, "v0.2.0")
    project.update(**second.as_data())
    assert not project.conflicts()
    fresh = Project.copied(template_copy, tmp_path / "fresh", **second.as_data()).files()
    assert fresh[edited].endswith(b"A later word.\n")
    fresh[edited] = fresh[edited].replace(b"# llmgine\n", b"# llmgine, ours\n", 1)
    assert project.files() == fresh

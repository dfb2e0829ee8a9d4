"""Updates: an unedited project becomes a fresh copy, an edited one keeps its edits."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from tests.conftest import commit, git
from tests.updating import Project

pytestmark = pytest.mark.timeout(180)

Make = Callable[..., Project]


@pytest.fixture
def template_copy(template: Path, tmp_path: Path) -> Path:
    """The template at version 0.1.0, in a repository that the test may change."""
    copy = shutil.copytree(template, tmp_path / "template")
    git(copy, "tag", "v0.1.0")
    return copy


def _release(template: Path, version: str) -> None:
    """A later version: one file fixed, one added."""
    readme = template / "template/libs/llmgine/README.md"
    readme.write_text(readme.read_text("utf-8") + "\nA later word.\n", "utf-8")
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


@pytest.mark.parametrize(
    ("first", "second"),
    [A_TO_B[0], *(pytest.param(*pair, marks=pytest.mark.heavy) for pair in A_TO_B[1:])],
)
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


def test_an_edit_and_a_fix_elsewhere_in_the_file_merge(template_copy: Path, tmp_path: Path) -> None:
    project = Project.copied(template_copy, tmp_path / "project")
    project.edit("libs/llmgine/README.md", "# llmgine\n", "# llmgine, ours\n")
    project.edit("settings.toml", 'name = "scripted"', 'name = "ours.provider:build"')
    _release(template_copy, "v0.2.0")
    project.update()
    assert not project.conflicts()
    readme = project.files()["libs/llmgine/README.md"].decode()
    assert readme.startswith("# llmgine, ours\n")
    assert readme.endswith("A later word.\n")
    assert b"ours.provider:build" in project.files()["settings.toml"]
    assert "docs/later.md" in project.files()


def test_a_conflict_is_marked_in_the_file(template_copy: Path, tmp_path: Path) -> None:
    project = Project.copied(template_copy, tmp_path / "project")
    readme = project.folder / "libs/llmgine/README.md"
    readme.write_text(readme.read_text("utf-8") + "\nOur own word.\n", "utf-8")
    commit(project.folder)
    _release(template_copy, "v0.2.0")
    project.update()
    assert project.conflicts() == ["libs/llmgine/README.md"]
    assert b"Our own word." in project.files()["libs/llmgine/README.md"]
    assert b"A later word." in project.files()["libs/llmgine/README.md"]

"""Answers may change in an update, and back again: any to any, with a team's own work beside."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from extensions.answers import Answers
from extensions.matrix import pairwise
from tests.rendering import stand_in
from tests.updating import Project, Releases, sample

pytestmark = [pytest.mark.timeout(1200), pytest.mark.heavy]

KINDS = [Answers(), Answers(preset="spine"), *pairwise()]
TWO = st.lists(st.sampled_from(range(len(KINDS))), min_size=2, max_size=2, unique=True)


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """Two versions; the later one has a fix."""
    made = Releases.of(template, tmp_path_factory.mktemp("releases") / "template")
    made.edit(sample("alpha"), "value + 6", "value + 600")
    made.release("v0.2.0")
    return made


@pytest.fixture(scope="module", autouse=True)
def _renders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every version is rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_in(tmp_path_factory.mktemp("renders")).items():
            patch.setenv(name, value)
        yield


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(two=TWO)
def test_answers_changed_and_changed_back_give_the_same_tree(
    two: list[int], *, releases: Releases, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = (KINDS[each] for each in two)
    folder = tmp_path_factory.mktemp("changed")

    def copied(name: str, version: str, answers: Answers) -> Project:
        data = answers.as_data()
        project = Project.copied(releases.folder, folder / name, version=version, **data)
        project.edit(sample("alpha"), "value + 2\n", "value * 2\n")
        return project

    project = copied("project", "v0.1.0", first)
    _change(project, "v0.2.0", second)
    assert project.files() == copied("second", "v0.2.0", second).files()
    _change(project, "current", first)
    assert project.files() == copied("first", "v0.2.0", first).files()


def _change(project: Project, version: str, answers: Answers) -> None:
    data = (
        f"--data={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in answers.as_data().items()
    )
    assert ", 0 conflicted, 0 skipped" in project.spine("update", "--to", version, *data)
    project.commit()

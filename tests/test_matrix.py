"""Every pair of choices as a project that passes its own checks, on the oldest and newest Python.

A class is a Python, since what was shown of one project is not looked at again in the next one on
the same: `--dist loadscope` keeps a class together.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from tests.conftest import Run
from tests.matrix import NEWEST, OLDEST, Checks, rows

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1800)]


class EveryPair:
    python: str

    @pytest.fixture(scope="class")
    @classmethod
    def checks(cls, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Checks:
        return Checks(run, cls.python, tmp_path_factory.mktemp("environment"))

    def test_a_project_passes_its_own_checks(
        self, checks: Checks, project: Callable[[Answers], Path], answers: Answers
    ) -> None:
        checks.check(project(answers))


@pytest.mark.parametrize("answers", rows(OLDEST))
class TestOldest(EveryPair):
    python = OLDEST


@pytest.mark.parametrize("answers", rows(NEWEST))
class TestNewest(EveryPair):
    python = NEWEST

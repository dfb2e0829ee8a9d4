"""Every pair of choices, as far as it is tested on the oldest Python."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from tests.conftest import Run
from tests.matrix import OLDEST, Checks, rows

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def checks(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """The checks on this Python."""
    return Checks(run, OLDEST, tmp_path_factory.mktemp("environment"))


@pytest.mark.parametrize("answers", rows(OLDEST))
def test_a_project_passes_its_own_checks(
    checks: Checks, project: Callable[[Answers], Path], answers: Answers
) -> None:
    checks.check(project(answers))

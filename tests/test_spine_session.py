"""The recorded update of the handbook: its commands are run, and print what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extensions.questionnaire import ROOT
from tests.updating import Project, Releases

pytestmark = [pytest.mark.timeout(600), pytest.mark.heavy]

ERRORS = "libs/llmgine/src/llmgine/errors.py"
README = "libs/llmgine/README.md"


def _recorded() -> list[tuple[str, str]]:
    """Each command with what it prints."""
    page = (ROOT / "docs" / "updating-session.md").read_text("utf-8")
    session = page.partition("```console\n")[2].partition("```")[0]
    steps = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    return [(command, printed) for command, _, printed in (step.partition("\n") for step in steps)]


def _without_counts(text: str) -> str:
    """How many files the spine has changes from version to version."""
    return re.sub(r"\d+ spine files|\d+ pristine", "some", text)


def test_the_recorded_update_is_what_happens(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    releases = Releases(folder=shutil.copytree(template, tmp_path / "template"))
    releases.release("v0.1.0")
    project = Project.copied(releases.folder, tmp_path / "project", version="v0.1.0")
    first = releases.text(ERRORS).splitlines()[0]
    releases.edit(ERRORS, first, '"""Every error that the spine raises, as one tree.')
    for page in (README, "docs/concepts.md", "docs/extending.md"):
        releases.append(page, "\nA later word.\n")
    releases.release("v0.2.0")
    project.change(ERRORS, first, '"""Whatever goes wrong at Acme, as one tree.')
    project.change(README, "# llmgine\n", "# llmgine at Acme\n")
    (project.folder / "docs/extending.md").unlink()
    project.commit()

    steps = _recorded()
    assert len(steps) > 8
    for command, printed in steps:
        done = subprocess.run(  # noqa: S602 - as somebody would type it
            command, shell=True, cwd=project.folder, capture_output=True, text=True, check=False
        )
        assert _without_counts(done.stdout + done.stderr) == _without_counts(printed), command

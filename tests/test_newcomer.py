"""The newcomer's path: a fresh clone, a fresh home, and the README's commands word for word."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from extensions.manifest import version
from extensions.questionnaire import ROOT
from tests.conftest import git

README = (ROOT / "README.md").read_text("utf-8")
# Certificates and mirrors belong to the machine, not to its user.
MACHINE = re.compile(r"(SSL|PIP|UV)_\w*(CERT|INDEX|LINKS)\w*|NODE_EXTRA_CA_CERTS|LANG")


def _marked(name: str) -> str:
    """The one line between two marks of the README."""
    found = re.search(rf"<!-- {name} -->\n```\n(.+)\n```\n<!-- /{name} -->", README)
    assert found is not None
    assert "\n" not in found[1]
    return found[1]


def test_the_readme_has_one_line_to_start_and_one_to_test() -> None:
    assert '"$PWD"' in _marked("start")
    assert _marked("tests") == "uv run just check"


def test_ci_runs_the_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "<!-- tests -->" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("start", ["python-and-git-alone", "uv-at-hand"])
def test_one_line_renders_a_project_that_answers(
    template: Path, tmp_path: Path, start: str
) -> None:
    clone, home = tmp_path / "llmgine", tmp_path / "home"
    git(tmp_path, "clone", "--quiet", str(template), str(clone))
    # A tag that the clone brought would be rendered in place of its commit.
    git(clone, "tag", f"v{version()}.post1")
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if MACHINE.fullmatch(name)}
    environment |= {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    if start == "uv-at-hand":
        environment["PATH"] = os.environ["PATH"]
    done = subprocess.run(  # noqa: S603
        ["bash", "-c", _marked("start")],  # noqa: S607
        check=False,
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "scripted" in done.stdout + done.stderr
    assert done.stdout.strip()
    assert git(clone, "status", "--porcelain") == ""
    answers = (tmp_path / "my-app" / ".copier-answers.yml").read_text("utf-8")
    assert f"_src_path: {clone}\n" in answers
    if start == "python-and-git-alone":
        assert (home / ".local/bin/uv").is_file()

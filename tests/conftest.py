"""What the template's tests share: a committed copy of the template, and projects made from it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from extensions.answers import Answers
from extensions.questionnaire import ROOT
from tests.rendering import quick_copier

Render = Callable[[Answers], Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def commit(folder: Path, message: str = "As it is") -> None:
    """Commit all that lies in a folder, which becomes a repository if it is none."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def snapshot(folder: Path) -> Path:
    """Copy this checkout as git sees it, with uncommitted work, into a repository of its own."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    commit(folder)
    return folder


def _pyenv_versions() -> str | None:
    """Every Python that pyenv has and projects run on: the shims of inactive ones fail in uv."""
    if shutil.which("pyenv") is None:
        return None
    listed = subprocess.run(["pyenv", "versions", "--bare"], check=True, capture_output=True).stdout  # noqa: S607
    usable = re.findall(r"^3\.1[1-9](?:\.\d+)?$", listed.decode(), re.MULTILINE)
    return ":".join(usable)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep a developer's own settings of git, Copier and uv away from the tests."""
    home = tmp_path_factory.mktemp("home")
    (home / "copier.yml").write_text("{}\n", "utf-8")
    (home / "gitconfig").write_text("[user]\nname = Test\nemail = test@example.com\n", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPIER_SETTINGS_PATH", str(home / "copier.yml"))
        patch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        # The environment of this test run is not the one of the projects that it makes.
        patch.delenv("VIRTUAL_ENV", raising=False)
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            # Without bytecode every start of a program compiles whatever it imports.
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(home / "bytecode"))
        if versions := _pyenv_versions():
            patch.setenv("PYENV_VERSION", versions)
        for name in [name for name in os.environ if name.startswith("LLMGINE_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository without tags; read only."""
    return snapshot(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def render(copie_session: Any, template: Path) -> Render:
    """Render a project, once for each set of answers; what comes back is read only."""
    made: dict[str, Path] = {}

    def render_once(answers: Answers) -> Path:
        data = answers.as_data()
        key = json.dumps(data, sort_keys=True)
        if key not in made:
            with quick_copier():
                result = copie_session.copy(extra_answers=data, template_dir=template)
            assert result.exception is None
            assert result.project_dir is not None
            assert {name: result.answers[name] for name in data} == data
            made[key] = result.project_dir
        return made[key]

    return render_once


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Callable[[Answers], Path]:
    """Render a project that the test may change."""

    def copy(answers: Answers) -> Path:
        return shutil.copytree(render(answers), tmp_path / answers.project_name)

    return copy


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command line in a folder and return what it printed; it must succeed."""

    def run_in(
        folder: Path,
        command: str,
        *,
        environment: Mapping[str, str] | None = None,
        typed: str = "",
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: S602 - as somebody would type it
            command,
            shell=True,
            check=False,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            input=typed,
            capture_output=True,
            text=True,
            **options,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run_in

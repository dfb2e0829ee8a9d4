"""The preset `spine`: into an existing uv workspace, and into a FastAPI application."""

import re
from pathlib import Path

import pytest
from copier import run_copy
from jinja2 import Environment, FileSystemLoader

from extensions.answers import Answers
from tests.conftest import Run, commit, git

pytestmark = [pytest.mark.timeout(600), pytest.mark.heavy]

WORKSPACE = """\
[project]
name = "shop"
version = "1.0.0"
requires-python = ">=3.11"

[tool.uv.workspace]
members = ["packages/*"]
"""
MEMBER = """\
[project]
name = "web"
version = "1.0.0"
requires-python = ">=3.11"
dependencies = ["fastapi", "httpx2"]

[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"
"""
USE = """

@dataclass(frozen=True, kw_only=True)
class Greet(Command[str]):
    name: str


async def greet(command: Greet) -> str:
    return f"Hello, {command.name}!"


@api.get("/greet/{name}")
async def greeting(name: str) -> str:
    bus = api.state.app.bus
    with suppress(DuplicateHandlerError):
        bus.register_command_handler(Greet, greet)
    return await bus.execute(Greet(name=name))


with TestClient(api) as client:
    answers = [client.get("/greet/Ada").json() for _ in range(2)]
assert answers == ["Hello, Ada!", "Hello, Ada!"]
"""
IMPORTS = """\
from contextlib import suppress
from dataclasses import dataclass

from fastapi.testclient import TestClient
from llmgine.contracts import Command
from llmgine.errors import DuplicateHandlerError
"""


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Path:
    """A workspace that had a life before the spine moved in."""
    package = tmp_path / "packages" / "web" / "src" / "web"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "packages" / "web" / "pyproject.toml").write_text(MEMBER, "utf-8")
    (tmp_path / "pyproject.toml").write_text(WORKSPACE, "utf-8")
    (tmp_path / "README.md").write_text("# Shop\n", "utf-8")
    (tmp_path / ".gitignore").write_text(".venv\nuv.lock\n__pycache__\n.*_cache\n", "utf-8")
    commit(tmp_path)
    data = {"preset": "spine"}
    run_copy(str(template), tmp_path, data=data, defaults=True, quiet=True, vcs_ref="HEAD")
    return tmp_path


def test_the_spine_moves_in_without_touching_a_file(workspace: Path) -> None:
    changed = git(workspace, "status", "--porcelain", "--untracked-files=normal").splitlines()
    assert sorted(changed) == ["?? .copier-answers.yml", "?? libs/", "?? tools/"]


def test_its_own_first_steps_work_and_a_fastapi_application_takes_it_in(
    workspace: Path, template: Path, run: Run
) -> None:
    jinja = Environment(loader=FileSystemLoader(template / "includes"), autoescape=False)  # noqa: S701
    steps = jinja.get_template("first-steps.md").render(Answers(preset="spine").as_data())
    commands = re.findall(r"^    (\S.*)$", steps, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        run(workspace, command)

    readme = (workspace / "libs/llmgine/README.md").read_text("utf-8")
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    lifespan = found[1].partition("@asynccontextmanager")[2].partition("\n\n\n")[0]
    assert len([line for line in lifespan.splitlines() if line.strip()]) < 10

    (workspace / "serve.py").write_text(IMPORTS + found[1] + USE, "utf-8")
    run(workspace, "uv run --all-packages python -W error::RuntimeWarning serve.py")

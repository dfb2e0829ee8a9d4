"""Rendered projects do what they say: their own checks pass, their commands run."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from tests.conftest import Run, commit, git

pytestmark = pytest.mark.timeout(900)

Copy = Callable[[Answers], Path]

REPRESENTATIVE = [
    pytest.param(Answers(), id="default"),
    pytest.param(Answers(preset="custom", provider="local"), id="local", marks=pytest.mark.heavy),
    pytest.param(
        Answers(preset="custom", apps=(), handlers=(), ci="none"),
        id="library",
        marks=pytest.mark.heavy,
    ),
    pytest.param(
        Answers(preset="custom", handlers=("console",), project_description='A "quoted" <one>'),
        id="console",
        marks=pytest.mark.heavy,
    ),
    pytest.param(
        Answers(preset="custom", handlers=("console", "file", "otel")),
        id="opentelemetry",
        marks=pytest.mark.heavy,
    ),
    pytest.param(
        Answers(
            preset="custom",
            apps=("chat", "mcp_server"),
            provider="openai",
            other_providers=("anthropic",),
            extras=("resilience", "mcp"),
            python_version="3.12",
        ),
        id="providers-and-extras",
        marks=pytest.mark.heavy,
    ),
    pytest.param(
        Answers(preset="custom", provider="litellm", handlers=("file",), store="memory"),
        id="litellm",
        marks=pytest.mark.heavy,
    ),
    pytest.param(
        Answers(preset="custom", handlers=("file",), python_version="3.13"),
        id="file-newest-python",
        marks=pytest.mark.heavy,
    ),
]


@pytest.mark.parametrize("answers", REPRESENTATIVE)
def test_a_project_passes_its_own_checks(project: Copy, run: Run, answers: Answers) -> None:
    folder = project(answers)
    environment = {"UV_PYTHON": answers.python_version}
    done = run(folder, "uv run just check", environment=environment)
    assert re.search(r"\d+ passed", done.stdout)
    commit(folder)
    run(folder, "uv run just lint", environment=environment)
    assert git(folder, "status", "--porcelain") == "", "its checks leave the tree as it was"


@pytest.mark.heavy
def test_the_import_rules_of_a_project_find_what_breaks_them(project: Copy, run: Run) -> None:
    folder = project(Answers())
    memory = folder / "libs/llmgine/src/llmgine/context/memory.py"
    memory.write_text(f"{memory.read_text('utf-8')}\nimport llmgine.bus.core\n", "utf-8")
    with pytest.raises(AssertionError, match=r"llmgine\.context\.memory -> llmgine\.bus"):
        run(folder, "uv run lint-imports")


def _commands(folder: Path) -> list[str]:
    """The commands of the first steps, which head the README."""
    steps = (folder / "README.md").read_text("utf-8").partition("\n## ")[0]
    return re.findall(r"^    (\S.*)$", steps, re.MULTILINE)


@pytest.mark.heavy
def test_every_command_of_the_first_steps_works_as_printed(project: Copy, run: Run) -> None:
    folder = project(Answers())
    commands = _commands(folder)
    assert len(commands) == 4
    for command in commands:
        # The conversation is typed into; it ends with its input.
        run(folder, command, typed="Hello\n" if command == "uv run chat" else "")
    staged = git(folder, "diff", "--cached", "--name-only").splitlines()
    assert {"uv.lock", "README.md"} <= set(staged)
    assert not [path for path in staged if path.startswith((".llmgine", ".venv"))]


def test_the_chat_answers_in_a_project_without_development_tools(project: Copy, run: Run) -> None:
    """From scratch: an environment of its own, with what runs and nothing else."""
    folder = project(Answers())
    run(folder, "uv sync --no-dev")
    done = run(folder, 'uv run --no-dev chat --once "What time is it?"')
    assert done.stdout.strip()

    listed = run(folder, "uv pip list --quiet --format=freeze --python .venv").stdout
    members = {path.parent.name for path in folder.glob("*/*/pyproject.toml")}
    installed = {line.partition("==")[0] for line in listed.splitlines()}
    assert members < installed
    assert len(installed - members) <= 20, sorted(installed)

    environment = sum(f.stat().st_size for f in (folder / ".venv").rglob("*") if f.is_file())
    assert environment <= 60_000_000


@pytest.mark.heavy
def test_the_local_model_answers(project: Copy, run: Run) -> None:
    folder = project(Answers(provider="local"))
    done = run(folder, 'uv run --no-dev chat --provider local --once "Say hello."')
    assert done.stdout.strip()

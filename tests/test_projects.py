"""Rendered projects do what they say: their own checks pass, their commands run."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from urllib.request import urlopen

import pytest

from extensions.answers import Answers
from extensions.questionnaire import questions
from tests.conftest import Run, commit, git
from tests.matrix import NEWEST, OLDEST, Checks, rows

pytestmark = pytest.mark.timeout(1800)

Copy = Callable[[Answers], Path]


def test_a_project_passes_its_own_checks(project: Copy, run: Run) -> None:
    answers = Answers()
    folder = project(answers)
    environment = {"UV_PYTHON": answers.python_version}
    done = run(folder, "uv run just check", environment=environment)
    assert re.search(r"\d+ passed", done.stdout)
    commit(folder)
    run(folder, "uv run just lint", environment=environment)
    assert git(folder, "status", "--porcelain") == "", "its checks leave the tree as it was"


def test_every_choice_is_tested_on_the_oldest_and_on_the_newest_python() -> None:
    for question in questions():
        if question.choices and question.name not in {"preset", "python_version"}:
            for choice, python in product(question.choices, (OLDEST, NEWEST)):
                tested = [row.as_data()[question.name] for row in rows(python)]
                assert any(choice == each or choice in each for each in tested), (choice, python)


LEAVES = """
import socket
import subprocess
import sys

CODE = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=0.1)"


def test_a_program_that_looks_for_news() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=False, capture_output=True)
"""


@pytest.mark.heavy
def test_a_project_whose_tests_leave_the_machine_is_found_out(
    project: Copy, run: Run, tmp_path: Path
) -> None:
    checks = Checks(run, OLDEST, tmp_path / "environment")
    folder = project(Answers())
    test = folder / "tests/test_news.py"
    test.write_text(LEAVES, "utf-8")
    checks.sync(folder)
    with pytest.raises(AssertionError, match=r"socket\.\w+ 192\.0\.2\.1: -c"):
        checks.test(folder, [test])


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
@pytest.mark.parametrize(
    ("answers", "count"),
    [
        pytest.param(Answers(), 4, id="minimal"),
        pytest.param(Answers(preset="full", provider="openai"), 6, id="full"),
    ],
)
def test_every_command_of_the_first_steps_works_as_printed(
    project: Copy, run: Run, answers: Answers, count: int
) -> None:
    folder = project(answers)
    commands = _commands(folder)
    assert len(commands) == count
    for command in commands:
        if command.startswith("uv run api"):
            _serve(folder, f"{command} --port 0")  # the one that is printed may be taken
        elif command != "uv run just check" or answers.preset == "minimal":
            # The matrix lets the others pass their checks. A conversation ends with its input.
            run(folder, command, typed="Hello\n" if command.startswith("uv run chat") else "")
    staged = git(folder, "diff", "--cached", "--name-only").splitlines()
    assert {"uv.lock", "README.md"} <= set(staged)
    assert not [path for path in staged if path.startswith((".llmgine", ".venv"))]


def _serve(folder: Path, command: str) -> None:
    """Run a server as somebody would type it, look at its page, and press Ctrl-C."""
    with subprocess.Popen(  # noqa: S602
        command,
        shell=True,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            url = re.search(r"^listening on (http://\S+);", line)
            assert url, line
            with urlopen(url[1]) as page:  # noqa: S310
                assert "<title>" in page.read().decode()
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.stderr.read()
    assert process.returncode in {0, 130, -signal.SIGINT}


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

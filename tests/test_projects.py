"""Rendered projects do what they say: their own checks pass, their commands run."""

import json
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from extensions.answers import Answers
from extensions.matrix import pairwise
from extensions.questionnaire import questions
from tests.conftest import Run, commit, git
from tests.sharing import Ledger, Tree

pytestmark = pytest.mark.timeout(1800)

Copy = Callable[[Answers], Path]

# Those of one Python run one after another, in one environment that uv brings up to what each of
# them asks for. The short tests check a project of the oldest Python.
ROWS = [
    pytest.param(answers, id=f"pair{at}-{answers.python_version}", marks=pytest.mark.matrix)
    for at, answers in enumerate(pairwise())
]
LOOPBACK = Path(__file__).parent / "loopback"
# Which packages bring what can be imported: asked of the project's own Python.
PACKAGES = """
import json
from importlib.metadata import packages_distributions, version

brought = packages_distributions().items()
print(json.dumps({name: [f"{each}=={version(each)}" for each in {*by}] for name, by in brought}))
"""


def test_a_project_passes_its_own_checks(project: Copy, run: Run) -> None:
    answers = Answers()
    folder = project(answers)
    environment = {"UV_PYTHON": answers.python_version}
    done = run(folder, "uv run just check", environment=environment)
    assert re.search(r"\d+ passed", done.stdout)
    commit(folder)
    run(folder, "uv run just lint", environment=environment)
    assert git(folder, "status", "--porcelain") == "", "its checks leave the tree as it was"


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rows of each Python have their environment."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def ledgers() -> Mapping[str, Ledger]:
    """What has passed under each Python."""
    return defaultdict(Ledger)


@cache
def _alone() -> str:
    """A command that runs another one without a network, where the machine can do that."""
    starts = "ip link set lo up"
    tried = shutil.which("unshare") and subprocess.run(  # noqa: S602 - no input in it
        f"unshare --net {starts}", shell=True, check=False, capture_output=True
    )
    return (
        f"unshare --net sh -c '{starts} && exec \"$@\"' sh "
        if tried and not tried.returncode
        else ""
    )


def _tested(run: Run, folder: Path, files: Iterable[Path], environment: Mapping[str, str]) -> None:
    """Run these files of tests; none of them may leave the machine."""
    strangers = folder.parent / "strangers.txt"
    paths = shlex.join(str(path.relative_to(folder)) for path in files)
    run(
        folder,
        f"{_alone()}uv run --no-sync pytest -q -n 2 --dist loadfile -p no:cacheprovider {paths}",
        environment={**environment, "PYTHONPATH": str(LOOPBACK), "STRANGERS": str(strangers)},
    )
    assert not strangers.exists(), strangers.read_text("utf-8")


@pytest.fixture
def made(
    project: Copy, run: Run, environments: Path
) -> Callable[[Answers], tuple[Path, dict[str, str]]]:
    """Render a project, and bring the environment of its Python up to what it asks for."""

    def make(answers: Answers) -> tuple[Path, dict[str, str]]:
        place = environments / answers.python_version
        environment = {"UV_PYTHON": answers.python_version, "UV_PROJECT_ENVIRONMENT": str(place)}
        folder = project(answers)
        run(folder, "uv sync --quiet", environment=environment)
        return folder, environment

    return make


@pytest.mark.parametrize("answers", ROWS)
def test_every_pair_of_choices_passes_its_own_checks(
    made: Callable[[Answers], tuple[Path, dict[str, str]]],
    run: Run,
    ledgers: Mapping[str, Ledger],
    answers: Answers,
) -> None:
    folder, environment = made(answers)
    run(folder, "uv run --no-sync just lint imports", environment=environment)

    command = f"uv run --no-sync python -c {shlex.quote(PACKAGES)}"
    packages = json.loads(run(folder, command, environment=environment).stdout)
    tree, ledger = Tree(folder, packages), ledgers[answers.python_version]
    keys = {path: tree.key(path) for path in tree.files()}
    if new := ledger.missing("types", keys):
        paths = shlex.join(str(path.relative_to(folder)) for path in new)
        command = f"uv run --no-sync pyright --project pyproject.toml {paths}"
        run(folder, command, environment=environment)
        ledger.passed("types", keys.values())

    # Whoever looks about may find another project here; the others find what they import.
    shared = {path: keys[path] for path in tree.tests() if not tree.looks_about(path)}
    about = [path for path in tree.tests() if path not in shared]
    _tested(run, folder, [*about, *ledger.missing("tests", shared)], environment)
    ledger.passed("tests", shared.values())


def test_every_choice_is_tested_on_the_oldest_and_on_the_newest_python() -> None:
    [pythons] = [question.choices for question in questions() if question.name == "python_version"]
    for question in questions():
        if question.choices and question.name not in {"preset", "python_version"}:
            for choice, python in product(question.choices, pythons):
                rows = [answers.as_data() for answers in pairwise()]
                tested = [row[question.name] for row in rows if row["python_version"] == python]
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
    made: Callable[[Answers], tuple[Path, dict[str, str]]], run: Run
) -> None:
    folder, environment = made(Answers())
    test = folder / "tests/test_news.py"
    test.write_text(LEAVES, "utf-8")
    with pytest.raises(AssertionError, match=r"socket\.\w+ 192\.0\.2\.1: -c"):
        _tested(run, folder, [test], environment)


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

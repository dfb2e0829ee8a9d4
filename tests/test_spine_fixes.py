"""`tools/spine status --fixes`: which fixes are alive is found by running their tests."""

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extensions.answers import Answers
from extensions.manifest import blob_id
from extensions.matrix import rendered_files
from extensions.questionnaire import TEMPLATE
from tests.conftest import commit, git
from tests.rendering import stand_in
from tests.updating import Project, Releases

pytestmark = pytest.mark.timeout(600)

LEDGER = "tools/spine/fixes.toml"
SESSIONS = "libs/llmgine/src/llmgine/bus/sessions.py"
MENDED = "if lane.ended or not lane.is_session:"
TESTS = "libs/llmgine/tests"
RESTART, LOGS = f"{TESTS}/bus/test_stop_and_restart.py", f"{TESTS}/observability/test_logs.py"
ENDS_ONCE = "test_a_session_left_while_the_bus_stops_ends_once"
STOPPING = {
    "fine": "def test_it(): ...\n",
    "unloaded": "import no_such_module\n\ndef test_it(): ...\n",
    "skipped": "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    "def test_it(): ...\n",
    "dying": "import os\n\ndef test_it(): os._exit(3)\n",
    "failing": "def test_it(): assert False, 'it holds'\n",
}
NEW = """
[[fix]]
id = "LF-900"
since = "0.2.0"
title = "Chat: a part that every project has"
tests = ["libs/llmgine/tests/bus/test_sessions.py::test_any"]

[[fix]]
id = "LF-901"
since = "0.2.0"
title = "OpenAI: a part that this project lacks"
tests = ["libs/llmgine/tests/providers/test_openai.py::test_any"]
"""


def _entries() -> dict[str, dict[str, Any]]:
    ledger = tomllib.loads((TEMPLATE / LEDGER).read_text("utf-8"))["fix"]
    return {fix["id"]: fix for fix in ledger}


def _id_of(test: str) -> str:
    """The fix that a test holds; tests find fixes by what they are about, not by number."""
    return next(
        name for name, fix in _entries().items() if any(test in one for one in fix["tests"])
    )


ENDING, BRIDGE, OPENAI = (_id_of(name) for name in (RESTART, LOGS, "test_openai.py"))


@pytest.fixture(scope="module")
def releases(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases.of(template, tmp_path_factory.mktemp("releases") / "template")
    made.append(LEDGER, NEW)
    made.release("v0.2.0")
    return made


@pytest.fixture(scope="module")
def rendered(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("rendered") / "project"
    return Project.copied(releases.folder, folder, version="v0.1.0")


@pytest.fixture
def project(rendered: Project, tmp_path: Path) -> Project:
    return rendered.copy(tmp_path / "project")


def _uv(folder: Path, source: Path) -> Path:
    """A uv that runs pytest in this environment, with the sources of a project."""
    program = folder / "uv"
    run = f'while [ "$1" != pytest ]; do shift; done\nexport PYTHONPATH="{source}"\n'
    program.write_text(f'#!/bin/sh\n{run}exec "{sys.executable}" -m "$@"\n', "utf-8")
    program.chmod(0o755)
    return program


@pytest.fixture
def quick(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A project with three fixes, whose tests run in this environment."""
    head, *entries = project.text(LEDGER).split("[[fix]]\n")
    wanted = [entry for entry in entries if any(name in entry for name in (ENDING, BRIDGE, OPENAI))]
    project.write(LEDGER, "[[fix]]\n".join([head, *wanted]))
    project.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV", str(_uv(tmp_path, project.folder / "libs/llmgine/src")))
        yield project


def _small(folder: Path) -> Project:
    """A project that has nothing but tools/spine, and a test for each fix."""
    project = Project(folder=folder)
    shutil.copytree(TEMPLATE / "tools", folder / "tools")
    entry = '[[fix]]\nid = "{0}"\nsince = "0.1.0"\ntitle = "It holds"\ntests = ["{1}::test_it"]\n'
    paths = {name: f"{TESTS}/test_{name}.py" for name in STOPPING}
    project.write(LEDGER, "".join(entry.format(name, path) for name, path in paths.items()))
    for name, path in paths.items():
        project.write(path, STOPPING[name])
    project.write("pytest.ini", "[pytest]\naddopts = --import-mode=importlib -x\n")
    project.write(".copier-answers.yml", "_src_path: /nowhere\n_commit: v0.1.0\n")
    names = [path for path in project.files() if path.startswith(("libs/", "tools/"))]
    manifest = {
        "version": "0.1.0",
        "answers": {"file": ".copier-answers.yml", "sha1": ""},
        "files": {path: blob_id(folder / path) for path in names},
    }
    project.write("tools/spine/manifest.json", json.dumps(manifest))
    commit(folder)
    return project


def _states(project: Project, *, status: int = 0) -> dict[str, tuple[str, str]]:
    """State and note of each fix."""
    report = json.loads(project.spine("status", "--fixes", "--format", "json", status=status))
    assert sum(report["counts"].values()) == len(report["fixes"])
    return {each["fix"]["id"]: (each["state"], each["note"]) for each in report["fixes"]}


def test_fixes_are_alive_lost_or_not_of_this_project(quick: Project) -> None:
    absent = ("absent", "an answer leaves out what it mends")
    assert _states(quick) == {ENDING: ("alive", ""), BRIDGE: ("alive", ""), OPENAI: absent}

    quick.change(SESSIONS, MENDED, "if lane.ended:")
    told = quick.spine("status", "--fixes", status=1)
    title = _entries()[ENDING]["title"]
    assert told.startswith("llmgine v0.1.0: 3 fixes: 1 absent, 1 alive, 1 lost\n")
    assert f"\n  lost      {ENDING}  {title} ({RESTART}::{ENDS_ONCE}: " in told
    table = quick.spine("status", "--fixes", "--format", "markdown", status=1)
    assert f"\n| lost | {ENDING} | {title} | {RESTART}::{ENDS_ONCE}: " in table
    assert f"\n| alive | {BRIDGE} |" in table


@pytest.mark.heavy
def test_a_fix_is_alive_wherever_it_and_its_tests_were_moved(quick: Project) -> None:
    git(quick.folder, "mv", SESSIONS, SESSIONS.replace("sessions", "visits"))
    for path in (quick.folder / "libs/llmgine").rglob("*.py"):
        text = path.read_text("utf-8")
        path.write_text(text.replace("llmgine.bus.sessions import", "llmgine.bus.visits import"))
    git(quick.folder, "mv", RESTART, RESTART.replace("bus/test_stop", "test_our_stop"))
    assert _states(quick)[ENDING][0] == "alive"
    quick.change(SESSIONS.replace("sessions", "visits"), MENDED, "if lane.ended:")
    assert _states(quick, status=1)[ENDING][0] == "lost"


def test_a_test_that_is_missing_or_was_edited_is_said_so(quick: Project) -> None:
    (quick.folder / LOGS).unlink()
    quick.change(RESTART, f"def {ENDS_ONCE}", f"def our_{ENDS_ONCE}")
    assert _states(quick) == {
        ENDING: ("untested", f"{RESTART} has no {ENDS_ONCE}"),
        BRIDGE: ("untested", f"{LOGS} was deleted"),
        OPENAI: ("absent", "an answer leaves out what it mends"),
    }
    quick.change(RESTART, f"def our_{ENDS_ONCE}", f"def {ENDS_ONCE}")
    quick.write(RESTART, quick.text(RESTART) + "\n# Ours.\n")
    assert _states(quick)[ENDING] == ("alive", f"you edited {RESTART}")


def test_a_test_that_stops_pytest_hides_no_other(tmp_path: Path) -> None:
    project = _small(tmp_path / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV", str(_uv(tmp_path, tmp_path)))
        states = _states(project, status=1)
    path = f"{TESTS}/test_%s.py::test_it"
    assert states == {
        "fine": ("alive", ""),
        "unloaded": (
            "lost",
            f"{path % 'unloaded'}: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        "skipped": ("untested", f"{path % 'skipped'} was skipped: not here"),
        "dying": ("lost", f"{path % 'dying'}: pytest can't end it"),
        "failing": ("lost", f"{path % 'failing'}: AssertionError: it holds"),
    }


def test_what_keeps_the_tests_from_running_is_one_line(
    quick: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'no such index' >&2\nexit 2\n", "utf-8")
    refused = quick.spine("status", "--fixes", status=2)
    assert refused == "spine: pytest can't be run: no such index\n"
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(Path(git(quick.folder, "--exec-path").strip())))
    assert "uv isn't installed" in quick.spine("status", "--fixes", status=2)
    quick.write(LEDGER, "[[fix]]\nid = 1\n")
    refused = quick.spine("status", "--fixes", status=2)
    assert f"{LEDGER} is missing or damaged" in refused
    assert refused.count("\n") == 1
    assert "not allowed with" in quick.spine("status", "--fixes", "--behind", status=2)


@pytest.mark.heavy
def test_an_update_names_the_fixes_that_it_brings(project: Project, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_in(tmp_path).items():
            patch.setenv(name, value)
        for arguments in (["--dry-run"], []):
            told = project.spine("update", *arguments)
            assert "\n  brings      LF-900: Chat: a part that every project has\n" in told
            assert "LF-901" not in told
            assert "LF-001" not in told


@pytest.mark.heavy
@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(Answers(), id="default"),
        pytest.param(
            Answers(
                preset="custom",
                handlers=("console", "file", "otel"),
                provider="openai",
                other_providers=("anthropic",),
                extras=("resilience", "mcp"),
            ),
            id="much",
        ),
    ],
)
def test_every_fix_of_a_fresh_project_is_alive(
    template: Path, tmp_path: Path, answers: Answers
) -> None:
    project = Project.copied(template, tmp_path / "project", **answers.as_data())
    brought = rendered_files(answers)
    assert {name: state for name, (state, _) in _states(project).items()} == {
        name: "alive" if fix["tests"][0].partition("::")[0] in brought else "absent"
        for name, fix in _entries().items()
    }
    # Looking leaves nothing behind but what uv makes.
    assert git(project.folder, "status", "--porcelain").splitlines() == ["?? uv.lock"]

"""Projects that are checked on one Python, each file of theirs once.

They are looked at one after another, in one environment that uv brings up to what each of them asks
for; what another one has shown already is not looked at again.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from extensions.answers import Answers
from extensions.matrix import pairwise, rendered_files
from extensions.questionnaire import questions
from tests.conftest import Run
from tests.sharing import Ledger, Tree

__all__ = ["NEWEST", "OLDEST", "Checks", "rows"]

[_PYTHONS] = [question.choices for question in questions() if question.name == "python_version"]
OLDEST, *_, NEWEST = _PYTHONS

_LOOPBACK = Path(__file__).parent / "loopback"
# Which packages bring what can be imported: asked of the project's own Python.
_PACKAGES = """
import json
from importlib.metadata import packages_distributions, version

brought = packages_distributions().items()
print(json.dumps({name: [f"{each}=={version(each)}" for each in {*by}] for name, by in brought}))
"""


def rows(python: str) -> list[Answers]:
    """The answers that are tested on this Python, the largest project first."""
    found = [each for each in pairwise(ends=True) if each.python_version == python]
    return sorted(found, key=lambda answers: -len(rendered_files(answers)))


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


class Checks:
    """Checks projects on one Python, in one environment.

    Args:
        run: runs a command.
        python: the version of Python.
        environment: the folder of the environment.
    """

    def __init__(self, run: Run, python: str, environment: Path) -> None:
        self._run = run
        self._environment = {"UV_PYTHON": python, "UV_PROJECT_ENVIRONMENT": str(environment)}
        self._ledger = Ledger()

    def sync(self, folder: Path) -> None:
        """Bring the environment up to what a project asks for."""
        self._in(folder, "uv sync --quiet")

    def check(self, folder: Path) -> None:
        """Let a project pass its own checks."""
        self.sync(folder)
        self._in(folder, "uv run --no-sync just lint imports")
        packages = self._in(folder, f"uv run --no-sync python -c {shlex.quote(_PACKAGES)}")
        tree = Tree(folder, json.loads(packages))
        keys = {path: tree.key(path) for path in tree.files()}
        if new := self._ledger.missing("types", keys):
            self._in(folder, "uv run --no-sync pyright --project pyproject.toml", new)
            self._ledger.passed("types", keys.values())

        # Whoever looks about may find another project here; the others find what they import.
        shared = {path: keys[path] for path in tree.tests() if not tree.looks_about(path)}
        about = [path for path in tree.tests() if path not in shared]
        self.test(folder, [*about, *self._ledger.missing("tests", shared)])
        self._ledger.passed("tests", shared.values())

    def test(self, folder: Path, files: Iterable[Path]) -> None:
        """Run these files of tests; none of them may leave the machine.

        What fails among others has a second chance by itself: a busy machine has its own ways.
        """
        strangers, cache = folder.parent / "strangers.txt", folder.parent / "cache"
        environment = {"PYTHONPATH": str(_LOOPBACK), "STRANGERS": str(strangers)}
        command = f"{_alone()}uv run --no-sync pytest -q -o cache_dir={cache}"
        try:
            self._in(folder, f"{command} -n 3 --dist loadfile", files, **environment)
        except AssertionError as error:
            sys.stderr.write(f"{error}\n")
            self._in(folder, f"{command} -n 0 --last-failed", files, **environment)
        assert not strangers.exists(), strangers.read_text("utf-8")

    def _in(
        self, folder: Path, command: str, files: Iterable[Path] = (), **environment: str
    ) -> str:
        paths = shlex.join(str(path.relative_to(folder)) for path in files)
        done = self._run(
            folder, f"{command} {paths}", environment={**self._environment, **environment}
        )
        return done.stdout

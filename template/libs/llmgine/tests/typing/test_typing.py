"""Both type checkers infer results and refuse handlers that don't fit."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

HERE = Path(__file__).parent
Checker: TypeAlias = subprocess.Popen[str]
CHECKERS = ("pyright", "mypy")
# What the codec imports takes half of the time, and is no part of what is checked here.
MYPY = """
[mypy]
strict = true
[mypy-pydantic.*,pydantic_core.*]
follow_imports = skip
"""
ERROR = re.compile(r"(good|bad)\.py:(\d+)(?::\d+)? ?[-:] error:")


def _marked(checker: str) -> set[tuple[str, int]]:
    """Return the lines of bad.txt that this checker must refuse: `# E`, or `# E` and its name."""
    lines = (HERE / "bad.txt").read_text(encoding="utf-8").splitlines()
    return {
        ("bad", number)
        for number, line in enumerate(lines, start=1)
        if line.endswith(("# E", f"# E {checker}"))
    }


def _start(checker: str, at: Path) -> Checker:
    """Let it check copies of both files, under strict settings."""
    shutil.copy(HERE / "good.py", at)
    # Here it is no Python file, so that the project's own checks pass it over.
    shutil.copy(HERE / "bad.txt", at / "bad.py")
    (at / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    (at / "mypy.ini").write_text(MYPY, encoding="utf-8")
    options = {"pyright": ["--pythonpath", sys.executable], "mypy": ["--cache-dir", "cache"]}
    return subprocess.Popen(  # noqa: S603 - the arguments are ours
        [sys.executable, "-m", checker, *options[checker], "good.py", "bad.py"],
        cwd=at,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},  # asks nobody for newer versions
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checker]]:
    """Both checkers at work, beside each other: each takes some seconds."""
    with ExitStack() as stack:
        yield {
            checker: stack.enter_context(_start(checker, tmp_path_factory.mktemp(checker)))
            for checker in CHECKERS
            if importlib.util.find_spec(checker) is not None
        }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_good_handlers_are_taken_and_bad_ones_refused(
    checker: str, running: dict[str, Checker]
) -> None:
    if checker not in running:
        pytest.skip(f"{checker} isn't installed")
    output, _ = running[checker].communicate()
    assert running[checker].returncode == 1, output
    assert {(name, int(line)) for name, line in ERROR.findall(output)} == _marked(checker)

"""Both type checkers infer results and refuse handlers that don't fit."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ERROR = re.compile(r"(good|bad)\.py:(\d+)(?::\d+)? ?[-:] error:")


def _marked(checker: str) -> set[tuple[str, int]]:
    """Return the lines of bad.txt that this checker must refuse: `# E`, or `# E` and its name."""
    lines = (HERE / "bad.txt").read_text(encoding="utf-8").splitlines()
    return {
        ("bad", number)
        for number, line in enumerate(lines, start=1)
        if line.endswith(("# E", f"# E {checker}"))
    }


def _refused(checker: str, at: Path) -> set[tuple[str, int]]:
    """Return the lines with errors in copies of both files, under strict settings."""
    shutil.copy(HERE / "good.py", at)
    # Here it is no Python file, so that the project's own checks pass it over.
    shutil.copy(HERE / "bad.txt", at / "bad.py")
    (at / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    options = {
        "pyright": ["--pythonpath", sys.executable],
        "mypy": ["--strict", "--cache-dir", "cache", "--config-file", ""],
    }
    ran = subprocess.run(  # noqa: S603 - the arguments are ours
        [sys.executable, "-m", checker, *options[checker], "good.py", "bad.py"],
        cwd=at,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return {(name, int(line)) for name, line in ERROR.findall(ran.stdout)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", ["pyright", "mypy"])
def test_good_handlers_are_taken_and_bad_ones_refused(checker: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} isn't installed")
    assert _refused(checker, tmp_path) == _marked(checker)

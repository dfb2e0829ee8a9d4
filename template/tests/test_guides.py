"""The guides' examples run as they stand: a folder of tests, and a program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTINGS = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
faulthandler_timeout = 100
"""
# Programs start slowly where much else runs; one that hangs says where before its time is up.
pytestmark = pytest.mark.timeout(240)
# First with a provider, then with one that can't be had. A start of Python is slow: it is one.
TWICE = """
import os
import pytest

for name, value in ("LLMGINE_CASSETTES", "record"), ("LLMGINE_PROVIDER__NAME", "theirs:missing"):
    os.environ[name] = value
    pytest.main(["-q", "-p", "no:cacheprovider"])
    del os.environ[name]
"""


def needs(page: str) -> pytest.MarkDecorator:
    absent = not (DOCS / f"{page}.md").exists()
    return pytest.mark.skipif(absent, reason="not part of this project")


def examples(page: str) -> list[str]:
    found = EXAMPLE.findall((DOCS / f"{page}.md").read_text("utf-8"))
    assert found, f"{page}.md: no example"
    return found


@needs("testing")
def test_the_tests_of_the_guide_are_recorded_and_then_answered_from_there(tmp_path: Path) -> None:
    conftest, *rest = examples("testing")
    (tmp_path / "pytest.ini").write_text(SETTINGS, "utf-8")
    (tmp_path / "conftest.py").write_text(conftest, "utf-8")
    (tmp_path / "test_headline.py").write_text("\n\n".join(rest), "utf-8")
    environment = {name: value for name, value in os.environ.items() if "LLMGINE" not in name}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", TWICE],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        env=environment,
        text=True,
        timeout=200,
    )
    assert len(re.findall(r"^4 passed in", done.stdout, re.MULTILINE)) == 2, done.stdout
    folder = tmp_path / "cassettes" / "test_headline"
    assert sorted(each.name for each in folder.iterdir()) == [
        "test_a_headline_is_short.json",
        "test_the_news_of_this_moment.news.json",
    ]


@needs("budgets")
def test_the_examples_about_budgets_are_one_program_that_runs(tmp_path: Path) -> None:
    program = tmp_path / "budgets.py"
    program.write_text("\n".join(examples("budgets")), "utf-8")
    subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", program], cwd=tmp_path, check=True, timeout=200
    )

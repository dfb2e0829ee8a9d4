"""The examples of the documentation run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Pages on how to write a part, each with the part and its tests.
PARTS = ("handlers", "stores", "tools")
SETTINGS = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def examples(page: str) -> list[str]:
    found = EXAMPLE.findall((DOCS / f"{page}.md").read_text("utf-8"))
    assert found, f"{page}.md has no example"
    return found


def test_the_examples_of_the_concepts_page_are_one_program_that_runs(tmp_path: Path) -> None:
    program = tmp_path / "concepts.py"
    program.write_text("\n".join(examples("concepts")), "utf-8")
    subprocess.run([sys.executable, "-W", "error", program], check=True, timeout=50)  # noqa: S603


@pytest.mark.parametrize("page", PARTS)
def test_the_part_that_a_page_shows_is_short(page: str) -> None:
    assert len(examples(page)[0].splitlines()) < 60


def test_the_parts_that_the_pages_show_pass_their_tests(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(SETTINGS, "utf-8")
    for page in PARTS:
        module = tmp_path / f"test_{page}.py"
        module.write_text("\n\n".join(examples(page)), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout

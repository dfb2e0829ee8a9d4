"""The examples of the documentation run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from llmgine.bootstrap import ApplicationConfig

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The sections of one page on how to write a part, each with the part and its tests.
PARTS = ("A tool", "A context store", "A handler")
# Pages whose examples are a program; what an answer leaves out has no page.
PROGRAMS = [
    page
    for page in ("concepts", "mcp", "observability", "providers", "resilience")
    if (DOCS / f"{page}.md").exists()
]
SETTINGS = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
faulthandler_timeout = 100
"""
# Programs start slowly where much else runs; one that hangs says where before its time is up.
pytestmark = pytest.mark.timeout(240)


def examples(page: str, section: str = "") -> list[str]:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    if section:
        text = text.split(f"\n## {section} of your own\n")[1].split("\n## ")[0]
    found = EXAMPLE.findall(text)
    assert found, f"{page}.md, {section}: no example"
    return found


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_examples_of_a_page_are_one_program_that_runs(tmp_path: Path, page: str) -> None:
    program = tmp_path / f"page_{page}.py"  # `mcp.py` would hide a package
    program.write_text("\n".join(examples(page)), "utf-8")
    subprocess.run([sys.executable, "-W", "error", program], check=True, timeout=200)  # noqa: S603


def test_the_settings_that_pages_show_are_settings(tmp_path: Path) -> None:
    for page in DOCS.glob("*.md"):
        for shown in SETTING.findall(page.read_text("utf-8")):
            file = tmp_path / "settings.toml"
            file.write_text(shown, "utf-8")
            ApplicationConfig(settings_file=file)


@pytest.mark.parametrize("part", PARTS)
def test_the_part_that_is_shown_is_short(part: str) -> None:
    assert len(examples("extending", part)[0].splitlines()) < 60


def test_the_parts_that_are_shown_pass_their_tests(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(SETTINGS, "utf-8")
    for number, part in enumerate(PARTS):
        module = tmp_path / f"test_part_{number}.py"
        module.write_text("\n\n".join(examples("extending", part)), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout

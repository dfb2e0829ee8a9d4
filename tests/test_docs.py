"""The handbook's examples run, its links lead somewhere, and the README keeps its places."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extensions.questionnaire import ROOT

EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_adapters_of_the_handbook_pass_their_suites(tmp_path: Path) -> None:
    examples = EXAMPLE.findall((ROOT / "docs" / "adapters.md").read_text("utf-8"))
    assert len(examples) == 1
    (tmp_path / "test_adapters.py").write_text("\n".join(examples), "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("name", ["bus", "tools", "context"])
def test_the_benchmarks_have_their_place_in_the_readme(name: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"<!-- benchmarks:{name} -->.*<!-- /benchmarks:{name} -->", readme, re.DOTALL)

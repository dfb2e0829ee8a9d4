"""The handbook's links lead somewhere, and the README keeps its places."""

import re
from pathlib import Path

import pytest

from extensions.questionnaire import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("name", ["bus", "tools", "context", "observability"])
def test_the_benchmarks_have_their_place_in_the_readme(name: str) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"<!-- benchmarks:{name} -->.*<!-- /benchmarks:{name} -->", readme, re.DOTALL)

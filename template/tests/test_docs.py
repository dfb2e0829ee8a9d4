"""The examples of the documentation run as they stand."""

import re
from pathlib import Path

import pytest

CONCEPTS = Path(__file__).parent.parent / "docs" / "concepts.md"


@pytest.mark.filterwarnings("error")
def test_the_examples_of_the_concepts_page_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", CONCEPTS.read_text("utf-8"), re.M | re.S)
    assert blocks
    page: dict[str, object] = {"__name__": "concepts"}
    for block in blocks:
        exec(compile(block, str(CONCEPTS), "exec"), page)  # noqa: S102 - the page is ours

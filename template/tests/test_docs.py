"""The examples of the documentation run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

CONCEPTS = Path(__file__).parent.parent / "docs" / "concepts.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_concepts_page_are_one_program_that_runs(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(CONCEPTS.read_text("utf-8"))
    assert examples
    program = tmp_path / "concepts.py"
    program.write_text("\n".join(examples), "utf-8")
    subprocess.run([sys.executable, "-W", "error", program], check=True, timeout=50)  # noqa: S603

"""The checks' settings of this repository, taken from what projects receive.

A rendered project keeps all settings of its checks in its `pyproject.toml`. This repository runs
the same checks over the same code, so its own `pyproject.toml` repeats that part, made from it.
"""

import re

from jinja2 import Environment, StrictUndefined

from extensions.answers import APPS, Answers
from extensions.questionnaire import TEMPLATE

__all__ = ["check_settings"]

# What differs here: where code and tests lie, and the marker of this repository's own long tests.
_OURS = {
    r"^include = .*$": 'include = ["benchmarks", "extensions", "template", "tests"]',
    r"^testpaths = .*$": """\
testpaths = [
  "template/libs",
  "template/apps",
  "template/tests/test_docs.py",
  "template/tests/test_guides.py",
  "tests",
]
pythonpath = ["."]
markers = [
  "heavy: renders and checks whole projects; `just heavy` runs these",
  "matrix: every pair of choices as a project of its own; `just matrix` runs these",
]""",
}


def check_settings() -> str:
    """The tables from `[tool.ruff]` on, as a project with every part has them."""
    jinja = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - renders TOML
    source = (TEMPLATE / "pyproject.toml.jinja").read_text("utf-8")
    answers = Answers(preset="custom", apps=APPS)
    settings = jinja.from_string(source[source.index("[tool.ruff]\n") :]).render(answers.as_data())
    for pattern, line in _OURS.items():
        settings, count = re.subn(pattern, line, settings, flags=re.MULTILINE)
        if count != 1:
            message = f"template/pyproject.toml.jinja: {count} lines match {pattern!r}, not one"
            raise ValueError(message)
    return settings

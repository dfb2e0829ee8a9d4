"""Write everything that is made from something else: `uv run python -m extensions`."""

from pathlib import Path

from extensions.development import check_settings
from extensions.documents import question_table
from extensions.manifest import MANIFEST, manifest
from extensions.questionnaire import ROOT, TEMPLATE

__all__ = ["generated"]


def _between(path: Path, start: str, end: str, text: str) -> str:
    """The file's text with `text` between two marks that it holds."""
    before, found_start, rest = path.read_text("utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        message = f"{path}: the marks {start!r} and {end!r} are missing"
        raise ValueError(message)
    return f"{before}{start}\n{text}{end}{after}"


def generated() -> dict[Path, str]:
    """Every file with a generated part, as it ought to be."""
    settings, questions = ROOT / "pyproject.toml", ROOT / "docs" / "questions.md"
    table = question_table()
    return {
        TEMPLATE / MANIFEST: manifest(),
        settings: _between(settings, "# <checks>", "# </checks>", check_settings()),
        questions: _between(questions, "<!-- questions -->", "<!-- /questions -->", table),
    }


if __name__ == "__main__":
    for file, text in generated().items():
        file.write_text(text, "utf-8", newline="\n")

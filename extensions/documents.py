"""Text that is made from the questionnaire: the table of questions in the handbook."""

from collections.abc import Sequence
from typing import cast

from jinja2 import Environment, StrictUndefined

from extensions.questionnaire import Question, questions

__all__ = ["question_table"]

_JINJA = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701 - Markdown
_TABLE = _JINJA.from_string("""\
| answer | question | choices | default | asked by preset |
| --- | --- | --- | --- | --- |
{% for row in rows %}
| {{ row | join(' | ') }} |
{% endfor %}
""")


def _choices(question: Question) -> str:
    if not question.choices:
        return "free text"
    described = (
        f"`{value}`{label.removeprefix(value) if label.startswith(f'{value}: ') else ''}"
        for value, label in question.choices.items()
    )
    return "<br>".join(described)


def _default(question: Question) -> str:
    if question.several and not isinstance(question.default, str):
        return ", ".join(f"`{value}`" for value in cast("Sequence[str]", question.default))
    text = str(question.default)
    return "by preset" if text.startswith("{{") else f"`{text}`"


def _asked(question: Question, presets: Sequence[str]) -> str:
    asked = [name for name in presets if question.is_put(name)]
    return "all" if len(asked) == len(presets) else ", ".join(f"`{name}`" for name in asked)


def question_table() -> str:
    """All questions as a Markdown table."""
    asked = questions()
    presets = list(next(question.choices for question in asked if question.name == "preset"))
    rows = [
        (f"`{row.name}`", row.help, _choices(row), _default(row), _asked(row, presets))
        for row in asked
    ]
    return _TABLE.render(rows=rows)

"""Which answers to test: every set of files once, and every pair of choices at least once."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, combinations, product
from typing import Any

from pydantic import ValidationError

from extensions.answers import Answers
from extensions.questionnaire import (
    ANSWERS_FILE,
    Question,
    exclusions,
    left_out,
    questions,
    template_files,
)

__all__ = ["everything", "pairwise", "rendered_files", "structural"]

Pair = frozenset[tuple[str, str]]


def _options(question: Question) -> list[object]:
    if not question.several:
        return list(question.choices)
    sizes = range(len(question.choices) + 1)
    return list(chain.from_iterable(combinations(question.choices, size) for size in sizes))


def everything() -> Iterator[Answers]:
    """Every combination of choices that the questionnaire accepts."""
    chosen = [question for question in questions() if question.choices]
    for values in product(*(_options(question) for question in chosen)):
        data: dict[str, Any] = dict(
            zip((question.name for question in chosen), values, strict=True)
        )
        try:
            yield Answers(**data)
        except ValidationError:
            continue


@cache
def project_paths() -> tuple[str, ...]:
    """Where every file of the template lies in a project."""
    answers_file = "{{ _copier_conf.answers_file }}", ANSWERS_FILE
    return tuple(path.removesuffix(".jinja").replace(*answers_file) for path in template_files())


def rendered_files(answers: Answers) -> frozenset[str]:
    """The files that a project with these answers has, found without rendering it."""
    leave_out = left_out(answers.as_data())
    finals = (path.removesuffix(".jinja") for path in template_files())
    named = (
        path.replace("{{ _copier_conf.answers_file }}", ".copier-answers.yml") for path in finals
    )
    return frozenset(path for path in named if not leave_out.match_file(path))


@cache
def structural() -> tuple[Answers, ...]:
    """One combination for each distinct set of files."""
    alike: dict[tuple[str, ...], Answers] = {}
    for answers in everything():
        alike.setdefault(exclusions(answers.as_data()), answers)
    found: dict[frozenset[str], Answers] = {}
    for answers in alike.values():
        found.setdefault(rendered_files(answers), answers)
    return tuple(found.values())


def _pairs(answers: Answers) -> set[Pair]:
    chosen = {question.name for question in questions() if question.choices}
    facts = [(name, str(value)) for name, value in answers.as_data().items() if name in chosen]
    return {frozenset(pair) for pair in combinations(facts, 2)}


def pairwise(candidates: Iterable[Answers] | None = None) -> list[Answers]:
    """A short list in which every possible pair of choices stands at least once."""
    left = {answers: _pairs(answers) for answers in candidates or everything()}
    missing = set[Pair]().union(*left.values())
    rows: list[Answers] = []
    while missing:
        best = max(left, key=lambda answers: len(left[answers] & missing))
        missing -= left.pop(best)
        rows.append(best)
    return rows

"""Which answers to test: every pair of choices once, and every file's conditions in full."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from extensions.answers import Answers
from extensions.questionnaire import (
    ANSWERS_FILE,
    Question,
    conditions,
    is_true,
    left_out,
    questions,
    template_files,
)

__all__ = ["pairwise", "path_in_project", "rendered_files", "stand_without"]

Factor = tuple[str, object]
"""A choice to make: a question, and for one that takes several answers, one of these."""


def path_in_project(path: str) -> str:
    """Where a file of the template lies in a project."""
    return path.removesuffix(".jinja").replace("{{ _copier_conf.answers_file }}", ANSWERS_FILE)


def rendered_files(answers: Answers) -> frozenset[str]:
    """The files that a project with these answers has, found without rendering it."""
    leave_out = left_out(answers.as_data())
    paths = map(path_in_project, template_files())
    return frozenset(path for path in paths if not leave_out.match_file(path))


def _factors(names: Sequence[str]) -> dict[Factor, list[object]]:
    """The choices of these questions, each with its options."""
    found: dict[Factor, list[object]] = {}
    for question in questions():
        if question.name in names and question.several:
            found |= {(question.name, choice): [False, True] for choice in question.choices}
        elif question.name in names:
            found[question.name, None] = list(question.choices)
    return found


def _answers(options: Mapping[Factor, object]) -> Answers | None:
    """The answers that these options make up; none if the questionnaire refuses them."""
    data: dict[str, Any] = {"preset": "custom"}
    for (name, choice), option in options.items():
        if choice is None:
            data[name] = option
        else:
            data[name] = (*data.get(name, ()), *((choice,) if option else ()))
    try:
        return Answers(**data)
    except ValidationError:
        return None


def _asked() -> list[Question]:
    return [each for each in questions() if each.choices and each.name != "preset"]


Choice = tuple[Factor, object]
Pair = frozenset[Choice]


def _row(
    pair: Pair, factors: Mapping[Factor, list[object]], missing: set[Pair]
) -> dict[Factor, object]:
    """Options for every factor, these two among them, with many pairs that are missing so far."""
    row = dict(pair)
    for factor, options in factors.items():
        if factor not in row:
            usable = [each for each in options if _answers({**row, factor: each}) is not None]
            row[factor] = max(
                usable,
                key=lambda option: sum(
                    frozenset(((factor, option), other)) in missing for other in row.items()
                ),
            )
    return row


@cache
def pairwise(*, ends: bool = False) -> tuple[Answers, ...]:
    """A short list in which every possible pair of choices stands at least once.

    Presets are ready-made choices, so that the list is of the preset that leaves them all open.
    The packages for this either miss pairs where choices exclude each other, or make ten times as
    many rows.

    Args:
        ends: leave out the versions of Python between the oldest and the newest.
    """
    factors = _factors([question.name for question in _asked()])
    if ends:
        oldest, *_, newest = factors["python_version", None]
        factors["python_version", None] = [oldest, newest]
    choices = [(factor, option) for factor, options in factors.items() for option in options]
    pairs = [
        frozenset(pair)
        for pair in combinations(choices, 2)
        if pair[0][0] != pair[1][0] and _answers(dict(pair)) is not None
    ]
    missing, rows = set(pairs), list[Answers]()
    for pair in pairs:
        if pair in missing:
            row = _row(pair, factors, missing)
            missing -= {frozenset(each) for each in combinations(row.items(), 2)}
            answers = _answers(row)
            if answers is not None:
                rows.append(answers)
    return tuple(rows)


@cache
def _ways(names: frozenset[str]) -> tuple[dict[str, Any], ...]:
    """Every combination of answers to these questions that the questionnaire accepts."""
    factors = _factors([question.name for question in _asked() if question.name in names])
    found = (
        _answers(dict(zip(factors, options, strict=True))) for options in product(*factors.values())
    )
    return tuple(answers.as_data() for answers in found if answers is not None)


@cache
def _conditions(path: str) -> frozenset[str]:
    return frozenset(conditions(path))


@cache
def _ever(stands: frozenset[str], absent: frozenset[str]) -> Mapping[str, Any] | None:
    """Answers under which none of the first conditions holds and one of the second does."""
    names = frozenset(
        question.name
        for question in _asked()
        if any(question.name in condition for condition in stands | absent)
    )
    for data in _ways(names):
        if not any(is_true(each, data) for each in stands) and any(
            is_true(each, data) for each in absent
        ):
            return data
    return None


def stand_without(path: str, other: str) -> Mapping[str, Any] | None:
    """Answers that bring one file and leave the other out, of all that are possible; if any.

    Only the questions that either file depends on are gone through, so that no combination is
    missed and there are few to look at.
    """
    return _ever(_conditions(path), _conditions(other))

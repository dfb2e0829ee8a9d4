"""`copier.yml` as data: its questions, and which files an answer leaves out."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from jinja2 import Environment, StrictUndefined
from jinja2 import Template as JinjaTemplate
from pathspec import PathSpec

__all__ = [
    "ANSWERS_FILE",
    "ROOT",
    "TEMPLATE",
    "Question",
    "conditions",
    "exclusions",
    "is_true",
    "left_out",
    "questions",
    "reserved_names",
    "template_files",
]

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "template"
ANSWERS_FILE = ".copier-answers.yml"

_CONDITIONAL = re.compile(r"\{% if (?P<condition>.+?) %\}(?P<pattern>.*?)\{% endif %\}")
_TAKEN = re.compile(r"set taken = \(\s*'([^']*)'")
_JINJA = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - renders no HTML


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of the questionnaire.

    Attributes:
        name: the answer's name.
        help: what the person answering reads.
        default: the answer of `--defaults`, a template where it depends on other answers.
        ask: when it is put, as a template; otherwise the default is recorded.
        choices: the answers to choose from with what each brings, none for free text.
        several: whether more than one choice may be taken.
        validator: a template that renders the reason for a refusal.
    """

    name: str
    help: str
    default: object
    ask: str
    choices: Mapping[str, str]
    several: bool
    validator: str

    def is_put(self, preset: str) -> bool:
        """Whether somebody who chose this preset is asked."""
        return _JINJA.from_string(self.ask).render(preset=preset).lower() == "true"


@cache
def _configuration() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((ROOT / "copier.yml").read_text("utf-8")))


def _question(name: str, data: dict[str, Any]) -> Question:
    choices: dict[str, str] | list[str] = data.get("choices", [])
    named = choices if isinstance(choices, dict) else {choice: choice for choice in choices}
    return Question(
        name=name,
        help=data["help"],
        default=data["default"],
        ask=str(data.get("ask", "true")),
        choices={value: label for label, value in named.items()},
        several=data.get("multiselect", False),
        validator=data.get("validator", ""),
    )


def questions() -> list[Question]:
    """All questions, in the order in which they are put."""
    return [
        _question(name, data) for name, data in _configuration().items() if not name.startswith("_")
    ]


def reserved_names() -> frozenset[str]:
    """Names that no project may take."""
    validator = str(_configuration()["project_name"]["validator"])
    found = _TAKEN.search(validator)
    if found is None:
        message = "copier.yml: the validator of project_name has no list of taken names"
        raise ValueError(message)
    return frozenset(found[1].split())


@cache
def _exclusions() -> tuple[JinjaTemplate, ...]:
    return tuple(_JINJA.from_string(pattern) for pattern in _configuration()["_exclude"])


def exclusions(answers: Mapping[str, object]) -> tuple[str, ...]:
    """What these answers leave out, as patterns over a project's paths."""
    context = {**answers, "_copier_conf": {"answers_file": ANSWERS_FILE}}
    return tuple(pattern.render(context) for pattern in _exclusions())


def left_out(answers: Mapping[str, object]) -> PathSpec[Any]:
    """A matcher of the paths that these answers leave out."""
    return PathSpec.from_lines("gitignore", exclusions(answers))


def conditions(path: str) -> Iterator[str]:
    """The conditions, as expressions over the answers, under which `path` is left out."""
    for line in _configuration()["_exclude"]:
        found = _CONDITIONAL.fullmatch(line)
        # Patterns of the form `!...`, and the `*` they are exceptions to, choose whole presets.
        if found is None or not found["pattern"].startswith("/"):
            continue
        if PathSpec.from_lines("gitignore", [found["pattern"]]).match_file(path):
            yield found["condition"]


@cache
def _expression(condition: str) -> JinjaTemplate:
    return _JINJA.from_string(f"{{{{ 'yes' if {condition} }}}}")


def is_true(condition: str, answers: Mapping[str, object]) -> bool:
    """Whether a condition of `copier.yml` holds with these answers."""
    return _expression(condition).render(answers) == "yes"


@cache
def template_files() -> tuple[str, ...]:
    """Every file under `template/` that git knows or would add, by its path there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "template"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (path.removeprefix("template/") for path in listed.split("\0") if path)
    return tuple(sorted(path for path in paths if (TEMPLATE / path).is_file()))

"""`copier.yml` and the typed model of the answers accept and refuse the same."""

import keyword
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from copier import run_copy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from extensions.answers import Answers
from extensions.questionnaire import ROOT, TEMPLATE, questions, reserved_names

Accepts = Callable[[dict[str, Any]], bool]


@pytest.fixture(scope="module")
def copier_accepts(tmp_path_factory: pytest.TempPathFactory) -> Accepts:
    """Copier's own verdict on answers, over a template that renders one empty file."""
    source = tmp_path_factory.mktemp("questionnaire")
    shutil.copy(ROOT / "copier.yml", source)
    shutil.copytree(ROOT / "includes", source / "includes")
    (source / "template").mkdir()
    (source / "template" / "nothing").touch()
    target = tmp_path_factory.mktemp("target")

    def accepts(data: dict[str, Any]) -> bool:
        try:
            run_copy(str(source), target, data=data, defaults=True, quiet=True, overwrite=True)
        except ValueError:
            return False
        return True

    return accepts


def model_accepts(data: dict[str, Any]) -> bool:
    try:
        Answers(**data)
    except ValidationError:
        return False
    return True


HOSTILE = [
    "",
    " ",
    "../evil",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "my-app\n",
    "my-app\r",
    "\nmy-app",
    "my app",
    "my_app",
    "my--app",
    "-app",
    "app-",
    "My-App",
    "1app",
    "app\x00",
    "app\x1b[31m",
    "app\x7f",
    "ap\u202ep",
    "{{ 7*7 }}",
    "{% raw %}",
    "{# no #}",
    '"; rm -rf .',
    "a" * 51,
    "a" * 300,
    "class",
    "none",
    "match",
    "json",
    "string",
    "con",
    "llmgine",
    "chat",
    "discord-bot",
    "pydantic",
    "naïve",
    "caf\ud800",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_bad_names_are_refused_by_both(copier_accepts: Accepts, name: str) -> None:
    assert not copier_accepts({"project_name": name})
    assert not model_accepts({"project_name": name})


@pytest.mark.parametrize(
    "text",
    [
        *("", " x", "x\n", "x\ny", "x\x00", "x\x1b", "x\x85", "x\u2028", "x\u202ey", "x\ufeff"),
        *("{{ 7*7 }}", "a {{ b }}", "a {% b", "a {# b", "-x", "# x", "<b>", "x\udc80", "x" * 121),
    ],
    ids=ascii,
)
def test_bad_descriptions_are_refused_by_both(copier_accepts: Accepts, text: str) -> None:
    assert not copier_accepts({"project_description": text})
    assert not model_accepts({"project_description": text})


words = st.text(alphabet="abz019", min_size=1, max_size=12)
names = st.one_of(
    st.lists(words, min_size=1, max_size=6).map("-".join),
    st.sampled_from(sorted(reserved_names())),
    st.text(max_size=60),
    st.tuples(words, st.sampled_from(["\n", "-", "_", "\u2028", ".", "{{"])).map("".join),
)
descriptions = st.one_of(
    st.text(max_size=130),
    st.tuples(st.sampled_from(["A", "é", "7", "{"]), st.text(max_size=125)).map("".join),
)
choices = {question.name: sorted(question.choices) for question in questions()}
answers = st.fixed_dictionaries(
    {},
    optional={
        "project_name": names,
        "project_description": descriptions,
        **{
            name: st.sampled_from([*choices[name], "other"])
            for name in ("preset", "python_version", "ci", "provider", "store")
        },
        **{
            name: st.lists(st.sampled_from([*choices[name], *choices[name], "other"]), max_size=3)
            for name in ("handlers", "apps")
        },
    },
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=answers)
@example(data={})
@example(data={"preset": "minimal", "handlers": ["file"]})
@example(data={"preset": "minimal", "handlers": ["console", "otel"]})
@example(data={"preset": "minimal", "handlers": ["console", "file", "otel"]})
@example(data={"preset": "custom", "handlers": ["otel"]})
@example(data={"preset": "minimal", "apps": []})
@example(data={"preset": "spine", "apps": ["chat"]})
@example(data={"preset": "spine", "handlers": []})
@example(data={"preset": "custom", "handlers": [], "apps": []})
@example(data={"preset": "minimal", "store": "memory"})
@example(data={"preset": "spine", "store": "memory"})
@example(data={"preset": "service"})
@example(data={"preset": "service", "apps": ["api", "chat"]})
@example(data={"preset": "bot", "handlers": ["console"]})
@example(data={"preset": "full", "provider": "litellm"})
@example(data={"preset": "full", "provider": "litellm", "other_providers": ["openai"]})
@example(data={"preset": "full", "apps": ["chat"]})
@pytest.mark.timeout(600)
def test_model_and_questionnaire_agree(copier_accepts: Accepts, data: dict[str, Any]) -> None:
    assert copier_accepts(data) == model_accepts(data)


def test_both_know_the_same_answers_and_defaults() -> None:
    assert [question.name for question in questions()] == list(Answers.model_fields)
    defaults = Answers().as_data()
    for question in questions():
        if not str(question.default).startswith("{{"):
            assert question.default == defaults[question.name], question.name


@pytest.mark.parametrize(
    ("preset", "most"),
    [*((each, 5) for each in ("minimal", "service", "bot", "full", "spine")), ("custom", 12)],
)
def test_few_questions_are_put(preset: str, most: int) -> None:
    put = [question.name for question in questions() if question.is_put(preset)]
    assert 0 < len(put) <= most


def test_every_question_has_a_default_and_one_line_of_help() -> None:
    for question in questions():
        assert question.default is not None
        assert question.help
        assert "\n" not in question.help


def test_every_pattern_is_anchored_at_both_ends() -> None:
    patterns = re.findall(
        r"regex_search\(\s*'(.*?)'\s*\)", (ROOT / "copier.yml").read_text("utf-8")
    )
    searched = [pattern for pattern in patterns if pattern != r"\\{[{%#]"]
    assert searched
    assert all(p.startswith(r"\\A") and p.endswith(r"\\Z") for p in searched)


def test_reserved_names_cover_python_the_members_and_what_the_project_installs() -> None:
    lower = re.compile(r"[a-z][a-z0-9_]*")
    python = {*sys.stdlib_module_names, *(word.lower() for word in keyword.kwlist)}
    members = {path.parent.name for path in TEMPLATE.glob("*/*/pyproject.toml")}
    wanted = {name for name in python if lower.fullmatch(name)} | members | requirements()
    assert {re.sub("[_.]", "-", name) for name in wanted} <= reserved_names()


def requirements() -> set[str]:
    """The packages that members ask for by name."""
    projects = [
        tomllib.loads(path.read_text("utf-8"))["project"]
        for path in TEMPLATE.glob("*/*/pyproject.toml")
    ]
    lists = [
        *(project["dependencies"] for project in projects),
        *(extra for p in projects for extra in p.get("optional-dependencies", {}).values()),
    ]
    return {re.split(r"[\[<>=; ]", line)[0].lower() for lines in lists for line in lines}

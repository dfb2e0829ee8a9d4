"""What lies under `template/`, and what each combination of answers leaves of it."""

import ast
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import PurePosixPath

import pytest

from extensions.answers import Answers
from extensions.matrix import pairwise, path_in_project, rendered_files, stand_without
from extensions.questionnaire import ROOT, TEMPLATE, left_out, template_files

PYTHON = [path for path in template_files() if path.endswith(".py")]
ALL_KINDS = [Answers(), Answers(preset="spine"), *pairwise()]
# What Windows can't have in a name, the one path with Jinja apart.
ILLEGAL = re.compile(r'[<>:"|?*\\]|[. ]$')


@pytest.mark.parametrize("path", PYTHON)
def test_python_files_are_python_and_hold_no_jinja(path: str) -> None:
    text = (TEMPLATE / path).read_text("utf-8")
    ast.parse(text)
    assert "{%" not in text
    assert "{{ " not in text


def test_the_answers_file_is_the_only_path_with_jinja() -> None:
    marked = [path for path in template_files() if "{" in path or "}" in path]
    assert marked == ["{{ _copier_conf.answers_file }}.jinja"]


def test_python_files_are_never_templates() -> None:
    assert not [path for path in template_files() if path.endswith(".py.jinja")]


def test_names_are_legal_everywhere() -> None:
    plain = [path for path in template_files() if "{" not in path]
    assert not [path for path in plain if any(map(ILLEGAL.search, PurePosixPath(path).parts))]
    assert len({path.lower() for path in plain}) == len(plain)


def test_line_ends_are_unix() -> None:
    texts = [path for path in template_files() if not path.endswith(".png")]
    assert not [path for path in texts if b"\r" in (TEMPLATE / path).read_bytes()]


def test_every_exclusion_names_a_file_or_folder_that_exists() -> None:
    patterns = re.findall(r"%\}(/.+?)\{% endif", (ROOT / "copier.yml").read_text("utf-8"))
    assert patterns
    assert not [pattern for pattern in patterns if not (TEMPLATE / pattern[1:]).exists()]


@pytest.mark.parametrize(
    "junk",
    [
        *(".venv/bin/python", "libs/llmgine/.venv/x", "apps/chat/src/chat/__pycache__/a.pyc"),
        *(".pytest_cache/README.md", "libs/llmgine/.ruff_cache/0/x", ".mypy_cache/x", ".coverage"),
        *("dist/a.whl", "libs/llmgine/build/x", "libs/llmgine/llmgine.egg-info/PKG-INFO"),
        *(".env", ".git/config", ".idea/x", "uv.lock", ".llmgine/events.jsonl", "a.py.orig"),
        *(".hypothesis/x", "htmlcov/index.html", ".DS_Store", "node_modules/x/y"),
    ],
)
def test_what_lies_about_in_a_checkout_is_left_out(junk: str) -> None:
    for answers in ALL_KINDS:
        assert left_out(answers.as_data()).match_file(junk)


def test_every_pair_of_choices_is_rendered_and_checked() -> None:
    several = {"handlers", "apps", "other_providers", "extras"}

    def facts(answers: Answers) -> set[str]:
        data = answers.as_data()
        single = {f"{name}={data[name]}" for name in ("python_version", "ci", "provider", "store")}
        return single | {f"{name}={one}" for name in several for one in data[name]}

    together = [facts(answers) for answers in pairwise()]
    seen = sorted(set[str]().union(*together))
    assert {"handlers=otel", "apps=chat", "provider=local", "store=memory", "ci=none"} < {*seen}
    for one, other in combinations(seen, 2):
        name, choice = one.split("=")
        alternatives = other.startswith(f"{name}=") and name not in several
        # No project has the SDKs of both.
        apart = {choice, other.partition("=")[2]} == {"openai", "litellm"}
        met = any({one, other} <= each for each in together)
        assert met != (alternatives or apart), (one, other)


def test_the_preset_spine_brings_the_spine_alone() -> None:
    allowed = (".copier-answers.yml", "libs/llmgine/", "tools/spine/")
    brought = rendered_files(Answers(preset="spine"))
    assert all(path.startswith(allowed) for path in brought)
    assert {".copier-answers.yml", "libs/llmgine/LICENSE", "tools/spine/manifest.json"} <= brought


def test_a_default_project_is_small() -> None:
    beside = re.compile(r"(^|/)tests/|^tools/spine/")
    files = [path for path in rendered_files(Answers()) if not beside.search(path)]
    assert len(files) <= 120


def _modules(files: frozenset[str]) -> dict[str, str]:
    """Modules of the members among these files, by their import names."""
    found: dict[str, str] = {}
    for path in files:
        _, source, module = path.partition("/src/")
        if source and path.endswith(".py"):
            name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            found[name] = path
    return found


def _imports(path: str) -> Iterator[str]:
    """The modules of members that a file imports, lazily or not, most exact name first."""
    for node in ast.walk(ast.parse((TEMPLATE / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_combination_imports_what_it_leaves_out() -> None:
    known = _modules(frozenset(map(path_in_project, template_files())))
    for path in PYTHON:
        wanted = {known_as for name in _imports(path) if (known_as := _longest(name, known))}
        for module in wanted:
            lacking = stand_without(path, known[module])
            assert lacking is None, f"{path} imports {module}, which is missing with {lacking}"


def test_the_spine_imports_nothing_but_itself() -> None:
    brought = rendered_files(Answers(preset="spine"))
    known = _modules(frozenset(map(path_in_project, template_files())))
    for path in [path for path in PYTHON if path.startswith("libs/llmgine/")]:
        wanted = {known_as for name in _imports(path) if (known_as := _longest(name, known))}
        beside = {module for module in wanted if not known[module].startswith("libs/llmgine/")}
        assert not beside, f"{path} imports {beside}"
    assert not [path for path in brought if path.startswith(("apps/", "libs/assistant/"))]


def _longest(name: str, known: dict[str, str]) -> str:
    """The module that `name` means: itself, or the one that it is an attribute of."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def test_a_member_is_rendered_with_its_tests_or_not_at_all() -> None:
    needed = {"pyproject.toml", "README.md", "src", "tests"}
    for answers in ALL_KINDS:
        parts: dict[tuple[str, ...], set[str]] = {}
        for path in map(PurePosixPath, rendered_files(answers)):
            if path.parts[0] in {"libs", "apps"}:
                parts.setdefault(path.parts[:2], set()).add(path.parts[2])
        assert parts
        assert all(needed <= found for found in parts.values()), parts

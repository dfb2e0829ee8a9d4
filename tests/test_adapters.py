"""The handbook's adapters: the page shows the very files that are tested here."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from extensions.answers import Answers
from extensions.questionnaire import ROOT
from tests.conftest import Run

PAGE = ROOT / "docs" / "adapters.md"
FOLDER = ROOT / "docs" / "adapters"
SPINE = ROOT / "template" / "libs" / "llmgine"
SHOWN = re.compile(
    r"^\[`[^`]+`\]\(adapters/([^)]+)\):\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
EXAMPLES = {
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*.py")
    if path.parent.name != "tests"
}
TESTS = {
    "llmgine-faq/pyproject.toml",
    "llmgine-faq/tests/test_faq.py",
    "tests/test_langgraph_graph.py",
}
FRAMEWORKS = [
    pytest.param("langgraph", "langgraph>=1.2,<2", id="langgraph"),
    pytest.param("llama_index", "llama-index-workflows>=2.26,<3", id="llama-index"),
    pytest.param("pydantic_ai", "pydantic-ai-slim>=2.68,<3", id="pydantic-ai"),
]
QUESTION = "How do I reset my password?"


def test_the_page_shows_the_files_that_are_tested() -> None:
    shown = dict(SHOWN.findall(PAGE.read_text("utf-8")))
    assert shown.keys() == EXAMPLES | TESTS
    for name, text in shown.items():
        assert text == (FOLDER / name).read_text("utf-8"), name


def test_every_block_of_code_on_the_page_is_a_file() -> None:
    page = PAGE.read_text("utf-8")
    assert len(re.findall(r"^```(?:python|toml)$", page, re.MULTILINE)) == len(SHOWN.findall(page))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_short(name: str) -> None:
    assert len((FOLDER / name).read_text("utf-8").splitlines()) < 60


def test_the_provider_passes_its_suite(run: Run) -> None:
    options = "-q -p no:cacheprovider -o pythonpath=src"
    done = run(FOLDER / "llmgine-faq", f'"{sys.executable}" -m pytest {options}')
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "package"), FRAMEWORKS)
@pytest.mark.parametrize(
    "command",
    [
        "python -W error -m pytest -c tests/pytest.ini -q -p no:cacheprovider tests/test_{}_*.py",
        "pyright --project . {0}_*.py tests/test_{0}_*.py tests/suite.py llmgine-faq",
    ],
    ids=["runs", "types"],
)
def test_a_framework_fits_in(run: Run, command: str, name: str, package: str) -> None:
    tools = '--with pytest --with pytest-asyncio --with pytest-timeout --with "pyright[nodejs]"'
    environment = f'--python "{sys.executable}" --with-editable "{SPINE}" --with "{package}"'
    done = run(FOLDER, f"uv run --no-project {environment} {tools} {command.format(name)}")
    assert re.search(r"\d+ passed|\b0 errors, 0 warnings", done.stdout)


@pytest.fixture
def package(tmp_path: Path, template: Path) -> Path:
    """The package, with this checkout for the template's repository."""
    copy = shutil.copytree(FOLDER / "llmgine-faq", tmp_path / "llmgine-faq")
    project = copy / "pyproject.toml"
    text = project.read_text("utf-8")
    url = "https://github.com/llmgine/llmgine"
    assert url in text
    project.write_text(text.replace(url, template.as_uri()), "utf-8")
    return copy


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_package_is_tested_against_the_spine_of_the_template(run: Run, package: Path) -> None:
    done = run(package, f'uv run --python "{sys.executable}" pytest -q')
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_package_is_installed_chosen_and_tested_in_a_project(
    run: Run, package: Path, project: Callable[[Answers], Path]
) -> None:
    run(package, "uv build --wheel --quiet")
    [wheel] = (package / "dist").glob("*.whl")
    folder = project(Answers())
    run(folder, f'uv add --quiet "{wheel}"')
    settings = folder / "settings.toml"
    text = settings.read_text("utf-8").replace(
        'name = "scripted"', 'name = "llmgine_faq:build"\noptions = { file = "faq.toml" }'
    )
    settings.write_text(text, "utf-8")
    (folder / "faq.toml").write_text(f'[answers]\n"{QUESTION}" = "Under Settings."\n', "utf-8")
    assert run(folder, f'uv run chat --once "{QUESTION}"').stdout == "Under Settings.\n"
    shutil.copy(package / "tests" / "test_faq.py", folder / "libs" / "assistant" / "tests")
    done = run(folder, "uv run pytest -q libs/assistant/tests/test_faq.py")
    assert re.search(r"\d+ passed", done.stdout)

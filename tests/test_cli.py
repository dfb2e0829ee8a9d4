"""Copier's command line over this template: exit codes, messages, no question, no trust."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from copier import run_copy

from extensions.answers import Answers
from tests.conftest import Render, commit, git
from tests.tree import files

pytestmark = pytest.mark.timeout(600)


def _copier(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "copier", *map(str, arguments)]
    return subprocess.run(  # noqa: S603
        command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_a_plain_copy_needs_no_trust_and_ends_with_the_first_steps(
    template: Path, render: Render, tmp_path: Path
) -> None:
    done = _copier("copy", "--defaults", "--vcs-ref=HEAD", template, tmp_path / "my-app")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "my-app") == files(render(Answers()))
    steps = done.stderr.partition("my-app is ready.")
    message = "".join(steps[1:]).strip()
    assert message.startswith("my-app is ready.")
    assert len(message.splitlines()) <= 14
    assert f"\n{message}\n" in (tmp_path / "my-app" / "README.md").read_text("utf-8")


def test_the_preset_spine_has_first_steps_of_its_own(template: Path, tmp_path: Path) -> None:
    arguments = ("--defaults", "--vcs-ref=HEAD", "-d", "preset=spine", template, tmp_path / "x")
    done = _copier("copy", *arguments)
    assert done.returncode == 0, done.stderr
    message = done.stderr[done.stderr.index("The spine lies in") :].strip()
    assert len(message.splitlines()) <= 14


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"project_name": "../evil"}, "lower-case letters and digits"),
    ({"project_name": "llmgine"}, "'llmgine' is taken"),
    ({"project_name": "a" * 300}, "at most 50 characters"),
    ({"project_description": "{{ 7*7 }}"}, "leave template code out"),
    ({"project_description": "one\ntwo"}, "without control characters"),
    ({"apps": []}, "choose others with preset=custom"),
    ({"handlers": ["console"]}, "choose others with preset=custom"),
    ({"preset": "spine", "apps": ["chat"]}, "the preset spine brings no application"),
    ({"provider": "gpt"}, r"'gpt' is not in \['scripted', 'local', 'openai', "),
    ({"preset": "all"}, "'all' is not in"),
]


@pytest.mark.parametrize(("data", "reason"), REASONS)
def test_a_refusal_says_why(
    template: Path, tmp_path: Path, data: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        run_copy(str(template), tmp_path / "x", data=data, defaults=True, quiet=True)
    assert not (tmp_path / "x").exists()


def test_a_refusal_is_the_last_line_and_exit_status_1(template: Path, tmp_path: Path) -> None:
    arguments = ("--defaults", "--vcs-ref=HEAD", "-d", "project_name=../evil")
    done = _copier("copy", *arguments, template, tmp_path / "x")
    assert done.returncode == 1
    assert "use lower-case letters and digits" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "x").exists()


def test_an_update_asks_nothing_and_says_what_to_look_at(
    project: Callable[[Answers], Path],
) -> None:
    folder = project(Answers())
    commit(folder, "Start")
    done = _copier("update", "--defaults", "--vcs-ref=HEAD", folder)
    assert done.returncode == 0, done.stderr
    assert "uv run just check" in done.stderr
    assert git(folder, "status", "--porcelain") == ""


@pytest.mark.heavy
def test_an_older_copier_is_told_which_one_is_needed(template: Path, tmp_path: Path) -> None:
    command = ["uvx", "copier@9.18.2", "copy", "--defaults", str(template), str(tmp_path / "x")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode != 0
    assert "9.19.0" in done.stderr
    assert not (tmp_path / "x").exists()


def test_another_answers_file_leaves_an_existing_one_alone(template: Path, tmp_path: Path) -> None:
    mine = tmp_path / ".copier-answers.yml"
    mine.write_text("_src_path: elsewhere\n", "utf-8")
    arguments = ("--defaults", "--vcs-ref=HEAD", "-d", "preset=spine")
    done = _copier("copy", "-a", ".copier-answers.llmgine.yml", *arguments, template, tmp_path)
    assert done.returncode == 0, done.stderr
    assert mine.read_text("utf-8") == "_src_path: elsewhere\n"
    assert (tmp_path / ".copier-answers.llmgine.yml").is_file()

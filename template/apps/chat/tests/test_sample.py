"""A test to copy: the chat as a program, with a provider of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROVIDER = """
from llmgine.providers.scripted import ScriptedProvider

def build(config):
    return ScriptedProvider(["Hello, Ada!"])
"""


def test_one_question_one_answer(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROVIDER)
    done = subprocess.run(
        [sys.executable, "-m", "chat.cli", "--provider", "mine:build", "--once", "I am Ada."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "Hello, Ada!\n")

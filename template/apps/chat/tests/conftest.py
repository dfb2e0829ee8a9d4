"""Fixtures of this folder's tests: the chat as a program, in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["bytecode", "environment", "folder"]

PROVIDERS = """
import asyncio

from llmgine.contracts import ChatMessage, ToolCall
from llmgine.errors import RateLimitError
from llmgine.providers.scripted import BrokenStream, ScriptedProvider


def slow(config):
    return ScriptedProvider([" ".join(f"word{n}" for n in range(2000))] * 9, delay=0.05)


def stuck(config):
    return ScriptedProvider(["never"], delay=3600)


def failing(config):
    return ScriptedProvider([RateLimitError("slow down")] * 9)


def broken(config):
    return ScriptedProvider([BrokenStream("one two three", after=1)])


def buggy(config):
    return ScriptedProvider([ZeroDivisionError("a bug of the provider")] * 9)


def hostile(config):
    return ScriptedProvider(["\\x1b]0;title\\x07\\x1b[31mred\\x9b2J\\r\\nover\\u202eleft"])


def silent(config):
    return ScriptedProvider([ChatMessage.assistant()])


def calling(config):
    call = ToolCall(id="1", name="add", arguments="{}")
    return ScriptedProvider([ChatMessage.assistant("Let me see.", call), "Three."])


def stumbling(config):
    call = ToolCall(id="1", name="add", arguments="{}")
    message = ChatMessage.assistant("Let me see.", call)
    return ScriptedProvider([message, *[BrokenStream("Three.", after=0)] * 2, "Three."])


def counting(config):
    return ScriptedProvider([lambda request: f"{len(request.messages)} messages"] * 9)


def reading(config):
    return ScriptedProvider([read] * 9)


def read(request):
    if results := request.messages[-1].tool_results:
        return "; ".join(result.text for result in results)
    return ChatMessage.assistant(
        "Let me see.",
        ToolCall(id="1", name="read_file", arguments='{"path": "notes.txt"}'),
        ToolCall(id="2", name="calculate", arguments='{"expression": "6*7"}'),
    )


def told(config):
    return ScriptedProvider([lambda request: f"{request.model} {config.provider.options}"])


def repeating(config):
    return ScriptedProvider([lambda request: repr(request.messages[-1].text)])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder, with providers to choose from in `theirs`."""
    (tmp_path / "theirs.py").write_text(PROVIDERS)
    return tmp_path


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for bytecode, where it is written nowhere else."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def environment(folder: Path, bytecode: Path) -> dict[str, str]:
    """The environment of the chat: nothing in it that changes what it does or shows."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMGINE_")}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PROMPT_TOOLKIT_COLOR_DEPTH"):
        kept.pop(name, None)
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Without bytecode each start takes a second more, to compile whatever it imports.
        kept["PYTHONPYCACHEPREFIX"] = str(bytecode)
    # The test's terminal doesn't answer when it is asked where its cursor is.
    return {**kept, "TERM": "xterm", "HOME": str(folder), "PROMPT_TOOLKIT_NO_CPR": "1"}

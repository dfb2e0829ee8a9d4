"""The prompt: line editing, and a history that stays between runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from chat.text import decoded

__all__ = ["make_prompt"]

_FOLDER, _FILE = ".llmgine", "chat-history"


class _PrivateHistory(FileHistory):
    """A history file for its owner's eyes; it gives up, silently, where it can't be kept."""

    def load_history_strings(self) -> Iterable[str]:
        """Return what was typed before, latest first."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append a line."""
        try:
            super().store_string(decoded(string))
        except OSError:
            return  # a full disk is no reason to end a conversation


def make_prompt(folder: Path) -> PromptSession[str]:
    """Return a prompt whose history lies in the run-time folder below `folder`."""
    return PromptSession(
        message=FormattedText([("bold", "you> ")]),
        history=_history(folder / _FOLDER / _FILE),
        enable_open_in_editor=False,
    )


def _history(path: Path) -> History:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return _PrivateHistory(path)

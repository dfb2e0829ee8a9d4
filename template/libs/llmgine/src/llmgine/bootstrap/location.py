"""Where a project's settings lie: `settings.toml`, and `.env` beside it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

from llmgine.errors import ConfigurationError

__all__ = ["SETTINGS_NAME", "Location", "locate"]

SETTINGS_NAME = "settings.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """What is read, and what relative paths start from.

    Attributes:
        folder: relative paths in settings are meant from here.
        settings: the settings file, where there is one.
        dotenv: the file of environment variables, where there is one.
    """

    folder: Path
    settings: Path | None = None
    dotenv: Path | None = None


def locate(settings_file: str | Path | EllipsisType | None) -> Location:
    """Find the files to read; `...` means to look for them, `None` to read none.

    Looked for is `settings.toml`, from the working directory upwards to the workspace's root and
    never beyond; without a workspace, in the working directory alone.

    Raises:
        ConfigurationError: a file was named that isn't there.
    """
    here = _working_directory()
    if settings_file is None:
        return Location(folder=here)
    if not isinstance(settings_file, EllipsisType):
        path = here / Path(settings_file).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"settings file: expected a file, found none at {path}")
        return Location(folder=path.parent, settings=path, dotenv=_if_file(path.parent / ".env"))
    folders = _up_to_workspace(here)
    for folder in folders:
        if (folder / SETTINGS_NAME).is_file():
            return locate(folder / SETTINGS_NAME)
    return Location(folder=folders[-1], dotenv=_if_file(folders[-1] / ".env"))


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError("working directory: expected one, found it deleted") from None


def _up_to_workspace(here: Path) -> list[Path]:
    folders: list[Path] = []
    for folder in (here, *here.parents):
        folders.append(folder)
        if _is_workspace(folder / "pyproject.toml"):
            return folders
    return [here]


def _is_workspace(pyproject: Path) -> bool:
    try:
        return "workspace" in tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["uv"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # somebody else's folder, or a file for its own tools to complain about


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None

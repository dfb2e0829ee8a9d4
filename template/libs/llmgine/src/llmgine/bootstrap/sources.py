"""The sources of settings outside the code: `settings.toml`, `.env` beside it, the environment."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import TypeVar

from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsError

from llmgine.bootstrap.layers import PREFIX, Layer, problems, shape_of, variable, with_lists
from llmgine.errors import ConfigurationError

__all__ = ["Location", "locate", "read", "variables"]

_SETTINGS_NAME = "settings.toml"
# No setting of an application: tests look at it.
_OTHERS = frozenset({"LLMGINE_CASSETTES"})

T = TypeVar("T")


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
        if (folder / _SETTINGS_NAME).is_file():
            return locate(folder / _SETTINGS_NAME)
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


def read(
    model: type[BaseSettings], location: Location, *, elsewhere: frozenset[str] = frozenset()
) -> list[Layer]:
    """Return what each source says, the weakest first.

    Args:
        model: the settings to look for.
        location: the files to read.
        elsewhere: groups that are somebody else's to read.

    Raises:
        ConfigurationError: a source can't be read.
    """
    layers: list[Layer] = []
    if location.settings is not None:
        table = _reading(location.settings, _toml, location.settings)
        ours = {name: value for name, value in table.items() if name not in elsewhere}
        layers.append(Layer(origin=_short(location.settings), values=ours))
    if location.dotenv is not None:
        source = _reading(location.dotenv, DotEnvSettingsSource, model, location.dotenv)
        layers.append(_layer(_short(location.dotenv), model, source, elsewhere))
    layers.append(_layer("the environment", model, EnvSettingsSource(model), elsewhere))
    return layers


def variables(model: type[BaseSettings], location: Location) -> dict[str, str]:
    """Return what `.env` says that is no setting: keys under their providers' own names, say.

    Raises:
        ConfigurationError: it can't be read.
    """
    if location.dotenv is None:
        return {}
    reader = partial(DotEnvSettingsSource, case_sensitive=True)
    found = _reading(location.dotenv, reader, model, location.dotenv)
    pairs = found.env_vars.items()
    return {name: value for name, value in pairs if value and not name.startswith(PREFIX)}


def _toml(path: Path) -> dict[str, object]:
    return tomllib.loads(path.read_bytes().decode("utf-8-sig"))


def _reading(path: Path, reader: Callable[..., T], *arguments: object) -> T:
    """Call a reader of `path`, and say in a line what is wrong with the file if it fails."""
    try:
        return reader(*arguments)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise ConfigurationError(f"{path}: expected a readable file, found: {found}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: expected UTF-8, found other bytes") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: expected TOML, found: {error}") from None


def _layer(
    origin: str, model: type[BaseSettings], source: EnvSettingsSource, elsewhere: frozenset[str]
) -> Layer:
    given = (name.upper() for name in source.env_vars)
    foreign = tuple(variable(f"{group}.") for group in elsewhere)
    names = tuple(
        name
        for name in given
        if name.startswith(PREFIX) and name not in _OTHERS and not name.startswith(foreign)
    )
    unread = Layer(origin=origin, values={}, variables=names)
    if any(problems(unread, shape_of(model))):
        return unread  # the names are complained about, the values needn't be
    try:
        values = source()
    except SettingsError as error:
        # Its text names the setting; only its cause holds the value, which may be a secret.
        raise ConfigurationError(f"{error} ({origin})") from None
    # A `.env` belongs to other programs as well: what isn't addressed to us is theirs.
    ours = {name: value for name, value in values.items() if name in model.model_fields}
    return replace(unread, values=with_lists(ours, shape_of(model)))


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

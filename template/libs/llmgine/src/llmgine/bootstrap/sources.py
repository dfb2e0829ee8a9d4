"""The sources of settings outside the code: a file, `.env` and the environment."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsError,
)

from llmgine.bootstrap.layers import PREFIX, Layer, problems, shape_of
from llmgine.bootstrap.location import Location
from llmgine.errors import ConfigurationError

__all__ = ["read"]

T = TypeVar("T")


def read(model: type[BaseSettings], location: Location) -> list[Layer]:
    """Return what each source says, the weakest first.

    Raises:
        ConfigurationError: a source can't be read.
    """
    layers: list[Layer] = []
    if location.settings is not None:
        table = _reading(location.settings, _toml, location.settings)
        layers.append(Layer(origin=_short(location.settings), values=table))
    if location.dotenv is not None:
        source = _reading(location.dotenv, DotEnvSettingsSource, model, location.dotenv)
        layers.append(_layer(_short(location.dotenv), model, source))
    layers.append(_layer("the environment", model, EnvSettingsSource(model)))
    return layers


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


def _layer(origin: str, model: type[BaseSettings], source: EnvSettingsSource) -> Layer:
    names = tuple(name.upper() for name in source.env_vars if name.upper().startswith(PREFIX))
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
    return replace(unread, values=ours)


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

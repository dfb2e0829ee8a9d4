"""The application's settings, read from everywhere they may stand."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import ClassVar

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from llmgine.bootstrap.layers import PREFIX, Layer, lines, merged, place, problems, shape_of, shown
from llmgine.bootstrap.sources import Location, locate, read, variables
from llmgine.errors import ConfigurationError
from llmgine.settings import (
    BudgetSettings,
    BusSettings,
    CircuitBreakerSettings,
    CommandRetrySettings,
    ConsoleSettings,
    ContextSettings,
    DeadLetterSettings,
    FileSettings,
    McpSettings,
    ObservabilitySettings,
    OtelSettings,
    ProviderSettings,
    RateLimitSettings,
    RetrySettings,
    ToolSettings,
)

__all__ = ["ApplicationConfig"]


class ApplicationConfig(BaseSettings):
    """Every setting of an application, in one group for each room.

    Later ones win: the defaults in `llmgine.settings`, `settings.toml`, `.env` beside it, the
    environment (`LLMGINE_CONSOLE__ENABLED=false`), and what is given in code:

        ApplicationConfig(console={"enabled": False}, provider=ProviderSettings(name="local"))

    A table given in code is joined with what the files say; an object replaces the whole group.
    Relative paths are meant from the settings file's folder. An application with settings of its
    own subclasses this and adds a group. Where several applications share one file, `elsewhere`
    names the groups that only some of them have: the others leave these alone.

    Attributes:
        console: the console handler.
        file: the JSON Lines handler.
        otel: the OpenTelemetry handler.
        bus: limits of the bus.
        dead_letters: whether what has failed for good is kept.
        command_retry: whether idempotent commands are run again.
        circuit_breaker: whether calls that keep failing are refused for a while.
        rate_limit: whether so many calls may begin in so much time.
        observability: limits of the observability client.
        provider: who answers.
        retry: how calls that fail for a while are tried again.
        budget: what models cost, and how much may be spent.
        context: who keeps the conversations.
        tools: who runs the tools, and its limits.
        mcp: servers that offer tools beside the application's own.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )
    elsewhere: ClassVar[frozenset[str]] = frozenset()

    console: ConsoleSettings = ConsoleSettings()
    file: FileSettings = FileSettings()
    otel: OtelSettings = OtelSettings()
    bus: BusSettings = BusSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    command_retry: CommandRetrySettings = CommandRetrySettings()
    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    provider: ProviderSettings = ProviderSettings()
    retry: RetrySettings = RetrySettings()
    budget: BudgetSettings = BudgetSettings()
    context: ContextSettings = ContextSettings()
    tools: ToolSettings = ToolSettings()
    mcp: McpSettings = McpSettings()

    _location: Location = PrivateAttr()
    _layers: list[Layer] = PrivateAttr()

    def __init__(
        self, *, settings_file: str | Path | EllipsisType | None = ..., **values: object
    ) -> None:
        """Read the settings.

        Args:
            settings_file: the file to read; by default `settings.toml`, looked for from the
                working directory upwards to the workspace's root; `None` reads neither such a
                file nor `.env`.
            values: settings given in code, by group.

        Raises:
            ConfigurationError: a line for each name that is no setting and each wrong value.
        """
        location = locate(settings_file)
        elsewhere = self.elsewhere - type(self).model_fields.keys()
        layers = read(type(self), location, elsewhere=elsewhere)
        layers.append(Layer(origin="given in code", values=values))
        shape = shape_of(type(self))
        if wrong := [line for layer in layers for line in problems(layer, shape)]:
            raise ConfigurationError("\n".join(wrong))
        try:
            super().__init__(**merged(layers))
        except ValidationError as error:
            raise ConfigurationError("\n".join(lines(error, layers))) from None
        self._location, self._layers = location, layers
        for name in type(self).model_fields:
            # The model is frozen for its users; this is still its construction.
            vars(self)[name] = self._anchored(name, vars(self)[name])
        beside = variables(type(self), location) | self.provider.variables
        vars(self)["provider"] = replace(self.provider, variables=beside)

    @property
    def folder(self) -> Path:
        """The folder that relative paths are meant from."""
        return self._location.folder

    @property
    def settings_file(self) -> Path | None:
        """The settings file that was read, if any."""
        return self._location.settings

    def says(self, name: str) -> bool:
        """Tell whether a setting such as `file.enabled` was set anywhere, or has its default."""
        return any(layer.says(name) for layer in self._layers)

    def _anchored(self, name: str, group: object) -> object:
        """Make the paths of a group absolute."""
        if not is_dataclass(group) or isinstance(group, type):
            return group
        paths = [each.name for each in fields(group) if isinstance(getattr(group, each.name), Path)]
        fixed = {each: self._absolute(f"{name}.{each}", getattr(group, each)) for each in paths}
        return replace(group, **fixed)

    def _absolute(self, name: str, path: Path) -> Path:
        with suppress(RuntimeError):  # of a home that there isn't
            if "\0" not in str(path):
                return self.folder / path.expanduser()
        found = shown(name, str(path)) + place(name, self._layers)
        raise ConfigurationError(f"{name}: expected a path, found {found}")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the joined layers alone: the constructor has read and checked each source."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

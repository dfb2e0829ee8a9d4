"""The answers as a typed model: the same questionnaire as `copier.yml`, from the other side.

The model is written by hand, not read from `copier.yml`, so that tests can hold each against the
other: both must accept and refuse the same answers. Only the list of reserved names is shared.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from extensions.questionnaire import reserved_names

__all__ = ["APPS", "Answers", "App", "Extra", "Handler", "OtherProvider", "Preset", "Provider"]

Preset = Literal["minimal", "service", "bot", "full", "spine", "custom"]
Handler = Literal["console", "file", "otel"]
App = Literal["chat", "api", "discord_bot", "mcp_server"]
Provider = Literal["scripted", "local", "openai", "anthropic", "litellm"]
OtherProvider = Literal["local", "openai", "anthropic", "litellm"]
Extra = Literal["resilience", "mcp"]

HANDLERS: tuple[Handler, ...] = ("console", "file", "otel")
USUAL_HANDLERS: tuple[Handler, ...] = ("console", "file")
APPS: tuple[App, ...] = ("chat", "api", "discord_bot", "mcp_server")
USUAL_APPS: tuple[App, ...] = ("chat",)
OTHER_PROVIDERS: tuple[OtherProvider, ...] = ("local", "openai", "anthropic", "litellm")
EXTRAS: tuple[Extra, ...] = ("resilience", "mcp")

SEVERAL: Mapping[str, tuple[str, ...]] = {
    "handlers": HANDLERS,
    "apps": APPS,
    "other_providers": OTHER_PROVIDERS,
    "extras": EXTRAS,
}

# What each preset brings unless the answer says otherwise, and what it won't have changed.
DEFAULTS: Mapping[Preset, Mapping[str, object]] = {
    "minimal": {"handlers": USUAL_HANDLERS, "apps": USUAL_APPS, "store": "sqlite"},
    "service": {"handlers": HANDLERS, "apps": ("api",), "store": "sqlite"},
    "bot": {"handlers": USUAL_HANDLERS, "apps": ("discord_bot",), "store": "sqlite"},
    "full": {
        "handlers": HANDLERS,
        "apps": APPS,
        "store": "sqlite",
        "other_providers": ("openai", "anthropic"),
        "extras": EXTRAS,
    },
    "spine": {"handlers": USUAL_HANDLERS, "apps": ()},
    "custom": {"handlers": USUAL_HANDLERS, "apps": USUAL_APPS},
}
DECIDED: Mapping[Preset, tuple[str, ...]] = {
    "minimal": ("handlers", "apps", "store"),
    "service": ("handlers", "apps", "store"),
    "bot": ("handlers", "apps", "store"),
    "full": ("handlers", "apps", "store"),
    "spine": ("apps",),
    "custom": (),
}

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]"
)


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        message = "not lower-case words joined by single hyphens"
        raise ValueError(message)
    if name in reserved_names():
        message = f"{name!r} is taken"
        raise ValueError(message)
    return name


def _check_description(text: str) -> str:
    if not text[:1].isalnum():
        message = "doesn't start with a letter or a digit"
        raise ValueError(message)
    if _INVISIBLE.search(text):
        message = "has a control character"
        raise ValueError(message)
    if any(mark in text for mark in ("{{", "{%", "{#")):
        message = "has template code"
        raise ValueError(message)
    return text


def _chosen(answer: object) -> object:
    """An answer for comparing: several choices have no order."""
    return frozenset(cast("tuple[str]", answer)) if isinstance(answer, tuple) else answer


class Answers(BaseModel):
    """One project's answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = "minimal"
    project_name: Annotated[str, Field(max_length=50), AfterValidator(_check_name)] = "my-app"
    project_description: Annotated[
        str, Field(max_length=120), AfterValidator(_check_description)
    ] = "An LLM application built on llmgine"
    python_version: Literal["3.11", "3.12", "3.13"] = "3.11"
    ci: Literal["github", "none"] = "github"
    handlers: tuple[Handler, ...] = USUAL_HANDLERS
    apps: tuple[App, ...] = USUAL_APPS
    provider: Provider = "scripted"
    other_providers: tuple[OtherProvider, ...] = ()
    store: Literal["sqlite", "memory"] = "sqlite"
    extras: tuple[Extra, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        filled = {**DEFAULTS.get(given.get("preset", "minimal"), {}), **given}
        if filled.get("provider") == "litellm" and "other_providers" not in given:
            # The two can't share an environment.
            others = filled.get("other_providers", ())
            filled["other_providers"] = tuple(each for each in others if each != "openai")
        return filled

    @model_validator(mode="after")
    def _keep_to_the_preset(self) -> Self:
        for name in DECIDED[self.preset]:
            if _chosen(getattr(self, name)) != _chosen(DEFAULTS[self.preset][name]):
                message = f"the preset {self.preset} decides {name}"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _keep_apart_what_needs_other_versions(self) -> Self:
        if {"openai", "litellm"} <= {self.provider, *self.other_providers}:
            message = "openai and litellm can't be in one project"
            raise ValueError(message)
        return self

    def as_data(self) -> dict[str, Any]:
        """The answers as Copier takes and records them."""
        data = self.model_dump()
        for name, choices in SEVERAL.items():
            data[name] = [choice for choice in choices if choice in data[name]]
        return data

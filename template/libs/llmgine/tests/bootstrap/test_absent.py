"""A file that was left out of the project, and a package that isn't installed."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bootstrap.parts import (
    CONSOLE,
    EXECUTORS,
    FILE,
    MCP,
    MIDDLEWARE,
    OTEL,
    PROVIDERS,
    STORES,
    Room,
)
from llmgine.bus import MessageBus
from llmgine.context.memory import InMemoryContextStore
from llmgine.errors import ConfigurationError
from llmgine.testing.fixtures import quiet_config


def _only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def present(room: Room) -> set[str]:
        return set(names)

    monkeypatch.setattr(Room, "_present", present)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project into which only what can't be left out was rendered."""
    _only(monkeypatch, "scripted", "memory", "manager")


@pytest.mark.parametrize(
    ("room", "name", "answer"),
    [
        (PROVIDERS, "local", "other_providers+=local"),
        (STORES, "sqlite", "store=sqlite"),
        (CONSOLE, "console", "handlers+=console"),
        (FILE, "jsonl", "handlers+=file"),
        (OTEL, "otel", "handlers+=otel"),
        (MCP, "mcp", "extras+=mcp"),
        (MIDDLEWARE["dead_letters"], "dead_letters", "extras+=resilience"),
        (MIDDLEWARE["retry"], "retry", "extras+=resilience"),
    ],
)
@pytest.mark.usefixtures("absent")
def test_a_file_that_was_left_out_names_the_answer(room: Room, name: str, answer: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        room.build(name)
    assert str(caught.value) == (
        f"{room.setting}: {name!r} is not part of this project; to add it, commit your work and "
        f"run `python tools/spine update --to current --data {answer}`"
    )


@pytest.mark.usefixtures("absent")
async def test_handlers_that_were_left_out_are_missed_only_where_settings_speak_of_them() -> None:
    plain = ApplicationConfig(settings_file=None)
    async with ApplicationBootstrap(plain, bus=MessageBus.isolated()) as app:
        assert app.observability.handlers == ()
    for group in ("console", "file", "otel"):
        config = ApplicationConfig(settings_file=None, **{group: {"enabled": True}})
        with pytest.raises(ConfigurationError, match=f"{group}.enabled: .* is not part"):
            await ApplicationBootstrap(config, bus=MessageBus.isolated()).start()


@pytest.fixture
def needy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("llmgine.providers.needy")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    _only(monkeypatch, "needy", "manager")
    return module


async def test_a_missing_package_names_the_extra(needy: ModuleType) -> None:
    def build(_: object) -> object:
        import no_such_package  # pyright: ignore[reportMissingImports]

        return no_such_package  # pyright: ignore[reportUnknownVariableType]

    vars(needy)["build"] = build
    app = ApplicationBootstrap(
        quiet_config(provider={"name": "needy"}),
        bus=MessageBus.isolated(),
        context=InMemoryContextStore(),
    )
    with pytest.raises(ConfigurationError) as caught:
        await app.start()
    assert str(caught.value) == (
        "provider.name: 'needy' needs the package 'no_such_package', which isn't installed; its "
        "extra brings it: write llmgine[needy] in the root's pyproject.toml, then `uv sync`"
    )


def test_what_is_there_can_be_chosen() -> None:
    assert PROVIDERS.has("scripted")
    assert not PROVIDERS.has("observed")
    assert not PROVIDERS.has("__init__")
    with pytest.raises(ConfigurationError, match=r"expected 'manager' or package\."):
        EXECUTORS.build("no_such_file")

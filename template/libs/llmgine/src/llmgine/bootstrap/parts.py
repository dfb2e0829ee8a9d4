"""Parts by name: `scripted` is a file of the room, `package.module:factory` is anybody's.

A file of a room offers `build(settings)`. Files can be left out of a project and packages can be
missing, and the error says which of the two it is and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from llmgine.bootstrap.layers import shown
from llmgine.errors import ConfigurationError

__all__ = [
    "CONSOLE",
    "EXECUTORS",
    "FALLBACK",
    "FILE",
    "MCP",
    "MIDDLEWARE",
    "OTEL",
    "PROVIDERS",
    "RETRY",
    "STORES",
    "Build",
    "Room",
    "named_factory",
]

Build = Callable[..., object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """A room of which one file is chosen by name.

    Attributes:
        setting: the setting that chooses the file, for error messages.
        package: the room's package.
        answers: the change to the questionnaire's answers that brings a file, by file, as
            `tools/spine update --data` takes it.
        helpers: files of the room that are no choice.
        remote: files that ask somebody over a network.
    """

    setting: str
    package: str
    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    helpers: frozenset[str] = frozenset()
    remote: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        """Tell whether the file is part of this project."""
        return name in self._present()

    def build(self, name: str, *arguments: object, **options: object) -> object:
        """Import a file of the room and call its `build`.

        Raises:
            ConfigurationError: there is no such file, or a package that it needs is missing.
        """
        if not self.has(name):
            raise ConfigurationError(f"{self.setting}: {self._absent(name)}")
        try:
            factory = _factory(self.setting, f"{self.package}.{name}", "build")
            return factory(*arguments, **options)
        except ModuleNotFoundError as error:
            text = (
                f"{self.setting}: {name!r} needs the package {error.name!r}, which isn't "
                f"installed; its extra brings it: write llmgine[{name}] in the root's "
                "pyproject.toml, then `uv sync`"
            )
            raise ConfigurationError(text) from error

    def _present(self) -> set[str]:
        spec = find_spec(self.package)
        folders = (spec.submodule_search_locations if spec else None) or ()
        names = {each.name for each in iter_modules(folders) if not each.name.startswith("_")}
        return names - self.helpers

    def _absent(self, name: str) -> str:
        if name in self.answers:
            return (
                f"{name!r} is not part of this project; to add it, commit your work and run "
                f"`python tools/spine update --to current --data {self.answers[name]}`"
            )
        present = sorted(self._present())
        close = get_close_matches(name, [*present, *self.answers], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        found = shown(self.setting, name)
        return f"expected {_listed(present)} or package.module:factory, found {found}{hint}"


CONSOLE = Room(
    setting="console.enabled",
    package="llmgine.observability",
    answers={"console": "handlers+=console"},
)
FILE = Room(
    setting="file.enabled", package="llmgine.observability", answers={"jsonl": "handlers+=file"}
)
OTEL = Room(
    setting="otel.enabled", package="llmgine.observability", answers={"otel": "handlers+=otel"}
)
PROVIDERS = Room(
    setting="provider.name",
    package="llmgine.providers",
    answers={
        name: f"other_providers+={name}" for name in ("anthropic", "litellm", "local", "openai")
    },
    helpers=frozenset({"fallback", "observed", "retrying", "scripted_answers", "usage"}),
    remote=frozenset({"anthropic", "litellm", "openai"}),
)
# The layers around providers: files of the same room, which no provider is.
RETRY = Room(
    setting="retry.enabled",
    package="llmgine.providers",
    answers={"retrying": "extras+=resilience"},
)
FALLBACK = Room(
    setting="provider.fallback",
    package="llmgine.providers",
    answers={"fallback": "extras+=resilience"},
)
# Around every handler of the bus, by file, the outermost first.
MIDDLEWARE = {
    file: Room(
        setting=f"{group}.enabled",
        package="llmgine.bus.middleware",
        answers={file: "extras+=resilience"},
    )
    for file, group in (
        ("dead_letters", "dead_letters"),
        ("retry", "command_retry"),
        ("circuit_breaker", "circuit_breaker"),
        ("rate_limit", "rate_limit"),
    )
}
STORES = Room(
    setting="context.store",
    package="llmgine.context",
    answers={"sqlite": "store=sqlite"},
    helpers=frozenset({"window"}),
)
EXECUTORS = Room(
    setting="tools.executor",
    package="llmgine.tools",
    helpers=frozenset(
        {
            "approvals",
            "arguments",
            "mcp",
            "parameters",
            "results",
            "running",
            "schema",
            "tool",
        }
    ),
)
# No executor, but tools for the one that there is.
MCP = Room(setting="mcp.servers", package="llmgine.tools", answers={"mcp": "extras+=mcp"})


def named_factory(setting: str, path: str) -> Build:
    """Import what `package.module:factory` names.

    Raises:
        ConfigurationError: there is no such module, or nothing to call of that name in it.
    """
    module, _, name = path.partition(":")
    if not (name.isidentifier() and all(each.isidentifier() for each in module.split("."))):
        found = shown(setting, path)
        raise ConfigurationError(f"{setting}: expected package.module:factory, found {found}")
    try:
        return _factory(setting, module, name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{setting}: {path!r} can't be imported: {error}") from error


def _factory(setting: str, module_name: str, name: str) -> Build:
    found: object = vars(import_module(module_name)).get(name)
    if not callable(found):
        text = f"{setting}: expected a function {name!r} in {module_name}, found none"
        raise ConfigurationError(text)
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)

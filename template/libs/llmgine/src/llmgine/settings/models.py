"""Limits and switches of what surrounds a model: its provider, tools and conversations."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

from llmgine.errors import ConfigurationError
from llmgine.settings.bus import check

__all__ = [
    "BudgetSettings",
    "ContextSettings",
    "McpServerSettings",
    "McpSettings",
    "PriceSettings",
    "ProviderSettings",
    "RetrySettings",
    "ToolSettings",
]

_SERVER_NAME = re.compile(r"[a-zA-Z0-9_-]{1,32}")


@dataclass(frozen=True, kw_only=True)
class ContextSettings:
    """Which context store keeps the conversations, and how the one in a file does.

    Attributes:
        store: a short name (`memory`, `sqlite`) or `package.module:factory`.
        path: the file of `sqlite`; its folder is made on first use.
        synchronous: `full` keeps what was acknowledged through a power failure; `normal` is faster
            and may lose the last messages to one.
        tenant: whose conversations are in sight, where several share a file.
        busy_timeout: how long to wait for other processes that write to the file.
    """

    store: str = "memory"
    path: Path = Path(".llmgine/context.db")
    synchronous: Literal["full", "normal"] = "full"
    tenant: str = ""
    busy_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "busy_timeout", least=0)


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """Which provider answers.

    Attributes:
        name: a short name (`scripted`, `local`) or `package.module:factory`.
        model: the model to ask; empty means the provider's own default.
        system_prompt: what every conversation starts with; empty means nothing.
        options: further options, handed to the provider's factory as they are; kept out of `repr`,
            since a key may be among them.
        variables: what else stands in `.env`, for keys under the names that the provider gives
            them, such as `OPENAI_API_KEY`; bootstrap fills it, and the environment wins.
        fallback: who is asked when this one can't answer, in order; named as in `name`.
        fallback_options: the options of each of these, by its name; `model` is its model.
    """

    name: str = "scripted"
    model: str = ""
    system_prompt: str = ""
    options: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    variables: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    fallback: list[str] = field(default_factory=list[str])
    fallback_options: dict[str, dict[str, str]] = field(
        default_factory=dict[str, dict[str, str]], repr=False
    )

    def __post_init__(self) -> None:
        """Refuse names that can't be meant."""
        if len(set(self.fallback)) < len(self.fallback):
            raise ConfigurationError(f"fallback: expected each name once, found {self.fallback}")
        if unknown := sorted(self.fallback_options.keys() - set(self.fallback)):
            text = f"fallback_options: {unknown[0]!r} is not among the names in `fallback`"
            raise ConfigurationError(text)

    def alternative(self, name: str) -> ProviderSettings:
        """Return the settings of another provider, which shares no option with this one."""
        options = dict(self.fallback_options.get(name, {}))
        model = options.pop("model", "")
        return replace(
            self, name=name, model=model, options=options, fallback=[], fallback_options={}
        )

    def chosen(self, name: str | None, model: str | None) -> ProviderSettings:
        """Return these settings with what a command line chooses; `None` leaves it as it is."""
        # Model and options are meant for the provider that is named beside them.
        chosen = self if name is None or name == self.name else self.alternative(name)
        return chosen if model is None else replace(chosen, model=model)


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How model calls that fail for a while are tried again.

    Attributes:
        enabled: `auto` is for the providers of this project that ask over a network; `always` is
            for your own as well.
        attempts: calls at most, the first included.
        delay: the longest pause before the second; each further one may be twice as long.
        max_delay: the longest pause at all. A provider that asks for a longer one isn't waited for.
        deadline: for all attempts and pauses together, up to the first piece of the answer.
    """

    enabled: Literal["auto", "always", "never"] = "auto"
    attempts: int = 3
    delay: float = 0.5
    max_delay: float = 30.0
    deadline: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "attempts", least=1)
        check(self, "delay", "max_delay", "deadline", least=0)


@dataclass(frozen=True, kw_only=True)
class PriceSettings:
    """What a model's tokens cost, each price for a million of them.

    Attributes:
        input: what is sent.
        output: what is answered, reasoning included.
        cached: input that was read from the provider's cache; by default as other input.
        cache_write: input that was written to it; by default as other input.
    """

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        given = {name: price for name, price in vars(self).items() if price is not None}
        for name, price in given.items():
            if not math.isfinite(price):
                raise ConfigurationError(f"{name}: expected a number from 0 up, found {price}")
        check(self, *given, least=0)


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """What models cost, and how much may be spent before further calls are refused.

    Costs are in the currency that the prices are given in. There is no limit by default.

    Attributes:
        session_tokens: input and output tokens of a session.
        session_cost: the cost of a session.
        process_tokens: input and output tokens of the application, as long as its process lives.
        process_cost: its cost.
        prices: by model, as the provider names it; a date at the end of its name may be left out.
    """

    session_tokens: float = math.inf
    session_cost: float = math.inf
    process_tokens: float = math.inf
    process_cost: float = math.inf
    prices: dict[str, PriceSettings] = field(default_factory=dict[str, PriceSettings])

    def __post_init__(self) -> None:
        """Refuse limits that can't be meant, or can't hold."""
        limits = ("session_tokens", "session_cost", "process_tokens", "process_cost")
        check(self, *limits, least=0)
        for name in ("session_cost", "process_cost"):
            if vars(self)[name] < math.inf and not self.prices:
                text = f"{name}: expected prices beside it, in [budget.prices.<model>], found none"
                raise ConfigurationError(text)


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Who runs the tools, and its limits.

    Attributes:
        executor: a short name (`manager`) or `package.module:factory`.
        timeout: a call's limit where its tool names none.
        cancel_grace: how long an `async def` tool may ignore its cancellation before it is left
            behind.
        concurrency: calls at once, per session.
        threads: threads for `def` tools.
        abandoned_threads: calls given up on that still run, before further ones are refused.
        max_argument_bytes: the longest arguments.
        max_depth: how deeply arguments may be nested.
        max_result_bytes: the longest result; what is longer is cut.
        approval_timeout: how long a call waits for a person.
    """

    executor: str = "manager"
    timeout: float = 30.0
    cancel_grace: float = 1.0
    concurrency: int = 8
    threads: int = 32
    abandoned_threads: int = 64
    max_argument_bytes: int = 256 * 1024
    max_depth: int = 64
    max_result_bytes: int = 64 * 1024
    approval_timeout: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "timeout", "cancel_grace", "approval_timeout", least=0)
        check(self, "concurrency", "threads", "abandoned_threads", "max_depth", least=1)
        check(self, "max_argument_bytes", least=2)
        check(self, "max_result_bytes", least=256)


@dataclass(frozen=True, kw_only=True)
class McpServerSettings:
    """An MCP server whose tools are offered: a program to run, or an address.

    Attributes:
        command: the program; it is started and stopped with the application.
        args: its arguments; kept out of `repr`, as whatever may hold a secret.
        env: its environment, beside the few variables that every program needs.
        pass_env: variables that it gets from our own environment or from `.env`.
        folder: its working directory, seen from the settings file's folder.
        url: the address, for a server that runs elsewhere (streamable HTTP).
        headers: what every request to it carries.
        prefix: what its tools' names begin with; by default the server's name and `_`.
        tools: the tools to offer, by the server's own names; empty means all.
        approval: which calls a person has to approve: `always`; `writes`, which takes the server's
            word on which of its tools only read; or `never`.
        trusted_tools: tools that need no approval, whatever `approval` says.
        required: whether the application may not start without it. Otherwise it is tried again,
            and its tools appear once it is there.
        connect_timeout: how long it may take to answer after it was started or called.
        timeout: the limit of a call.
    """

    command: str = ""
    args: list[str] = field(default_factory=list[str], repr=False)
    env: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    pass_env: list[str] = field(default_factory=list[str])
    folder: Path = Path()
    url: str = field(default="", repr=False)
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    prefix: str | None = None
    tools: list[str] = field(default_factory=list[str])
    approval: Literal["always", "writes", "never"] = "always"
    trusted_tools: list[str] = field(default_factory=list[str])
    required: bool = False
    connect_timeout: float = 20.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        check(self, "connect_timeout", "timeout", least=0.001)
        if bool(self.command) == bool(self.url):
            found = "both" if self.command else "neither"
            raise ConfigurationError(f"command: expected either `command` or `url`, found {found}")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigurationError("url: expected it to begin with http:// or https://")
        other = ("headers",) if self.command else ("args", "env", "pass_env")
        if strange := [name for name in other if vars(self)[name]]:
            kind = "`url`" if self.command else "`command`"
            raise ConfigurationError(f"{strange[0]}: expected beside {kind} alone")


@dataclass(frozen=True, kw_only=True)
class McpSettings:
    """Whose tools are offered beside the application's own, over the Model Context Protocol.

    Attributes:
        servers: the servers, each under a name of your own.
    """

    servers: dict[str, McpServerSettings] = field(default_factory=dict[str, McpServerSettings])

    def __post_init__(self) -> None:
        """Refuse names that can't begin a tool's name."""
        for name in self.servers:
            if not _SERVER_NAME.fullmatch(name):
                text = "expected names of 1 to 32 letters, digits, `_` and `-`, found"
                raise ConfigurationError(f"servers: {text} {name!r}")

"""Middleware that the settings switch on, and that costs nothing where they don't."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig
from llmgine.bus import MessageBus
from llmgine.bus.middleware import CircuitBreaker, DeadLetters, RateLimit, Retry
from llmgine.bus.middleware.dead_letter_file import DeadLetterFile
from llmgine.contracts import Command
from llmgine.contracts.codec import register
from llmgine.errors import ConfigurationError, RateExceededError
from llmgine.testing.fixtures import quiet_config

ON = {"enabled": True}
ALL = {
    "rate_limit": {**ON, "requests": 3, "max_wait": 0},
    "circuit_breaker": ON,
    "command_retry": {**ON, "delay": 0},
    "dead_letters": ON,
}


@register
@dataclass(frozen=True, kw_only=True)
class FetchAgain(Command[str]):
    idempotent: ClassVar[bool] = True


class Flaky:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self, command: FetchAgain) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError("gone")
        return "here"


async def test_settings_put_them_around_handlers_in_the_recommended_order() -> None:
    bus, handler = MessageBus.isolated(), Flaky(2)
    app = ApplicationBootstrap(quiet_config(**ALL), bus=bus)
    async with app:
        bus.register_command_handler(FetchAgain, handler)
        around = vars(bus)["_core"].middlewares
        assert [type(each) for each in around] == [DeadLetters, Retry, CircuitBreaker, RateLimit]
        assert await bus.execute(FetchAgain()) == "here"
        assert app.middleware(Retry).counts.recovered == 1
        # Each attempt has taken a turn, and the fourth one is refused for good.
        with pytest.raises(RateExceededError):
            await bus.execute(FetchAgain())
        letters = app.middleware(DeadLetters).letters()
        assert [letter.error.type for letter in letters] == ["llmgine.errors.RateExceededError"]
    assert handler.calls == 3
    assert vars(bus)["_core"].middlewares == ()
    assert vars(bus)["_core"].observers == ()


async def test_nothing_stands_around_handlers_by_default() -> None:
    bus = MessageBus.isolated()
    async with ApplicationBootstrap(quiet_config(), bus=bus) as app:
        assert vars(bus)["_core"].middlewares == ()
        with pytest.raises(ConfigurationError, match="no Retry is switched on"):
            app.middleware(Retry)


def test_nothing_of_them_is_imported_by_default() -> None:
    program = "import sys, llmgine.bootstrap; sys.exit('llmgine.bus.middleware' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)  # noqa: S603


async def test_letters_go_to_the_file_that_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        "[console]\nenabled = false\n[file]\nenabled = false\n"
        '[dead_letters]\nenabled = true\npath = "letters/dead.jsonl"\n'
    )
    config = ApplicationConfig(settings_file=tmp_path / "settings.toml")
    bus = MessageBus.isolated()
    async with ApplicationBootstrap(config, bus=bus):
        bus.register_command_handler(FetchAgain, Flaky(1))
        with pytest.raises(ConnectionError):
            await bus.execute(FetchAgain())
    (letter,) = DeadLetterFile(tmp_path / "letters" / "dead.jsonl").letters()
    assert isinstance(letter.message, FetchAgain)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        quiet_config(
            command_retry={"attempts": 0},
            circuit_breaker={"ratio": 2},
            rate_limit={"per": "a minute"},
            dead_letters={"limits": 3},
        )
    assert "dead_letters.limits: no such setting; did you mean dead_letters.limit?" in str(
        caught.value
    )
    with pytest.raises(ConfigurationError) as caught:
        quiet_config(
            command_retry={"attempts": 0},
            circuit_breaker={"ratio": 2},
            rate_limit={"per": "a minute"},
        )
    assert str(caught.value).splitlines() == [
        "command_retry.attempts: expected a number from 1 up, found 0 (given in code)",
        "circuit_breaker.ratio: expected a number up to 1, found 2.0 (given in code)",
        "rate_limit.per: expected a number, found 'a minute' (given in code)",
    ]


async def test_a_bus_that_runs_already_takes_none() -> None:
    async with MessageBus.isolated() as bus:
        with pytest.raises(ConfigurationError, match=r"before the bus starts: .*Retry"):
            await ApplicationBootstrap(quiet_config(command_retry=ON), bus=bus).start()

"""The bot from its login to its end: exit statuses, and what is said on standard error."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import pytest
from discord_bot.config import BotConfig
from discord_bot.demo.server import DiscordServer
from discord_bot.demo.state import Fault
from discord_bot.reports import lines_on_stderr
from discord_bot.serving import serve
from llmgine.settings import ProviderSettings

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture
def config() -> BotConfig:
    return BotConfig(
        settings_file=None,
        console={"enabled": False},
        file={"enabled": False},
        provider=ProviderSettings(options={"delay": "0.1"}),
    )


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_a_word_and_a_goodbye(
    server: DiscordServer,
    config: BotConfig,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    serving = asyncio.create_task(serve(config, server.token))
    await server.until(lambda: server.gateway.identified)
    await server.say(server.ada, server.direct(server.ada), "Please read README.md")
    question = await server.until(
        lambda: next((each for each in server.said() if each.buttons()), None)
    )
    signal.raise_signal(number)
    assert await serving == 128 + number
    assert "Not run: the call was cancelled." in question.content
    assert server.said()[-1].content == "-# Stopped: the bot is going offline."
    await server.until(lambda: server.gateway.closed)
    assert server.gateway.closed == [1000]
    assert capfd.readouterr().err == "connected as assistant, on 1 server\n"


@needs_signals
async def test_a_signal_ends_it_though_discord_doesn_t_answer(
    server: DiscordServer,
    config: BotConfig,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("discord_bot.serving._GRACE", 0.2)
    serving = asyncio.create_task(serve(config, server.token))
    await server.until(lambda: server.gateway.identified)
    await server.say(server.ada, server.direct(server.ada), "Hello!")
    await server.until(server.said)
    server.faults.append(Fault.rate_limit("PATCH", "/messages/", 3600))
    server.faults.append(Fault.rate_limit("POST", "/messages", 3600))
    signal.raise_signal(signal.SIGTERM)
    assert await serving == 128 + signal.SIGTERM
    assert "Discord takes long to answer" in capfd.readouterr().err


async def test_a_wrong_token_is_a_line_that_doesn_t_hold_it(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await serve(config, "wrong-token") == 2
    err = capfd.readouterr().err
    assert err.startswith("DISCORD_TOKEN: expected a token that Discord knows")
    assert err.count("\n") == 1
    assert "wrong-token" not in err


async def test_a_token_that_the_gateway_refuses_is_the_same(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    server.gateway.token = "another"  # noqa: S105
    assert await serve(config, server.token) == 2
    assert capfd.readouterr().err.startswith("DISCORD_TOKEN: expected a token that Discord knows")


async def test_a_missing_intent_is_a_line_that_says_where_to_click(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    server.gateway.message_content = False
    assert await serve(config, server.token) == 2
    err = capfd.readouterr().err
    assert "Message Content Intent" in err
    assert err.count("\n") == 1


async def test_a_connection_that_is_closed_for_good_is_a_line(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    serving = asyncio.create_task(serve(config, server.token))
    await server.until(lambda: server.gateway.identified)
    await server.gateway.drop(4013)
    assert await serving == 1
    assert "Discord has closed the connection for good (code 4013)\n" in capfd.readouterr().err


async def test_discord_out_of_reach_is_a_line(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = Fault(method="GET", path="/users/@me", status=418, body={"message": "no", "code": 0})
    server.faults.append(fault)
    assert await serve(config, server.token) == 1
    err = capfd.readouterr().err
    assert err.startswith("Discord can't be reached: HTTPException: 418")
    assert err.count("\n") == 1


async def test_a_bot_that_nobody_has_invited_says_how_to(
    server: DiscordServer, config: BotConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    server.invited = False
    serving = asyncio.create_task(serve(config, server.token))
    await server.until(lambda: server.gateway.identified)
    await server.say(server.ada, server.direct(server.ada), "Hello!")
    await server.until(server.said)
    signal.raise_signal(signal.SIGTERM)
    await serving
    assert "connected as assistant, on 0 servers\ninvite it: https://" in capfd.readouterr().err


def test_a_record_of_a_failure_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("discord.client")
    with lines_on_stderr():
        for work in (unreachable, buggy):
            try:
                work()
            except (ConnectionError, ZeroDivisionError):
                log.exception("Attempting a reconnect")
        log.info("nobody's business")
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("discord.client: Attempting a reconnect: ConnectionError: token=")
    assert "abc" not in first
    assert first.endswith("second line")
    assert second.startswith("discord.client: Attempting a reconnect: ZeroDivisionError: a bug (")
    assert second.split(":")[-1].rstrip(")").isdecimal()


def unreachable() -> None:
    raise ConnectionError("token=abc\nsecond line")


def buggy() -> None:
    raise ZeroDivisionError("a bug")

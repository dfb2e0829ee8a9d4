"""What the network and Discord's limits do to the bot, and what it makes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from discord_bot.bot import Bot
from discord_bot.demo.server import DiscordServer
from discord_bot.demo.state import Fault
from llmgine.contracts import LLMRequest

Connect: TypeAlias = Callable[..., Awaitable[Bot]]


def heard(request: LLMRequest) -> str:
    return f"{len(request.messages)}: {request.messages[-1].text}"


async def said(server: DiscordServer, text: str) -> None:
    """Wait until the bot has said something."""
    await server.until(lambda: any(each.content == text for each in server.said()))


async def test_what_happens_while_the_connection_is_gone_is_heard_afterwards(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 2)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "one")
    await said(server, "1: one")
    await server.gateway.drop()
    await server.say(server.ada, channel, "two")
    await said(server, "3: two")
    assert (server.gateway.identified, server.gateway.resumed) == (1, 1)


async def test_a_session_that_can_t_be_resumed_is_begun_anew(
    server: DiscordServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(self: Bot, shard_id: int | None, *, initial: bool = False) -> None:
        """Don't wait for five seconds, as Discord wants it."""

    monkeypatch.setattr(Bot, "before_identify_hook", at_once)
    await connect([heard] * 2)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "one")
    await said(server, "1: one")
    server.gateway.resumable = False
    await server.gateway.drop()
    await server.until(lambda: server.gateway.identified == 2)
    await server.say(server.ada, channel, "two")
    await said(server, "3: two")
    assert server.gateway.resumed == 0


async def test_an_answer_goes_on_while_the_connection_is_gone(
    server: DiscordServer, connect: Connect
) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    await connect([text], delay=0.01)
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await server.until(server.said)
    await server.gateway.drop()
    await said(server, text)
    await server.until(lambda: server.gateway.resumed)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_rate_limit_delays_an_answer_and_loses_nothing_of_it(
    server: DiscordServer, connect: Connect, method: str
) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    await connect([text], delay=0.01)
    server.faults.append(Fault.rate_limit(method, "/messages", 0.2, times=2))
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await said(server, text)
    assert len(server.said()) == 1
    # However long it takes, there is one look at what is new, not one request for each piece.
    assert len([path for _, path in server.requests if "/messages" in path]) < 40


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_rate_limit_that_outlasts_the_client_s_patience_loses_nothing(
    server: DiscordServer, connect: Connect, method: str
) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    await connect([text], delay=0.01)
    server.faults.append(Fault.rate_limit(method, "/messages", 0.02, times=7))
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await said(server, text)


async def test_a_server_that_fails_for_a_moment_gets_the_answer_later(
    server: DiscordServer, connect: Connect
) -> None:
    text = " ".join(f"word{number}" for number in range(40))
    await connect([text], delay=0.005)
    server.faults.append(Fault(method="PATCH", path="/messages/", status=503, body={}, times=2))
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await said(server, text)


async def test_a_message_that_somebody_deletes_ends_the_answer(
    server: DiscordServer, connect: Connect
) -> None:
    await connect(["word " * 300, "Better."], delay=0.02)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    message = (await server.until(server.said))[0]
    server.posted.remove(message)
    await server.say(server.ada, channel, "And now?")
    await said(server, "Better.")
    assert not message.content.endswith("word " * 300)


async def test_slash_commands_that_can_t_be_offered_are_a_line(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.append(Fault.forbidden("PUT", "/commands$"))
    await connect([heard])
    await server.say(server.ada, server.direct(server.ada), "one")
    await said(server, "1: one")
    assert "the slash commands can't be offered" in caplog.text
    assert not server.commands

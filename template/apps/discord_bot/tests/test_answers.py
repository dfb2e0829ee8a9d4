"""Where the bot answers, and how: the real client against a server on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from discord_bot.bot import Bot
from discord_bot.config import DiscordSettings
from discord_bot.demo.server import DiscordServer
from discord_bot.demo.state import Fault
from discord_bot.demo.world import Payload, Person, Posted
from llmgine.bus import MessageBus
from llmgine.contracts import (
    ChatMessage,
    CommandResultEvent,
    LLMChunkEvent,
    LLMRequest,
    LLMResponse,
    SessionEndEvent,
)
from llmgine.errors import RateLimitError
from llmgine.providers.scripted import BrokenStream

Connect: TypeAlias = Callable[..., Awaitable[Bot]]


def heard(request: LLMRequest) -> str:
    return f"{len(request.messages)}: {request.messages[-1].text}"


async def answer(server: DiscordServer, text: str) -> Posted:
    """Wait until the bot has said something."""
    return await server.until(
        lambda: next((each for each in server.said() if each.content == text), None)
    )


async def test_a_mention_opens_a_thread(server: DiscordServer, connect: Connect) -> None:
    await connect([heard])
    asked = await server.say(server.ada, server.general, f"{server.bot.mention} I am\nAda.")
    message = await answer(server, "1: I am\nAda.")
    assert message.channel.id == asked.id
    assert message.channel.name == "I am Ada."


async def test_a_thread_is_a_conversation_that_needs_no_more_mentions(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 3)
    await server.say(server.ada, server.general, f"{server.bot.mention} one")
    thread = (await answer(server, "1: one")).channel
    await server.say(server.bob, thread, "two")
    assert (await answer(server, "3: two")).channel is thread
    await server.say(server.bob, server.general, f"{server.bot.mention} three")
    assert (await answer(server, "1: three")).channel is not thread


async def test_in_other_people_s_threads_a_mention_is_answered_there(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 2)
    thread = await server.thread(server.ada, "plans")
    await server.say(server.ada, thread, "not for the bot")
    await server.say(server.ada, thread, f"{server.bot.mention} one")
    assert (await answer(server, "1: one")).channel is thread
    await server.say(server.bob, thread, f"{server.bot.mention} two")
    assert (await answer(server, "3: two")).channel is thread


async def test_direct_messages_are_a_conversation_with_each_person(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 3)
    ada, bob = server.direct(server.ada), server.direct(server.bob)
    await server.say(server.ada, ada, "one")
    assert (await answer(server, "1: one")).channel is ada
    await server.say(server.bob, bob, "one of Bob's")
    assert (await answer(server, "1: one of Bob's")).channel is bob
    await server.say(server.ada, ada, "two")
    assert (await answer(server, "3: two")).channel is ada


async def test_other_messages_are_nobody_s_business(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard])
    await server.say(server.ada, server.general, "Hello, everybody!")
    robot = Person(name="another", bot=True)
    await server.say(robot, server.general, f"{server.bot.mention} Hello!")
    await server.say(robot, server.direct(robot), "Hello!")
    await server.say(server.ada, server.general, f"{server.bot.mention} last")
    await answer(server, "1: last")
    assert len(server.said()) == 1


async def test_a_message_that_is_told_of_twice_is_answered_once(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 3)
    channel = server.direct(server.ada)
    asked = await server.say(server.ada, channel, "one")
    await server.gateway.tell("MESSAGE_CREATE", asked.payload())
    await server.say(server.ada, channel, "two")
    await answer(server, "3: two")


async def test_the_role_that_bears_the_bot_s_name_is_the_bot(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard])
    tags = {"bot_id": str(server.bot.id)}
    role: Payload = {"id": "77", "name": "assistant", "permissions": "0", "tags": tags}
    guild_id = str(server.guild_id)
    await server.gateway.tell("GUILD_ROLE_CREATE", {"guild_id": guild_id, "role": role})
    text = f"<@&77> are you <@&{server.role_id}>?"
    asked = server.post(server.general, server.ada, {"content": text})
    named = ["77", str(server.role_id)]
    await server.gateway.tell("MESSAGE_CREATE", {**asked.payload(), "mention_roles": named})
    await answer(server, "1: are you @staff?")


async def test_what_is_attached_is_said_to_be_unread(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard])
    channel = server.direct(server.ada)
    file: Payload = {"id": "1", "filename": "a.png", "size": 1, "url": "", "proxy_url": ""}
    asked = server.post(channel, server.ada, {"content": "What is this?"})
    await server.gateway.tell("MESSAGE_CREATE", {**asked.payload(), "attachments": [file]})
    await server.until(server.said)
    unread = "-# I can't open attachments: I have read only what you wrote.\n"
    await answer(server, f"{unread}1: What is this?")


async def test_without_a_thread_the_answer_stands_in_place(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 2)
    server.faults.append(Fault.forbidden("POST", "/threads$", times=2))
    await server.say(server.ada, server.general, f"{server.bot.mention} one")
    assert (await answer(server, "1: one")).channel is server.general
    await server.say(server.bob, server.general, f"{server.bot.mention} two")
    assert (await answer(server, "3: two")).channel is server.general


async def test_a_mention_alone_is_no_question(server: DiscordServer, connect: Connect) -> None:
    await connect([])
    await server.say(server.ada, server.general, f" {server.bot.mention} ")
    message = await server.until(lambda: next(iter(server.said()), None))
    assert "Ask me something" in message.content


async def test_other_people_are_called_by_their_names(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard])
    await server.say(server.ada, server.general, f"{server.bot.mention} ask {server.bob.mention}")
    await answer(server, "1: ask @Bob")


async def test_an_answer_grows_by_edits_that_are_fewer_than_its_pieces(
    server: DiscordServer, connect: Connect
) -> None:
    words = " ".join(f"word{number}" for number in range(100))
    await connect([words], delay=0.002)
    await server.say(server.ada, server.direct(server.ada), "Hi")
    message = await answer(server, words)
    assert 3 < len(message.versions) < 100
    assert all(words.startswith(version) for version in message.versions)


async def test_nothing_of_an_answer_is_lost_where_events_are_handled_slowly(
    server: DiscordServer, connect: Connect, bus: MessageBus
) -> None:
    async def slow(event: LLMChunkEvent) -> None:
        await asyncio.sleep(0.005)

    text = " ".join(f"word{number}" for number in range(40))
    await connect([text])
    bus.register_event_handler(LLMChunkEvent, slow)
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await answer(server, text)


async def test_a_long_answer_is_several_messages(server: DiscordServer, connect: Connect) -> None:
    code = "\n".join(f"print({number})" for number in range(400))
    text = f"Look:\n\n```python\n{code}\n```\nThat was it."
    await connect([text])
    await server.say(server.ada, server.direct(server.ada), "Hi")
    await server.until(lambda: any("That was it." in each.content for each in server.said()))
    first, *rest, last = server.said()
    assert rest
    assert first.content.startswith("Look:\n\n```python\nprint(0)\n")
    assert last.content.startswith("```python\nprint(")
    for message in (first, *rest, last):
        assert all(len(version) <= 2000 for version in message.versions)
        assert all(version.count("```") % 2 == 0 for version in message.versions)


async def test_what_a_model_says_notifies_nobody(server: DiscordServer, connect: Connect) -> None:
    bells = f"@everyone @here {server.bob.mention} <@&{server.role_id}>"
    await connect([bells] * 3, delay=0.01)
    server.faults.append(Fault.forbidden("POST", "/threads$"))
    await server.say(server.ada, server.general, f"{server.bot.mention} {bells}")
    await answer(server, bells)
    asked = await server.command(server.ada, server.general, "ask", question=bells)
    await server.until(lambda: asked.answers and asked.answers[-1].content.endswith(bells))
    assert len(server.said()) == 2
    assert not any(message.rings for message in server.said())


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (ChatMessage.assistant(), "The model gave no answer."),
        (" \n", "The model gave no answer."),
        (RateLimitError("slow down, says http://secret"), "(RateLimitError): trying again may"),
        (ZeroDivisionError("a secret"), "(ZeroDivisionError)."),
        (BrokenStream("Half an answer", after=1), "(StreamInterruptedError)"),
        (
            LLMResponse(message=ChatMessage.assistant("Half"), finish_reason="length"),
            "the model's limit",
        ),
    ],
)
async def test_what_is_left_to_say_is_said(
    server: DiscordServer,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    step: object,
    words: str,
) -> None:
    await connect([step, "Better."])
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    note = await server.until(
        lambda: next((each for each in server.said() if each.content.startswith("-# ")), None)
    )
    assert words in note.content
    assert "secret" not in "".join(each.content for each in server.said())
    assert ("secret" in caplog.text) is ("secret" in repr(step))
    await server.say(server.ada, channel, "And now?")
    await answer(server, "Better.")


async def test_questions_wait_for_each_other_but_not_too_many(
    server: DiscordServer, connect: Connect
) -> None:
    bot = await connect(["first " * 60, *[heard] * 5], delay=0.01)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "0")
    await server.until(server.said)
    for number in range(1, 8):
        await server.say(server.ada, channel, str(number))
    await answer(server, "11: 5")
    refused = [each for each in server.said() if "several questions" in each.content]
    assert len(refused) == 2
    assert bot.conversation(channel.id) is not None


async def test_a_conversation_where_nobody_speaks_is_put_away_and_goes_on_later(
    server: DiscordServer, connect: Connect, bus: MessageBus
) -> None:
    ended = asyncio.Event()

    def end(event: SessionEndEvent) -> None:
        ended.set()

    await connect([heard] * 2, settings=DiscordSettings(idle=0.05))
    bus.register_event_handler(SessionEndEvent, end, inline=True)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "one")
    await answer(server, "1: one")
    await ended.wait()
    await server.say(server.ada, channel, "two")
    await answer(server, "3: two")


async def test_the_end_is_said_where_an_answer_is_under_way_or_waited_for(
    server: DiscordServer, connect: Connect
) -> None:
    bot = await connect(["word " * 500], delay=0.05)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "0")
    await server.until(server.said)
    for number in range(1, 7):
        await server.say(server.ada, channel, str(number))
    await server.until(lambda: any("several questions" in each.content for each in server.said()))
    await bot.end()
    first, _, *rest = server.said()
    assert first.content.startswith("word")
    assert [each.content for each in rest] == ["-# Stopped: the bot is going offline."] * 6


async def test_an_answer_that_is_there_is_shown_to_its_end(
    server: DiscordServer, connect: Connect, bus: MessageBus
) -> None:
    over = asyncio.Event()

    def end(event: CommandResultEvent) -> None:
        over.set()

    text = " ".join(f"word{number}" for number in range(1000))
    bot = await connect([text])
    bus.register_event_handler(CommandResultEvent, end, inline=True)
    server.faults.append(Fault.rate_limit("POST", "/messages$", 1.0))
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    await over.wait()
    traced = await server.command(server.ada, channel, "trace")
    await server.until(lambda: traced.answers)
    await bot.end()
    shown = " ".join(each.content for each in server.said() if not each.ephemeral)
    assert shown.endswith(" word999")
    assert "going offline" not in shown


async def test_a_place_that_is_forbidden_is_one_line_and_ends_the_turn(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    bot = await connect(["word " * 500, "Here."], delay=0.01)
    server.faults.append(Fault.forbidden("POST", "/messages$"))
    with caplog.at_level(logging.WARNING, "discord_bot"):
        await server.say(server.ada, server.general, f"{server.bot.mention} one")
        await server.until(lambda: not any(fault.times for fault in server.faults))
        await server.say(server.ada, server.direct(server.ada), "two")
        await answer(server, "Here.")
    await bot.end()
    (record,) = caplog.records
    assert "Discord forbids it in channel" in record.getMessage()
    assert "Missing Permissions" in record.getMessage()


async def test_an_answer_to_a_message_that_can_t_be_sent_is_a_line(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await connect([heard])
    server.faults.append(Fault.forbidden("POST", f"/{server.general.id}/messages$"))
    await server.say(server.ada, server.general, server.bot.mention)
    await server.until(lambda: not any(fault.times for fault in server.faults))
    await server.say(server.ada, server.direct(server.ada), "one")
    await answer(server, "1: one")
    assert f"Discord forbids it in channel {server.general.id} (Missing Perm" in caplog.text

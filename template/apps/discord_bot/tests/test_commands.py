"""Slash commands, buttons, and who may use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from discord_bot.bot import Bot
from discord_bot.config import DiscordSettings
from discord_bot.demo.server import DiscordServer
from discord_bot.demo.state import Fault
from discord_bot.demo.world import Payload, Person, Posted
from llmgine.contracts import ChatMessage, LLMRequest, ToolCall
from llmgine.errors import ContextStoreError

Connect: TypeAlias = Callable[..., Awaitable[Bot]]

READ = ToolCall(id="1", name="read_file", arguments='{"path": "no-such-file.txt"}')
ADD = ToolCall(id="2", name="calculate", arguments='{"expression": "6*7"}')


def heard(request: LLMRequest) -> str:
    return f"{len(request.messages)}: {request.messages[-1].text}"


def results(request: LLMRequest) -> str:
    return "; ".join(result.text for result in request.messages[-1].tool_results)


async def said(server: DiscordServer, text: str) -> Posted:
    """Wait until the bot has said something, as a part of a message perhaps."""
    return await server.until(
        lambda: next((each for each in server.said() if text in each.content), None)
    )


async def test_ask_answers_in_place_with_the_question_above(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard, heard])
    asked = await server.command(server.ada, server.general, "ask", question="Who *are*\nyou?")
    message = await said(server, "1: Who *are*\nyou?")
    assert message.content == "> Who \\*are\\* you?\n1: Who *are*\nyou?"
    assert asked.answers == [message]
    await server.command(server.bob, server.general, "ask", question="And I?")
    await said(server, "3: And I?")


async def test_a_command_that_discord_takes_no_answer_to_is_a_line(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    await connect([heard])
    server.faults.append(Fault.forbidden("POST", "/callback$"))
    await server.command(server.ada, server.general, "ask", question="one")
    await server.until(lambda: not any(fault.times for fault in server.faults))
    await server.command(server.ada, server.general, "ask", question="two")
    await said(server, "1: two")
    (record,) = (each for each in caplog.records if each.name == "discord_bot.commands")
    assert record.getMessage().startswith("Discord forbids it (Missing Permissions")
    assert not any(token in record.getMessage() for token in server.interactions)


async def test_a_blank_question_is_none(server: DiscordServer, connect: Connect) -> None:
    await connect([])
    await server.command(server.ada, server.general, "ask", question=" ")
    await said(server, "Ask me something.")


async def test_clear_forgets_the_place_it_is_used_in(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([heard] * 4)
    ada, bob = server.direct(server.ada), server.direct(server.bob)
    for person, channel in ((server.ada, ada), (server.bob, bob)):
        await server.say(person, channel, f"I am {person.name}")
        await said(server, f"1: I am {person.name}")
    await server.command(server.ada, ada, "clear")
    await said(server, "Forgotten")
    await server.say(server.ada, ada, "Who am I?")
    await said(server, "1: Who am I?")
    await server.say(server.bob, bob, "Who am I?")
    await said(server, "3: Who am I?")


async def test_a_command_that_fails_says_so_and_no_more(
    server: DiscordServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def forget(self: Bot, place_id: int) -> None:
        raise ContextStoreError("a secret")

    monkeypatch.setattr(Bot, "forget", forget)
    await connect([])
    cleared = await server.command(server.ada, server.general, "clear")
    (answer,) = await server.until(lambda: cleared.answers)
    assert answer.content.startswith("-# That went wrong")
    assert answer.ephemeral
    assert "a secret" in caplog.text


async def test_clear_waits_for_nobody(server: DiscordServer, connect: Connect) -> None:
    await connect(["word " * 300], delay=0.05)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    await server.until(server.said)
    cleared = await server.command(server.ada, channel, "clear")
    (answer,) = await server.until(lambda: cleared.answers)
    assert "An answer is under way" in answer.content
    assert answer.ephemeral


async def test_trace_tells_what_the_last_turn_did(server: DiscordServer, connect: Connect) -> None:
    await connect(["Hello!", ChatMessage.assistant("Let me see.", ADD), results])
    channel = server.direct(server.ada)
    nothing = await server.command(server.ada, channel, "trace")
    (answer,) = await server.until(lambda: nothing.answers)
    assert "Nothing has been answered" in answer.content
    await server.say(server.ada, channel, "Hi")
    await said(server, "Hello!")
    await server.say(server.ada, channel, "6*7?")
    await said(server, "Let me see.\n\n42")
    traced = await server.command(server.ada, channel, "trace")
    (answer,) = await server.until(lambda: traced.answers)
    assert answer.ephemeral
    lines = answer.content.splitlines()
    assert [line.split("  ")[0] for line in lines[1:2]] == ["✔ RunTurn"]
    assert [line.strip().split("  ")[0] for line in lines[2:-1]] == [
        "✔ model call to scripted",
        "✔ tool calculate",
        "✔ model call to scripted",
    ]
    assert "tokens: " in lines[2]
    assert '{"expression": "6*7"}' in lines[3]
    assert all(" ms" in line or " s" in line for line in lines[1:-1])


async def test_trace_is_bounded(server: DiscordServer, connect: Connect) -> None:
    calls = [
        ToolCall(
            id=str(number),
            name="calculate",
            arguments='{"expression": "`1`😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀"}',
        )
        for number in range(150)
    ]
    bot = await connect([ChatMessage.assistant(*calls), "Done."])
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    await said(server, "Done.")
    traced = await server.command(server.ada, channel, "trace")
    (answer,) = await server.until(lambda: traced.answers)
    assert answer.content.count("```") == 2
    assert answer.content.endswith("...\n```")
    assert len(answer.content.encode("utf-16-le")) // 2 <= 2000
    conversation = bot.conversation(channel.id)
    assert conversation is not None
    *lines, last = conversation.trace.text().splitlines()
    # A command, 150 tool calls, and two calls to the model.
    assert (len(lines), last) == (100, "and 53 more")


# -- Buttons


async def ask_to_read(
    server: DiscordServer, connect: Connect, *, approval_timeout: float = 600.0
) -> Posted:
    """Let Ada ask for something that needs approval, and return the message that asks her."""
    script = [ChatMessage.assistant("Let me see.", READ), results]
    await connect(script, approval_timeout=approval_timeout)
    await server.say(server.ada, server.general, f"{server.bot.mention} Read it.")
    return await said(server, "may **read\\_file** run?")


async def test_a_call_runs_once_the_asker_approves(server: DiscordServer, connect: Connect) -> None:
    question = await ask_to_read(server, connect)
    assert server.ada.mention in question.content
    assert '"path": "no-such-file.txt"' in question.content
    assert not question.rings
    await server.press(server.ada, question, "Approve")
    answer = await said(server, "can't be read")
    assert question.content.endswith("✅ Approved.")
    assert all(button["disabled"] for button in question.buttons().values())
    first, *_, last = server.said()
    assert first.content == "Let me see."
    assert last is answer
    assert answer.versions[0].startswith("'no-such-file.txt'")
    traced = await server.command(server.ada, question.channel, "trace")
    (trace,) = await server.until(lambda: traced.answers)
    assert [line.split("  ")[-1] for line in trace.content.splitlines() if "approval" in line] == [
        "approved"
    ]


async def test_a_call_that_is_denied_doesn_t_run(server: DiscordServer, connect: Connect) -> None:
    question = await ask_to_read(server, connect)
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")
    assert question.content.endswith("⛔ Denied.")


async def test_nobody_else_decides(server: DiscordServer, connect: Connect) -> None:
    question = await ask_to_read(server, connect)
    pressed = await server.press(server.bob, question, "Approve")
    (refusal,) = await server.until(lambda: pressed.answers)
    assert refusal.ephemeral
    assert refusal.content == f"Only {server.ada.mention} can decide about this."
    assert not any(button["disabled"] for button in question.buttons().values())
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")


async def test_a_second_click_changes_nothing(server: DiscordServer, connect: Connect) -> None:
    question = await ask_to_read(server, connect)
    buttons = question.components
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")
    question.components = buttons  # as somebody sees them who hasn't heard yet
    pressed = await server.press(server.ada, question, "Approve")
    (answer,) = await server.until(lambda: pressed.answers)
    assert answer.content == "This waits no longer."
    assert answer.ephemeral
    assert question.content.endswith("⛔ Denied.")
    assert all(button["disabled"] for button in question.buttons().values())


async def test_a_click_that_discord_takes_no_answer_to_is_seen_all_the_same(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    question = await ask_to_read(server, connect)
    gone: Payload = {"message": "Unknown interaction", "code": 10062}
    server.faults.append(Fault(method="POST", path="/callback$", status=404, body=gone))
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")
    await server.until(lambda: question.content.endswith("⛔ Denied."))
    assert all(button["disabled"] for button in question.buttons().values())
    assert "Unknown interaction" in caplog.text


async def test_a_call_that_nobody_decides_about_expires(
    server: DiscordServer, connect: Connect
) -> None:
    question = await ask_to_read(server, connect, approval_timeout=0.3)
    await said(server, "Nobody approved the call in time")
    await server.until(lambda: "⌛ Not run: nobody answered in time" in question.content)
    assert all(button["disabled"] for button in question.buttons().values())


async def test_the_end_disables_the_buttons(server: DiscordServer, connect: Connect) -> None:
    bot = await connect([ChatMessage.assistant(READ)])
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    question = await said(server, "may **read\\_file** run?")
    await bot.end()
    assert "⌛ Not run: the call was cancelled." in question.content
    assert all(button["disabled"] for button in question.buttons().values())
    assert server.said()[-1].content == "-# Stopped: the bot is going offline."


async def test_several_calls_are_asked_about_and_decided_one_by_one(
    server: DiscordServer, connect: Connect
) -> None:
    other = ToolCall(id="3", name="read_file", arguments='{"path": "```\\n# another.txt"}')
    await connect([ChatMessage.assistant(READ, other), results])
    await server.say(server.ada, server.direct(server.ada), "Read them.")
    questions = await server.until(lambda: server.said() if len(server.said()) == 2 else None)
    assert all(each.content.count("```") == 2 for each in questions)
    for question, label in zip(questions, ("Deny", "Approve"), strict=True):
        await server.press(server.ada, question, label)
    answer = await said(server, "can't be read")
    assert "The user denied the call" in answer.content


@pytest.mark.parametrize("way", ["directly", "in place", "by command"])
async def test_buttons_are_wherever_the_question_was(
    server: DiscordServer, connect: Connect, way: str
) -> None:
    await connect([ChatMessage.assistant(READ), results])
    server.faults.append(Fault.forbidden("POST", "/threads$"))
    if way == "directly":
        await server.say(server.ada, server.direct(server.ada), "Read it.")
    elif way == "in place":
        await server.say(server.ada, server.general, f"{server.bot.mention} Read it.")
    else:
        await server.command(server.ada, server.general, "ask", question="Read it.")
    question = await said(server, "may **read\\_file** run?")
    await server.press(server.ada, question, "Approve")
    answer = await said(server, "can't be read")
    assert answer.channel is question.channel
    assert question.content.endswith("✅ Approved.")


async def test_of_long_arguments_the_beginning_is_shown(
    server: DiscordServer, connect: Connect
) -> None:
    path = "x" * 3000
    call = ToolCall(id="1", name="read_file", arguments=f'{{"path": "{path}"}}')
    await connect([ChatMessage.assistant(call), results])
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    question = await said(server, " characters more\n```")
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")


async def test_of_arguments_nothing_is_unseen(server: DiscordServer, connect: Connect) -> None:
    call = ToolCall(id="1", name="read_file", arguments='{"path": "\u202etxt.a\u200b \\u0000é"}')
    await connect([ChatMessage.assistant(call), results])
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    question = await said(server, "may **read")
    assert '"\\u202etxt.a\\u200b \\u0000é"' in question.content
    await server.press(server.ada, question, "Deny")
    await said(server, "The user denied the call")


async def test_a_call_that_expires_before_it_was_asked_about(
    server: DiscordServer, connect: Connect
) -> None:
    server.faults.append(Fault.rate_limit("POST", "/messages$", 0.6))
    await connect([ChatMessage.assistant(READ), results], approval_timeout=0.2)
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    await said(server, "Nobody approved the call in time")
    question = await said(server, "⌛ Not run: nobody answered in time")
    assert all(button["disabled"] for button in question.buttons().values())


async def test_nobody_is_asked_about_a_call_that_is_over_by_then(
    server: DiscordServer, connect: Connect
) -> None:
    # What the model said before takes longer than the call may wait.
    server.faults.append(Fault.rate_limit("POST", "/messages$", 0.8))
    script = [ChatMessage.assistant("Let me see.", READ), results]
    await connect(script, approval_timeout=0.2)
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    await said(server, "Nobody approved the call in time")
    assert not any(each.buttons() for each in server.said())


async def test_the_question_stands_above_the_answer_though_a_call_came_first(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([ChatMessage.assistant(READ), "Done."])
    await server.command(server.ada, server.general, "ask", question="Read it.")
    question = await said(server, "may **read\\_file** run?")
    await server.press(server.ada, question, "Deny")
    assert (await said(server, "Done.")).content == "> Read it.\nDone."


async def test_buttons_that_can_t_be_disabled_are_a_line(
    server: DiscordServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    # The only edit is that of the buttons: the answer comes in one piece.
    server.faults.append(Fault.forbidden("PATCH", "/messages/"))
    await connect([ChatMessage.assistant(READ), "Done."], approval_timeout=0.1)
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Read it.")
    await said(server, "Done.")
    await server.until(lambda: not any(fault.times for fault in server.faults))
    await server.command(server.ada, channel, "trace")
    await said(server, "RunTurn")
    assert "the buttons of a call can't be disabled: Discord forbids it" in caplog.text


async def test_a_button_of_a_bot_that_has_gone_waits_no_longer(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([])
    buttons = [{"custom_id": "llmgine-approval:0123:yes", "label": "Approve", "disabled": False}]
    row = {"type": 1, "components": [{"type": 2, "style": 3, **buttons[0]}]}
    old = server.post(server.general, server.bot, {"content": "May it run?", "components": [row]})
    pressed = await server.press(server.bob, old, "Approve")
    (answer,) = await server.until(lambda: pressed.answers)
    assert answer.content == "This waits no longer."
    assert old.content == "May it run?"
    assert all(button["disabled"] for button in old.buttons().values())


async def test_a_question_that_can_t_be_asked_is_a_refusal(
    server: DiscordServer, connect: Connect
) -> None:
    await connect([ChatMessage.assistant(READ), results])
    server.faults.append(Fault.forbidden("POST", "/messages$"))
    await server.say(server.ada, server.direct(server.ada), "Read it.")
    await said(server, "nobody could be asked")


# -- Who may


@pytest.mark.parametrize(
    ("given", "ada", "bob"),
    [
        ({}, True, True),
        ({"guilds": ["guild"]}, True, True),
        ({"guilds": ["other"]}, False, False),
        ({"roles": ["role"]}, True, False),
        ({"roles": ["other"]}, False, False),
        ({"users": ["bob"]}, False, True),
        ({"users": ["bob"], "roles": ["role"]}, True, True),
        ({"users": ["bob"], "guilds": ["other"]}, False, False),
    ],
)
async def test_who_may_ask_on_a_server(
    server: DiscordServer, connect: Connect, given: dict[str, list[str]], ada: bool, bob: bool
) -> None:
    await connect([heard] * 2, settings=lists(server, given))
    for person, allowed in ((server.ada, ada), (server.bob, bob)):
        await server.say(person, server.general, f"{server.bot.mention} I am {person.name}")
        asked = await server.command(person, server.general, "trace")
        (answer,) = await server.until(lambda asked=asked: asked.answers)
        assert answer.ephemeral
        assert (answer.content == "You may not use this here.") is not allowed
        if allowed:
            await said(server, f"1: I am {person.name}")
    assert len([each for each in server.said() if not each.ephemeral]) == ada + bob


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, True),
        ({"guilds": ["guild"]}, False),
        ({"roles": ["role"]}, False),
        ({"users": ["ada"], "guilds": ["other"]}, True),
        ({"users": ["bob"]}, False),
    ],
)
async def test_who_may_ask_directly(
    server: DiscordServer, connect: Connect, given: dict[str, list[str]], allowed: bool
) -> None:
    await connect([heard] * 2, settings=lists(server, given))
    channel = server.direct(server.ada)
    await server.say(server.ada, channel, "Hi")
    asked = await server.command(server.ada, channel, "ask", question="Hi")
    if allowed:
        await said(server, "1: Hi")
    else:
        (answer,) = await server.until(lambda: asked.answers)
        assert answer.content == "You may not use this here."
        assert server.said() == [answer]


def lists(server: DiscordServer, given: dict[str, list[str]]) -> DiscordSettings:
    known = {
        "guild": server.guild_id,
        "role": server.role_id,
        "ada": server.ada.id,
        "bob": server.bob.id,
        "other": Person(name="other").id,
    }
    ids = {key: [known[each] for each in names] for key, names in given.items()}
    return DiscordSettings(
        guilds=ids.get("guilds", []), roles=ids.get("roles", []), users=ids.get("users", [])
    )

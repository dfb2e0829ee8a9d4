"""The chat at a terminal: a real pseudo-terminal, typed into and read."""

from __future__ import annotations

import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")

PROMPT = "you>"


class Child(Protocol):
    """What these tests use of `pexpect.spawn`, which comes without types."""

    before: str
    exitstatus: int | None
    delaybeforesend: float | None

    def expect(self, pattern: str, timeout: float = -1) -> int: ...
    def expect_exact(self, text: str, timeout: float = -1) -> int: ...
    def send(self, text: str) -> int: ...
    def sendline(self, text: str) -> int: ...
    def sendcontrol(self, character: str) -> int: ...
    def kill(self, number: int) -> None: ...
    def wait(self) -> int: ...
    def read(self) -> str: ...
    def close(self, *, force: bool) -> None: ...


Terminal: TypeAlias = Callable[..., Child]


@pytest.fixture
def terminal(folder: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """Start the chat in a terminal of its own."""
    spawn: Callable[..., Child] = vars(import_module("pexpect"))["spawn"]
    started: list[Child] = []

    def start(*arguments: str, size: tuple[int, int] = (40, 120), **more: str) -> Child:
        child = spawn(
            sys.executable,
            ["-m", "chat.cli", *arguments],
            cwd=str(folder),
            env={**environment, **more},
            encoding="utf-8",
            dimensions=size,
            timeout=15,
        )
        # These tests type when the prompt stands there, and nothing is echoed too early then.
        child.delaybeforesend = None
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def ended(child: Child) -> int | None:
    child.read()
    child.wait()
    return child.exitstatus


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def test_a_conversation(terminal: Terminal, folder: Path) -> None:
    child = terminal("--provider", "theirs:counting", "--session", "mine")
    child.expect_exact(PROMPT)
    greeting = plain(child.before)
    assert "provider scripted · session mine" in greeting
    assert "/help" in greeting
    assert greeting.index("provider") < greeting.index("SessionStartEvent")
    child.sendline("Hello")
    child.expect_exact("1 messages")
    child.expect_exact(PROMPT)
    after = plain(child.before)
    assert after.index("LLMCallResultEvent") < after.index("CommandResultEvent RunTurn")
    child.sendline("again")
    child.expect_exact("3 messages")
    child.expect_exact(PROMPT)
    child.sendline("/clear")
    child.expect_exact("forgotten")
    child.expect_exact(PROMPT)
    child.sendline("anew")
    child.expect_exact("1 messages")
    child.expect_exact(PROMPT)
    child.sendcontrol("d")
    assert ended(child) == 0
    history = folder / ".llmgine/chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+Hello" in history.read_text()


def test_commands(terminal: Terminal) -> None:
    child = terminal()
    child.expect_exact(PROMPT)
    child.sendline("/help")
    child.expect_exact("earlier messages")
    shown = plain(child.before)
    for word in ("/help", "/tools", "/usage", "/trace", "/events", "/clear", "/exit", "Ctrl-C"):
        assert word in shown
    child.expect_exact(PROMPT)
    child.sendline("/tools")
    child.expect_exact("Read a text file")
    child.expect_exact(PROMPT)
    child.sendline("/trase")
    child.expect_exact("unknown command /trase: did you mean /trace?")
    child.expect_exact(PROMPT)
    child.sendline("/zzz")
    child.expect_exact("/help lists the commands")
    child.expect_exact(PROMPT)
    child.sendline("   ")
    child.expect_exact(PROMPT)
    child.sendline("Hello")
    child.expect_exact("CommandResultEvent RunTurn")
    child.expect_exact(PROMPT)
    child.sendline("/trace")
    child.expect_exact("still open")
    child.expect_exact("model call to scripted")
    child.expect_exact(PROMPT)
    child.sendline("/events")
    child.expect_exact("events are hidden")
    child.expect_exact(PROMPT)
    child.sendline("Hidden")
    child.expect_exact("no model was asked")
    child.expect_exact(PROMPT)
    assert "Event" not in child.before
    child.sendline("/events")
    child.expect_exact("events are shown")
    child.expect_exact(PROMPT)
    child.sendline("/exit")
    assert ended(child) == 0


def test_events_never_tear_an_answer(terminal: Terminal) -> None:
    child = terminal("--provider", "theirs:calling")
    child.expect_exact(PROMPT)
    child.sendline("1 + 2?")
    child.expect_exact("Three.")
    said, _, called = plain(child.before).partition("Let me see.\n")
    assert said
    assert re.fullmatch(r"  → add +\n  ✘ add .*There is no tool 'add'.*\n\n", called)
    child.expect_exact(PROMPT)
    assert child.before.count("LLMCallResultEvent") == 2


def test_ctrl_c_cancels_the_turn_and_the_conversation_goes_on(terminal: Terminal) -> None:
    child = terminal("--provider", "theirs:slow")
    child.expect_exact(PROMPT)
    child.sendline("Count.")
    child.expect_exact("word3")
    child.sendcontrol("c")
    child.expect_exact("(cancelled)")
    child.expect_exact(PROMPT)
    child.send("half a line")
    child.sendcontrol("c")
    child.expect_exact(PROMPT)
    child.sendline("Again.")
    child.expect_exact("word0")
    child.sendcontrol("c")
    child.expect_exact("(cancelled)")
    child.expect_exact(PROMPT)
    child.sendcontrol("d")
    assert ended(child) == 0


QUESTION = "run it? [y/n]"


def asked(child: Child) -> str:
    """Have a file read, and return what is shown before the question."""
    child.expect_exact(PROMPT)
    child.sendline("Read.")
    child.expect_exact(QUESTION)
    return plain(child.before)


def test_the_user_is_asked(terminal: Terminal, folder: Path) -> None:
    (folder / "notes.txt").write_text("the notes")
    child = terminal("--provider", "theirs:reading")
    shown = asked(child)
    assert 'read_file asks for your approval\n      path = "notes.txt"\n' in shown
    child.sendline("sure")
    child.expect_exact(QUESTION)
    child.sendline(" YES")
    child.expect_exact("the notes; 42")
    # What went on meanwhile didn't tear the question.
    assert re.search(r"\n  ✔ calculate .* 42\n", shown + plain(child.before))
    asked(child)
    child.sendline("n")
    child.expect_exact("The user denied the call")
    asked(child)
    child.sendcontrol("d")
    child.expect_exact("The user denied the call")
    asked(child)
    child.sendcontrol("c")
    child.expect_exact("(cancelled)")
    child.expect_exact(PROMPT)
    # What was typed before the question is no answer to it.
    child.send("Read.\ry\ry\ry\r")
    child.expect_exact(QUESTION)
    child.sendline("n")
    child.expect_exact("The user denied the call")
    child.expect_exact(PROMPT)


def test_a_question_that_has_expired_goes_away(terminal: Terminal) -> None:
    child = terminal("--provider", "theirs:reading", LLMGINE_TOOLS__APPROVAL_TIMEOUT="1.5")
    child.expect_exact(PROMPT)
    child.sendline("Read.")
    # Whether the question stands for long enough to be seen is up to the machine.
    child.expect_exact("Nobody approved the call in time")
    child.expect_exact(PROMPT)
    child.sendline("/exit")
    assert ended(child) == 0


@pytest.mark.skipif(
    find_spec("llmgine.context.sqlite") is None, reason="conversations end with the process"
)
def test_a_conversation_that_was_killed_among_its_tools_goes_on(terminal: Terminal) -> None:
    durable = {"LLMGINE_CONTEXT__STORE": "sqlite"}
    child = terminal("--provider", "theirs:reading", "--session", "mine", **durable)
    asked(child)
    child.kill(signal.SIGKILL)
    ended(child)
    child = terminal("--provider", "theirs:counting", "--session", "mine", **durable)
    child.expect_exact("The conversation goes on: 2 messages so far.")
    child.expect_exact(PROMPT)
    child.sendline("Go on.")
    child.expect_exact("4 messages")  # one stands in for the results
    child.expect_exact(PROMPT)
    child.sendcontrol("d")
    child.expect_exact("`chat --session mine` goes on with this conversation.")
    assert ended(child) == 0


@pytest.mark.parametrize("line", [None, "Count."])
def test_sigterm_leaves_in_good_order(terminal: Terminal, folder: Path, line: str | None) -> None:
    child = terminal("--provider", "theirs:slow")
    child.expect_exact(PROMPT)
    if line is not None:
        child.sendline(line)
        child.expect_exact("word3")
    child.kill(signal.SIGTERM)
    assert ended(child) == 128 + signal.SIGTERM
    assert "SessionEndEvent" in (folder / ".llmgine/events.jsonl").read_text().splitlines()[-1]


def test_failures_are_a_line_and_the_conversation_goes_on(terminal: Terminal) -> None:
    child = terminal("--provider", "theirs:buggy")
    for _ in range(2):
        child.expect_exact(PROMPT)
        child.sendline("Hello")
        child.expect_exact("ZeroDivisionError: a bug of the provider")
    child.expect_exact(PROMPT)
    assert "Traceback" not in child.before


def test_a_spent_budget_is_a_line_and_the_conversation_goes_on(terminal: Terminal) -> None:
    child = terminal(
        "--provider",
        "theirs:counting",
        LLMGINE_BUDGET__SESSION_TOKENS="1",
        LLMGINE_BUDGET__PRICES__SCRIPTED__INPUT="1",
        LLMGINE_BUDGET__PRICES__SCRIPTED__OUTPUT="2",
    )
    child.expect_exact(PROMPT)
    child.sendline("Hello")
    child.expect_exact("1 messages")
    child.expect_exact(PROMPT)
    for _ in range(2):
        child.sendline("again")
        child.expect(r"BudgetExceededError: session '\w+' has spent \d+ of 1 ")
        child.expect_exact(PROMPT)
    child.sendline("/usage")
    child.expect(r"model calls: 1; tokens: about \d+ in, 3 out; cost: 0\.\d+")
    child.expect_exact(PROMPT)


def test_a_tiny_terminal(terminal: Terminal) -> None:
    child = terminal("--provider", "theirs:counting", size=(3, 12), TERM="dumb")
    child.expect_exact(PROMPT)
    child.sendline("Hi")
    child.expect_exact("1 messages")
    child.expect_exact("CommandResult")
    child.expect_exact(PROMPT)
    child.sendline("/exit")
    assert ended(child) == 0


def test_no_colour_is_honoured_and_a_history_that_can_t_be_kept_done_without(
    terminal: Terminal, folder: Path
) -> None:
    (folder / ".llmgine").write_text("a file where the folder should be")
    child = terminal("--provider", "theirs:counting", NO_COLOR="1", LLMGINE_FILE__ENABLED="false")
    child.expect_exact(PROMPT)
    child.sendline("Hello")
    child.expect_exact("CommandResultEvent")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", child.before)
    child.expect_exact(PROMPT)
    child.sendcontrol("d")
    assert ended(child) == 0


def test_once_at_a_terminal(terminal: Terminal) -> None:
    child = terminal("--once", "Hello")
    shown = plain(child.read())
    child.wait()
    assert child.exitstatus == 0
    assert shown.index("Hello!") < shown.index("LLMCallResultEvent")

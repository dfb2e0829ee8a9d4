"""The chat without a terminal: `--once`, a pipe, exit statuses, bad input."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import pytest
from chat.cli import main

# Not every project has this store.
needs_sqlite = pytest.mark.skipif(
    find_spec("llmgine.context.sqlite") is None, reason="conversations end with the process"
)
needs_layers = pytest.mark.skipif(
    find_spec("llmgine.providers.fallback") is None, reason="no provider asks over a network"
)
COMMAND = [sys.executable, "-m", "chat.cli"]


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    returncode: int | str | None
    stdout: str
    stderr: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the chat to its end, in this process: a process of its own takes a second to start."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["chat", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            for name, value in more.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                main()
        captured = capsys.readouterr()
        return Done(caught.value.code, captured.out, captured.err)

    yield run
    sys.modules.pop("theirs", None)


def test_one_answer_waits_for_nothing_that_only_a_prompt_needs(
    folder: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, chat.cli; print('prompt_toolkit' in sys.modules)"],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"False"


def test_stdout_carries_the_answer_alone(run: Run) -> None:
    done = run("--once", "one two three", "--session", "mine")
    assert done.returncode == 0
    assert "one two three" in done.stdout
    assert "Event" not in done.stdout
    assert "CommandResultEvent RunTurn" in done.stderr


def test_a_pipe_is_one_message(run: Run) -> None:
    done = run("--provider", "theirs:repeating", stdin=b"first line\nsecond line\r\n")
    assert (done.returncode, done.stdout) == (0, "'first line\\nsecond line'\n")


def test_bytes_that_are_no_utf8_are_marked(run: Run) -> None:
    done = run("--provider", "theirs:repeating", stdin=b"a\xff\xfeb")
    assert (done.returncode, done.stdout) == (0, "'a\ufffd\ufffdb'\n")
    done = run("--provider", "theirs:repeating", "--once", "a\udcffb")
    assert (done.returncode, done.stdout) == (0, "'a\ufffdb'\n")


def test_an_answer_can_t_command_the_terminal(run: Run) -> None:
    done = run("--provider", "theirs:hostile", "--once", "Hi")
    assert done.stdout == "\u241b]0;title\u2407\u241b[31mred\ufffd2J\noverleft\n"


def test_an_answer_goes_on_after_a_tool(run: Run) -> None:
    done = run("--provider", "theirs:calling", "--once", "1 + 2?")
    assert done.stdout == "Let me see.\n\nThree.\n"


def test_a_scripted_answer_comes_from_a_real_tool(run: Run) -> None:
    done = run("--once", "What is 12*34?")
    assert done.returncode == 0
    assert done.stdout.startswith("The tool `calculate` answered: 408\n")
    assert "scripted stand-in" in done.stdout
    started, ended = (line for line in done.stderr.splitlines() if line.startswith("  "))
    assert re.fullmatch(r'  → calculate  +expression="12\*34"', started)
    assert re.fullmatch(r"  ✔ calculate  +[\d.]+ m?s  408", ended)


def test_what_a_turn_costs_is_said(run: Run) -> None:
    done = run("--once", "Hello")
    assert re.search(r"^tokens: about \d+ in, \d+ out$", done.stderr, re.MULTILINE)


def test_nobody_to_ask_is_a_refusal(run: Run, folder: Path) -> None:
    (folder / "notes.txt").write_text("the notes")
    done = run("--provider", "theirs:reading", "--once", "Read.")
    assert done.returncode == 0
    assert "the notes" not in done.stdout + done.stderr
    assert "nobody is there to be asked" in done.stdout
    assert "chat --approve" in done.stderr
    assert "; 42" in done.stdout


def test_the_user_may_approve_beforehand(run: Run, folder: Path) -> None:
    (folder / "notes.txt").write_text("the notes")
    done = run("--provider", "theirs:reading", "--once", "Read.", "--approve")
    assert done.stdout == "Let me see.\n\nthe notes; 42\n"
    done = run("trace", "--last")
    assert re.search(r"✔ tool read_file  .*notes\.txt", done.stdout)
    assert re.search(r"✔ tool calculate  .*6\*7", done.stdout)
    assert "✔ approval" in done.stdout


@needs_sqlite
def test_a_session_goes_on(run: Run) -> None:
    options = ("--provider", "theirs:counting", "--session", "mine")
    durable = {"LLMGINE_CONTEXT__STORE": "sqlite"}
    begun = run(*options, "--once", "Hi", **durable)
    assert begun.stdout == "1 messages\n"
    assert "goes on" not in begun.stderr
    again = run(*options, "--once", "Hi", **durable)
    assert again.stdout == "3 messages\n"
    assert "The conversation goes on: 2 messages so far.\n" in again.stderr
    assert run("--provider", "theirs:counting", "--once", "Hi", **durable).stdout == "1 messages\n"


@needs_sqlite
def test_a_store_that_can_t_be_used_is_said(run: Run, folder: Path) -> None:
    (folder / "no-store").write_text("no database " * 100)
    durable = {"LLMGINE_CONTEXT__STORE": "sqlite", "LLMGINE_CONTEXT__PATH": "no-store"}
    done = run("--once", "Hi", **durable)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no-store: file is not a database" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("provider", "answer", "remark"),
    [
        ("failing", "", "RateLimitError: slow down; trying again may help"),
        ("broken", "one \n", "StreamInterruptedError: the answer broke off"),
        ("buggy", "", "ZeroDivisionError: a bug of the provider"),
    ],
)
def test_a_turn_that_fails_says_why(run: Run, provider: str, answer: str, remark: str) -> None:
    done = run("--provider", f"theirs:{provider}", "--once", "Hi")
    assert done.returncode == 1
    assert done.stdout.split() == answer.split()
    assert remark in done.stderr.splitlines()
    assert "Traceback" not in done.stderr


def test_a_budget_that_is_spent_is_a_line(run: Run) -> None:
    done = run("--once", "Hi", LLMGINE_BUDGET__SESSION_TOKENS="0", LLMGINE_CONSOLE__ENABLED="no")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"BudgetExceededError: session '.*' has spent 0 of 0 \(budget\.session_tokens\); .*", line
    )


@needs_layers
def test_attempts_after_a_tool_leave_no_blank_lines(run: Run) -> None:
    settings = {"LLMGINE_RETRY__ENABLED": "always", "LLMGINE_RETRY__DELAY": "0"}
    done = run("--provider", "theirs:stumbling", "--once", "1 + 2?", **settings)
    assert done.stdout == "Let me see.\n\nThree.\n"


@needs_layers
def test_another_provider_answers_where_one_can_t(run: Run) -> None:
    settings = {
        "LLMGINE_PROVIDER__NAME": "theirs:failing",
        "LLMGINE_PROVIDER__FALLBACK": "theirs:repeating",
        "LLMGINE_RETRY__ENABLED": "always",
        "LLMGINE_RETRY__DELAY": "0",
    }
    done = run("--once", "Hi", **settings)
    assert (done.returncode, done.stdout) == (0, "'Hi'\n")
    assert done.stderr.count("RateLimitError") == 3


def test_a_provider_that_is_chosen_doesn_t_get_another_s_options(run: Run, folder: Path) -> None:
    settings = """
    [provider]
    name = "theirs:failing"
    model = "large"
    options = { tone = "harsh" }
    fallback = ["theirs:told"]

    [provider.fallback_options."theirs:told"]
    model = "small"
    tone = "kind"
    """
    (folder / "settings.toml").write_text(settings)
    done = run("--provider", "theirs:told", "--once", "Hi")
    assert done.stdout == "small {'tone': 'kind'}\n"
    done = run("--provider", "theirs:told", "--model", "tiny", "--once", "Hi")
    assert done.stdout == "tiny {'tone': 'kind'}\n"
    done = run("--provider", "scripted", "--once", "one two three")
    assert "one two three" in done.stdout


@pytest.mark.parametrize(
    ("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
def test_a_missing_key_or_package_is_one_line_and_status_2(
    folder: Path, environment: dict[str, str], provider: str, variable: str
) -> None:
    if find_spec(f"llmgine.providers.{provider}") is None:
        pytest.skip("not part of this project")
    environment = {name: value for name, value in environment.items() if name != variable}

    def line() -> str:
        done = subprocess.run(  # noqa: S603
            [*COMMAND, "--provider", provider, "--once", "Hi"],
            check=False,
            capture_output=True,
            cwd=folder,
            env={**environment, "PYTHONPATH": str(folder), "LLMGINE_CONSOLE__ENABLED": "no"},
            text=True,
            timeout=50,
        )
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        return line

    assert variable in line()
    absent = f"raise ModuleNotFoundError('no module', name={provider!r})"
    (folder / f"{provider}.py").write_text(absent)
    assert f"write llmgine[{provider}] in the root's pyproject.toml" in line()


def test_an_empty_answer_is_said(run: Run) -> None:
    done = run("--provider", "theirs:silent", "--once", "Hi")
    assert (done.returncode, done.stdout) == (0, "")
    assert "(the model gave no answer)" in done.stderr


@pytest.mark.parametrize("arguments", [("--once", ""), ("--once", " \n"), ()])
def test_a_blank_message_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nothing to answer: the message is blank\n"


@pytest.mark.parametrize(
    ("arguments", "more", "line"),
    [
        (("--provider", "nope"), {}, "provider.name: expected "),
        (("--provider", "theirs:nope"), {}, "provider.name: expected a function 'nope' in theirs"),
        (("--session", "a\x1b[2Jb"), {}, "--session: a session id holds "),
        (("--session", ""), {}, "--session: "),
        ((), {"LLMGINE_CONSOLE__ENABLED": "maybe"}, "console.enabled: expected true or false"),
        ((), {"LLMGINE_NOPE": "1"}, "LLMGINE_NOPE: no such setting; there are "),
        (("trace",), {"LLMGINE_NOPE": "1"}, "LLMGINE_NOPE: no such setting; there are "),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    run: Run, arguments: tuple[str, ...], more: dict[str, str], line: str
) -> None:
    once = () if "trace" in arguments else ("--once", "Hi")
    done = run(*arguments, *once, **more)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(line)
    assert last.isprintable()
    assert "Traceback" not in done.stderr


def test_an_unknown_word_is_a_usage_error(run: Run) -> None:
    done = run("hello")
    assert done.returncode == 2
    assert "No such command 'hello'" in done.stderr


def test_help_names_the_options(run: Run) -> None:
    done = run("--help", NO_COLOR="1", TERM="dumb")
    assert done.returncode == 0
    for option in ("--once", "--provider", "--session", "--approve", "trace"):
        assert option in done.stdout


def test_a_reader_who_leaves_is_no_traceback(folder: Path, environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(  # noqa: S603 - our own program
        [*COMMAND, "--once", "Hi"],
        cwd=folder,
        env=environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


@pytest.mark.parametrize(("closed", "status"), [("<&-", 2), (">&-", 1), ("2>&-", 0)])
def test_closed_streams_are_survived(
    folder: Path, environment: dict[str, str], closed: str, status: int
) -> None:
    once = "" if closed == "<&-" else "--once Hi"
    done = subprocess.run(  # noqa: S602 - only a shell closes streams
        f"{sys.executable} -m chat.cli {once} {closed}",
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_ends_the_turn_and_keeps_what_was_said(
    folder: Path, environment: dict[str, str], number: signal.Signals, status: int
) -> None:
    with subprocess.Popen(  # noqa: S603 - our own program
        [*COMMAND, "--provider", "theirs:slow", "--once", "Hi"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        begun = process.stdout.read(5)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert begun == "word0"
    assert rest.endswith("\n")
    assert "Traceback" not in errors
    lines = (folder / ".llmgine/events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["event_type"] for line in lines]
    assert kinds[-1] == "SessionEndEvent"
    assert "ChatHistoryUpdatedEvent" in kinds


def test_nothing_is_written_but_the_run_time_folder(run: Run, folder: Path) -> None:
    before = set(folder.iterdir())
    run("--once", "Hi")
    assert set(folder.iterdir()) - before == {folder / ".llmgine"}


def test_the_last_session_is_a_tree(run: Run) -> None:
    run("--once", "Hi", "--session", "first")
    run("--provider", "theirs:calling", "--once", "Hi", "--session", "second")
    last = run("trace", "--last")
    assert last.returncode == 0
    assert last.stdout.startswith("✔ session second")
    assert last.stdout.count("model call to scripted") == 2
    assert run("trace").stdout == last.stdout
    assert run("trace", "--session", "first").stdout.startswith("✔ session first")


def test_a_trace_of_nothing_says_so(run: Run, folder: Path) -> None:
    done = run("trace")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"no session in {folder}/.llmgine/events.jsonl yet\n"
    done = run("trace", LLMGINE_FILE__ENABLED="false")
    assert done.stderr == "no events are kept: file.enabled is off in the settings\n"
    done = run("trace", "--last", "--session", "x")
    assert done.returncode == 2

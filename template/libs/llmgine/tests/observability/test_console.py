"""The console: one aligned line for every event, harmless to any terminal."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatHistoryUpdatedEvent,
    ChatMessage,
    Command,
    CommandResult,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    EventHandlerFailedEvent,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMRequest,
    LLMResponse,
    LogEvent,
    MetricEvent,
    SessionEndEvent,
    SessionStartEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
    Usage,
)
from llmgine.errors import CallCancelledError
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler
from llmgine.observability.console import ConsoleEventHandler, build
from llmgine.observability.description import duration_text
from llmgine.settings import ConsoleSettings
from llmgine.testing.observability_suite import ObservabilityHandlerSuite, sample_events

SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - planted
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A stream that says it's a terminal."""

    def isatty(self) -> bool:
        return True


class Encoded(io.TextIOWrapper):
    """A stream of some encoding, whose bytes can be had."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)


class TestConsoleEventHandler(ObservabilityHandlerSuite):
    def make_handler(self) -> ObservabilityEventHandler:
        return ConsoleEventHandler(stream=io.StringIO())


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    question: str = "why?"


@dataclass(frozen=True, kw_only=True)
class OrderPlaced(Event):
    number: int = 5


def fail(error: BaseException) -> None:
    raise error


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        fail(error)
    return caught.value


def printed(*events: Event, stream: TextIO | None = None, **settings: object) -> list[str]:
    """Return the lines that a handler prints for events."""
    target = stream or io.StringIO()
    handler = ConsoleEventHandler(ConsoleSettings(**settings), target)  # type: ignore[arg-type]
    handler.start()
    for event in events:
        handler.handle(event)
    handler.stop(1)
    assert isinstance(target, io.StringIO)
    text = target.getvalue()
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def result(command: Command[str], **fields: object) -> CommandResultEvent:
    return CommandResultEvent(
        command=command,
        session_id=command.session_id,
        result=CommandResult(**fields),  # type: ignore[arg-type]
    )


def test_a_line_for_every_event_of_every_kind() -> None:
    events = [*sample_events("session-abcd"), OrderPlaced()]
    lines = printed(*events, fold=False)
    assert len(lines) == len(events)
    for event, line in zip(events, lines, strict=True):
        assert type(event).__name__ in line
        assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d  (abcd|-   )  ", line)


def test_the_parts_of_a_line() -> None:
    moment = time.mktime((2026, 1, 2, 3, 4, 5, 0, 0, -1)) + 0.25
    command = Ask(session_id="session-abcd")
    event = CommandResultEvent(
        command=command,
        result=CommandResult(status="ok", duration=1.84),
        session_id="session-abcd",
        timestamp=moment,
    )
    label = "✔ CommandResultEvent Ask"
    assert printed(event) == [f"03:04:05.250  abcd  {label:46}{'1.84s':>8}"]


def test_durations_and_facts_stand_under_each_other() -> None:
    command = Ask()
    call = ToolCall(id="1", name="get_weather")
    lines = printed(
        CommandStartedEvent(command=command),
        ToolExecuteResultEvent(
            call=call,
            result=ToolResult(tool_call_id="1", name="get_weather", error_code="timeout"),
            duration=0.038,
            parent_id=command.id,
        ),
        result(command, duration=12.0),
        ChatHistoryUpdatedEvent(length=3),
    )
    assert lines[0].index("38ms") + 4 == lines[1].index("12.00s") + 6
    assert lines[0].index("timeout") == lines[2].index("3 messages")


def test_a_model_call_tells_tokens_and_first_chunk() -> None:
    response = LLMResponse(
        message=ChatMessage.assistant("hello"),
        model="gpt-x",
        usage=Usage(input_tokens=812, output_tokens=164),
    )
    (line,) = printed(
        LLMCallResultEvent(
            call_id="c", provider="p", response=response, duration=1.21, time_to_first_chunk=0.31
        )
    )
    assert "✔ LLMCallResultEvent gpt-x" in line
    assert line.endswith("1.21s  in 812 out 164  first 310ms  stop")


def test_an_error_tells_where_it_happened() -> None:
    (line,) = printed(result(Ask(), status="error", error=raised(ValueError("city is empty"))))
    assert "✘" in line
    assert re.search(r"ValueError: city is empty  \S*test_console\.py:\d+$", line)


def test_a_cancelled_call_is_no_failure() -> None:
    call = LLMCallResultEvent(
        call_id="c", provider="p", error=CallCancelledError("cut"), duration=1.0
    )
    command = result(Ask(), status="cancelled", error=asyncio.CancelledError())
    for line in printed(call, command):
        assert "⊘" in line
        assert "CancelledError" not in line


@pytest.mark.parametrize(("columns", "longest"), [("80", 80), ("200", 90)])
def test_a_narrow_terminal_has_narrow_columns(
    monkeypatch: pytest.MonkeyPatch, columns: str, longest: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal = Terminal()
    handler = ConsoleEventHandler(ConsoleSettings(), terminal)
    handler.handle(ChatHistoryUpdatedEvent(length=1234, session_id="s"))
    (line,) = ANSI.sub("", terminal.getvalue()).splitlines()
    assert longest - 15 < len(line) <= longest


def test_a_long_error_still_tells_where_it_happened() -> None:
    (line,) = printed(SessionEndEvent(error=raised(ValueError("x" * 5000))))
    assert re.search(r"ValueError: x+\.\.\.  \S*test_console\.py:\d+$", line)


def test_an_error_in_a_library_points_to_the_code_that_called_it() -> None:
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads("nowhere")
    (line,) = printed(SessionEndEvent(error=caught.value))
    assert "test_console.py:" in line


def test_errors_without_text_or_with_a_broken_one() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise SystemExit

    lines = printed(*[SessionEndEvent(error=error) for error in (Mute(), KeyError(), Mute("x"))])
    assert [line.split()[-1] for line in lines] == ["Mute", "KeyError", "Mute"]


def test_depth_follows_what_was_made_while_handling_what() -> None:
    outer = Ask()
    inner = Ask(parent_id=outer.id)
    lines = printed(
        CommandStartedEvent(command=outer, parent_id=None),
        CommandStartedEvent(command=inner, parent_id=outer.id),
        LogEvent(text="x", parent_id=inner.id),
        result(inner),
        result(outer),
        fold=False,
    )
    assert [line[20:].count("│") for line in lines] == [0, 1, 2, 1, 0]


def test_folding_joins_a_start_and_its_result() -> None:
    command = Ask()
    call = ToolCall(id="1", name="t")
    tool_result = ToolResult(tool_call_id="1", name="t")
    events = [
        CommandStartedEvent(command=command),
        LLMCallStartedEvent(call_id="c", provider="p", request=LLMRequest(messages=())),
        LLMCallResultEvent(call_id="c", provider="p"),
        ToolExecuteStartedEvent(call=call),
        ToolExecuteResultEvent(call=call, result=tool_result),
        result(command),
    ]
    folded = [line.split()[3] for line in printed(*events)]
    assert folded == ["LLMCallResultEvent", "ToolExecuteResultEvent", "CommandResultEvent"]
    assert len(printed(*events, fold=False)) == 6


def test_what_still_runs_is_shown_after_a_while_and_at_the_end() -> None:
    long_ago = CommandStartedEvent(command=Ask(), timestamp=time.time() - 3)
    lines = printed(long_ago, LogEvent(text="x"), CommandStartedEvent(command=Ask()))
    assert [line.split()[2:4] for line in lines] == [
        ["…", "CommandStartedEvent"],
        ["•", "LogEvent"],
        ["…", "CommandStartedEvent"],
    ]


def test_memory_of_what_never_ends_is_bounded() -> None:
    stream = io.StringIO()
    handler = ConsoleEventHandler(ConsoleSettings(), stream)
    for _ in range(10_000):
        handler.handle(CommandStartedEvent(command=Ask()))
    assert len(stream.getvalue().splitlines()) >= 10_000 - 4096


@pytest.mark.parametrize(
    ("event", "mark"),
    [
        (SessionStartEvent(), "•"),
        (result(Ask(), status="cancelled"), "⊘"),
        (LogEvent(text="x", level="error"), "✘"),
        (ToolApprovalResolvedEvent(call=ToolCall(id="1", name="t"), approved=True), "✔"),
        (EventHandlerFailedEvent(event=SessionStartEvent(), handler="h", error=OSError()), "✘"),
    ],
)
def test_marks(event: Event, mark: str) -> None:
    (line,) = printed(event)
    assert line.split()[2] == mark


def test_numbers_and_attributes() -> None:
    metric, log = printed(
        MetricEvent(name="queue", value=3, unit="{event}", attributes={"of": "orders"}),
        LogEvent(text="ready", level="warning", attributes={"port": 8080}),
    )
    assert metric.endswith("3 {event}  of=orders")
    assert "LogEvent warning" in log
    assert log.endswith("ready  port=8080")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0ms"), (0.0004, "0.4ms"), (0.038, "38ms"), (1.84, "1.84s"), (185.0, "3m05s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_content_is_shown_only_where_it_is_asked_for() -> None:
    call = ToolCall(id="1", name="t", arguments="MARKER")
    message = ChatMessage.user("MARKER")
    events: list[Event] = [
        LLMCallStartedEvent(call_id="c", provider="p", request=LLMRequest(messages=(message,))),
        LLMCallResultEvent(call_id="d", provider="p", response=LLMResponse(message=message)),
        ToolExecuteStartedEvent(call=call),
        ToolExecuteResultEvent(
            call=call, result=ToolResult(tool_call_id="1", name="t", content="MARKER")
        ),
        result(Ask(question="MARKER"), value="MARKER"),
    ]
    assert "MARKER" not in "".join(printed(*events, fold=False))
    assert all("MARKER" in line for line in printed(*events, fold=False, content=True))


def test_secrets_are_not_shown() -> None:
    events = [
        LogEvent(text="password=hunter2", attributes={"api_key": "hunter2"}),
        SessionEndEvent(error=raised(OSError("refused: Bearer hunter2hunter2"))),
        result(Ask(), value="token: hunter2"),
        LogEvent(text="x" * 150 + " password=hunter2"),
        LogEvent(text="x", attributes={"auth": "hunter2", "pass": "hunter2"}),
        SessionEndEvent(error=raised(OSError("x" * 130 + " db://user:hunter2hunter2@host"))),
    ]
    assert "hunter2" not in "".join(printed(*events, content=True))


@pytest.mark.parametrize("fold", [True, False])
@given(st.text(), st.text(), st.text())
def test_no_control_character_gets_through(fold: bool, one: str, two: str, three: str) -> None:
    events = [
        LogEvent(text=one, session_id=two, attributes={two: three}),
        MetricEvent(name=one, value=1, unit=three, session_id=three),
        SessionEndEvent(error=ValueError(one), session_id=one),
        ToolExecuteStartedEvent(call=ToolCall(id=one, name=two, arguments=three)),
    ]
    stream = Terminal()
    lines = printed(*events, stream=stream, content=True, fold=fold, colour="always")
    assert len(lines) == len(events)
    assert len(stream.getvalue().split("\n")) == len(events) + 1
    assert all(ANSI.sub("", line).isprintable() for line in lines)


def test_hostile_session_ids_stay_in_their_column() -> None:
    hostile = ["\x1b]0;evil\x07", "a\nb", "\u202e\u202e", "", "x"]
    lines = printed(*[SessionStartEvent(session_id=each) for each in hostile])
    assert {line.index("•") for line in lines} == {20}


def test_wide_characters_keep_the_columns() -> None:
    class Wide(Command[str]):
        pass

    Wide.__name__ = "注文"
    (line,) = printed(result(Wide(), duration=1.0))
    assert line.index("1.00s") == 20 + 46 + 8 - 5 - 2


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    event = result(Ask(session_id="s"), status="error", error=OSError("x"), duration=2.0)
    assert "\x1b[" in printed(event, stream=Terminal())[0]
    assert "\x1b[" not in printed(event)[0]
    assert "\x1b[" in printed(event, colour="always")[0]
    assert "\x1b[" not in printed(event, stream=Terminal(), colour="never")[0]
    plain = ANSI.sub("", printed(event, stream=Terminal())[0])
    assert plain == printed(event)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in printed(event, stream=Terminal())[0]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in printed(event, stream=Terminal())[0]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_ascii_marks_where_the_stream_is_not_utf_8(encoding: str) -> None:
    stream = Encoded(encoding)
    handler = ConsoleEventHandler(ConsoleSettings(fold=False), stream)
    command = Ask()
    handler.handle(CommandStartedEvent(command=command))
    handler.handle(LogEvent(text="日本", parent_id=command.id))
    text = stream.bytes.getvalue().decode("ascii")
    assert "> CommandStartedEvent" in text
    assert "| . LogEvent" in text
    assert "\\u65e5\\u672c" in text


def test_build_takes_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    handler = build(ConsoleSettings(fold=False))
    handler.handle(CommandStartedEvent(command=Ask()))
    assert "CommandStartedEvent Ask" in capsys.readouterr().err


def test_the_default_stream_is_standard_error_as_it_is_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ConsoleEventHandler()
    handler.handle(LogEvent(text="one"))
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stderr", replaced)
    handler.handle(LogEvent(text="two"))
    out, err = capsys.readouterr()
    assert (out, "one" in err, "two" in replaced.getvalue()) == ("", True, True)


def test_the_stream_may_be_a_function() -> None:
    streams = [io.StringIO(), io.StringIO()]
    order = iter(streams)
    handler = ConsoleEventHandler(stream=lambda: next(order))
    handler.handle(LogEvent(text="one"))
    handler.handle(LogEvent(text="two"))
    assert ["one" in streams[0].getvalue(), "two" in streams[1].getvalue()] == [True, True]


def test_each_line_is_written_in_one_piece() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str, /) -> int:
            self.writes += 1
            return super().write(text)

    stream = Counting()
    printed(*[LogEvent(text=str(number)) for number in range(10)], stream=stream)
    assert stream.writes == 10


@pytest.fixture
def broken_pipe() -> Iterator[TextIO]:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    yield stream
    with pytest.raises(BrokenPipeError):
        stream.close()


async def test_a_broken_pipe_is_survived_and_counted(
    broken_pipe: TextIO, caplog: pytest.LogCaptureFixture
) -> None:
    client = ObservabilityClient([ConsoleEventHandler(stream=broken_pipe)])
    for _ in range(10):
        client.log("info", "x")
    report = await client.stop()
    assert report.handlers[0].failed == 10
    assert sum("ConsoleEventHandler failed" in each for each in caplog.messages) == 1


@pytest.mark.parametrize("kind", ["closed", "none", "full"])
async def test_a_stream_that_takes_nothing_is_survived_and_counted(kind: str) -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(errno.ENOSPC, "full")

    closed = io.StringIO()
    closed.close()
    streams = {"closed": closed, "none": None, "full": Full()}
    client = ObservabilityClient([ConsoleEventHandler(stream=lambda: streams[kind])])
    client.log("info", "x")
    client.metric("m", 1)
    report = await client.stop()
    assert report.handlers[0].failed == 2


def test_an_event_that_cannot_be_described_still_has_its_line() -> None:
    broken = CommandResultEvent(command=Ask(), result=None)  # type: ignore[arg-type]
    odd = SessionStartEvent(timestamp=float("nan"))
    lines = printed(broken, odd)
    assert "CommandResultEvent" in lines[0]
    assert "AttributeError" in lines[0]
    assert lines[1].startswith("--:--:--.---  -     • SessionStartEvent")


PROGRAM = f"""
import asyncio, logging
from llmgine.bootstrap import ApplicationBootstrap, ApplicationConfig


async def main():
    config = ApplicationConfig(settings_file=None, observability={{"logging": "info"}},
                               file={{"enabled": False}})
    async with ApplicationBootstrap(config) as app, app.bus.session("s-1"):
        try:
            raise ValueError("wrong key {SECRET}")
        except ValueError:
            logging.getLogger("shop").exception("using %s", "{SECRET}", extra={{"api_key": "k-1"}})


logging.basicConfig()
asyncio.run(main())
"""


def test_standard_logging_stands_on_the_console_once(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "using" in line)
    assert "LogEvent error" in line
    assert "logger=shop" in line
    assert "exception.type=ValueError" in line
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert "k-1" not in done.stderr

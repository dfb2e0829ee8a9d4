from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from chat.trace import TraceError, session_tree
from llmgine.bootstrap import ApplicationConfig
from rich.console import Console

ERROR = {"type": "builtins.ValueError", "message": "no \x1b[31mcity", "traceback": ""}
START = {"event_type": "SessionStartEvent", "timestamp": "2026-01-01T00:00:00Z", "id": "0"}
COMMAND = {"id": "c", "$type": "RunTurn"}
TOOL = {"parent_id": "c", "call": {"id": "1", "name": "weather", "arguments": '{"city": "Ulm"}'}}
OTHER = {"parent_id": "c", "call": {"id": "2", "name": "rain", "arguments": "{}"}}


def shown(folder: Path, *events: Mapping[str, object], session_id: str | None = None) -> list[str]:
    path = folder / "events.jsonl"
    stamp = {"timestamp": "2026-01-01T00:00:00Z", "session_id": "s"}
    records = [{"event_type": event["event_type"], **stamp, **event} for event in events]
    lines = [json.dumps(record, separators=(",", ":")) for record in records]
    path.write_text("\n".join([*lines, "torn {"]))
    config = ApplicationConfig(settings_file=None, file={"path": path})
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(session_tree(config, session_id))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_every_kind_of_event_has_its_line(tmp_path: Path) -> None:
    lines = shown(
        tmp_path,
        START,
        {"event_type": "CommandStartedEvent", "command": COMMAND},
        {"event_type": "ToolExecuteStartedEvent", **TOOL},
        {
            "event_type": "ToolExecuteResultEvent",
            **TOOL,
            "result": {"is_error": True},
            "duration": 0.25,
        },
        {"event_type": "ToolExecuteStartedEvent", **OTHER},
        {"event_type": "ToolApprovalRequestedEvent", **OTHER},
        {
            "event_type": "ToolApprovalResolvedEvent",
            **OTHER,
            "timestamp": "2026-01-01T00:00:03Z",
            "approved": False,
            "reason": "no, thanks",
        },
        {
            "event_type": "ToolExecuteResultEvent",
            **OTHER,
            "result": {"is_error": True, "error_code": "denied"},
            "duration": 3.5,
        },
        {"event_type": "ToolExecuteStartedEvent", **TOOL, "parent_id": "d"},
        {"event_type": "ToolApprovalRequestedEvent", **TOOL, "parent_id": "d"},
        {"event_type": "ToolApprovalResolvedEvent", **TOOL, "parent_id": "d", "approved": True},
        {"event_type": "ToolExecuteResultEvent", **TOOL, "parent_id": "d", "duration": 1.0},
        {"event_type": "SpanStartedEvent", "id": "p", "parent_id": "c", "name": "warm-up"},
        {"event_type": "SpanEndedEvent", "span_id": "p", "duration": 2.5},
        {"event_type": "LogEvent", "id": "l", "parent_id": "p", "text": "ready"},
        {"event_type": "EventHandlerFailedEvent", "id": "f", "parent_id": "c", "error": ERROR},
        {"event_type": "LLMCallStartedEvent", "call_id": "m", "parent_id": "gone", "provider": "x"},
        {
            "event_type": "CommandResultEvent",
            "command": COMMAND,
            "result": {"status": "cancelled", "error": ERROR, "duration": 3.0},
        },
        {"event_type": "CommandResultEvent", "command": {"id": "never started"}, "result": {}},
        {"event_type": "SessionEndEvent", "timestamp": "2026-01-01T00:00:04Z"},
    )
    assert lines[0].startswith("✔ session s")
    assert lines[0].endswith("4.00 s")
    assert lines[1:] == [
        "├── ⊘ RunTurn  3.00 s  builtins.ValueError: no ␛[31mcity",
        "│   ├── ✘ tool weather  250 ms  failed",
        "│   ├── ✘ tool rain  3.50 s  denied",
        "│   │   └── ✘ approval  3.00 s  denied: no, thanks",
        "│   ├── ✔ warm-up  2.50 s",
        "│   │   └── • Log  text ready",
        "│   └── ✘ EventHandlerFailed  builtins.ValueError: no ␛[31mcity",
        '├── ✔ tool weather  1.00 s  {"city": "Ulm"}',
        "│   └── ✔ approval  0 ms",
        "└── … model call to x",
    ]


def test_a_knot_of_parents_is_no_trouble(tmp_path: Path) -> None:
    lines = shown(
        tmp_path,
        START,
        {"event_type": "LogEvent", "id": "a", "parent_id": "b", "text": 3},
        {"event_type": "LogEvent", "id": "b", "parent_id": "a"},
        {"event_type": "Odd", "id": None, "timestamp": "yesterday"},
    )
    assert lines[1:] == ["├── • Log  text 3", "│   └── • Log", "└── • Odd"]


def test_the_last_session_is_the_last_to_begin(tmp_path: Path) -> None:
    first, second = ({**START, "session_id": name} for name in ("first", "second"))
    log = {"event_type": "LogEvent", "id": "x"}
    lines = shown(tmp_path, first, second, {**log, "session_id": "first"})
    assert [line.partition("  ")[0] for line in lines] == ["… session second"]
    lines = shown(tmp_path, first, second, {**log, "session_id": "first"}, session_id="first")
    assert [line.partition("  ")[0] for line in lines] == ["… session first", "└── • Log"]


def test_a_file_that_can_t_be_read_is_said(tmp_path: Path) -> None:
    config = ApplicationConfig(settings_file=None, file={"path": tmp_path})
    with pytest.raises(TraceError, match="can't be read"):
        session_tree(config)


def test_without_the_handler_the_command_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llmgine.observability.jsonl", None)
    config = ApplicationConfig(settings_file=None)
    with pytest.raises(TraceError, match=r"`python tools/spine update .*--data handlers\+=file`"):
        session_tree(config)

"""The benchmarks run, count what arrives, and fill their places in the README."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import Subject, Tally, put_between, take_turns, undelivered
from extensions.questionnaire import ROOT

PEERS = ["mediatorx", "blinker", "autogen-core", "bubus"]


def quick_run(name: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """What a quick run prints, and its figures."""
    file = folder / "figures.json"
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text("utf-8"))


def test_a_quick_run_has_every_row_and_every_delivery(tmp_path: Path) -> None:
    printed, report = quick_run("bus", tmp_path)
    assert [row["key"] for row in report["rows"]] == [
        "execute",
        "observed",
        "queued",
        "in_flight",
        "publish_1",
        "publish_10",
        "session",
        "growth",
        "event_memory",
        "session_memory",
        "handlers",
    ]
    for row in report["rows"]:
        assert row["title"] in printed
        assert row["figures"]["llmgine"] >= 0
        assert row["verdict"] in {"stretch", "yes", "missed", "-"}
        assert list(row["figures"]) == ["llmgine", "no bus", *PEERS]
    assert report["deliveries"] > 1000
    assert report["wrong_deliveries"] == []
    assert list(report["peers"]) == PEERS
    missing = [name for name, version in report["peers"].items() if version is None]
    for name in missing:
        assert re.search(rf"^Not installed, .*{name}", printed, re.MULTILINE)


def test_a_quick_run_of_the_context_store_finds_every_conversation(tmp_path: Path) -> None:
    printed, report = quick_run("context", tmp_path)
    assert [row["key"] for row in report["rows"]] == ["many", "unheard", "one", "wait", "window"]
    for row in report["rows"]:
        assert row["title"] in printed
        assert row["figures"]["FULL"] >= 0
        assert row["figures"]["NORMAL"] >= 0
    assert report["wrong"] == []


def test_a_quick_run_of_the_tools_finds_every_answer(tmp_path: Path) -> None:
    printed, report = quick_run("tools", tmp_path)
    rows = {row["key"]: row for row in report["rows"]}
    calls = ["async", "async_told", "sync", "sync_clock"]
    assert list(rows) == [*calls, "schema", "definitions", "written"]
    assert all(row["title"] in printed for row in report["rows"])
    # What is counted in a library that isn't there has no figure.
    assert rows["sync"]["figures"]["bare"] == 1
    assert rows["sync"]["figures"]["llmgine"] > 0
    assert rows["definitions"]["figures"]["llmgine"] > 0
    assert report["wrong"] == []


def test_a_quick_run_of_what_writes_down_finds_every_span_and_line(tmp_path: Path) -> None:
    printed, report = quick_run("observability", tmp_path)
    rows = {row["key"]: row for row in report["rows"]}
    assert list(rows) == ["nobody", "command", "metrics", "all", "file", "console", "stuck"]
    assert all(row["title"] in printed for row in report["rows"])
    assert all(row["figures"]["llmgine"] >= 0 for row in report["rows"])
    assert rows["command"]["figures"]["bare span"] == 1
    assert rows["file"]["figures"]["logging"] > 0
    assert re.search(r"^Stuck: the median of 4 pairs", printed, re.MULTILINE)
    assert report["wrong"] == []


@pytest.mark.timeout(240)  # three servers start meanwhile
def test_a_quick_run_of_the_api_finds_every_answer(tmp_path: Path) -> None:
    printed, report = quick_run("api", tmp_path)
    rows = {row["key"]: row for row in report["rows"]}
    assert list(rows) == ["streamed", "plain", "beside", "streamed_ms", "plain_ms"]
    assert all(row["title"] in printed for row in report["rows"])
    assert rows["streamed"]["figures"]["bare FastAPI"] == 1
    assert rows["streamed"]["figures"]["llmgine"] > 0
    assert report["wrong"] == []


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_quick_run_of_the_first_minutes_ends_with_an_answer(tmp_path: Path) -> None:
    printed, report = quick_run("start", tmp_path)
    rows = {row["key"]: row for row in report["rows"]}
    assert list(rows) == ["copy", "answer", "import", "status"]
    assert all(row["title"] in printed for row in report["rows"])
    assert all(rows[key]["figures"]["llmgine"] > 0 for key in ("answer", "import", "status"))
    assert re.search(r"^Median of 1 rounds; \d+ files; copying them took", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("start", 4),
        ("bus", 11),
        ("tools", 7),
        ("context", 5),
        ("observability", 7),
        ("api", 5),
    ],
)
def test_the_readme_shows_the_rows_that_are_measured(name: str, rows: int) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    mark = f"benchmarks:{name}"
    shown = re.search(rf"<!-- {mark} -->(.*)<!-- /{mark} -->", readme, re.DOTALL)
    assert shown is not None
    script = (ROOT / f"benchmarks/{name}.py").read_text("utf-8")
    titles = re.findall(r'Row\(\s*"\w+",\s*f?"([^"]+)"', script)
    assert len(titles) == rows
    for title in titles:
        pattern = re.sub(r"\\\{.+?\\\}", r"[\\d,]+", re.escape(title))
        assert re.search(rf"^\| {pattern} \|", shown[1], re.MULTILINE), title


@pytest.mark.parametrize(("heard", "lines"), [(2, 0), (1, 1)])
async def test_a_delivery_that_is_missing_or_doubled_is_told(heard: int, lines: int) -> None:
    tally = Tally()

    async def run(operations: int) -> None:
        for number in range(operations * 2):
            await tally.hear(number)

    subject = Subject("row", "name", 5, run, lambda: tally.count, each=heard)
    await take_turns([subject], 3)
    assert subject.done == 15
    assert subject.best > 0
    assert len(undelivered([subject])) == lines


def test_a_table_replaces_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- x -->\nold\n<!-- /x -->\nbelow\n", "utf-8")
    put_between(page, "x", "new")
    assert page.read_text("utf-8") == "above\n<!-- x -->\nnew\n<!-- /x -->\nbelow\n"
    with pytest.raises(ValueError, match=r"page\.md has no place for y"):
        put_between(page, "y", "new")

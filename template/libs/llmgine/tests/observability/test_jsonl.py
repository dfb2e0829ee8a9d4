"""The event file: whole lines, whatever happens to disk and processes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from llmgine.contracts import Event, LogEvent
from llmgine.observability import ObservabilityClient, ObservabilityEventHandler, jsonl
from llmgine.observability.jsonl import FileEventHandler, build, read_events
from llmgine.observability.logs import bridged_logging
from llmgine.settings import FileSettings, ObservabilitySettings
from llmgine.testing.observability_suite import ObservabilityHandlerSuite, sample_events

SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - planted
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX's files and signals")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "events.jsonl"


class TestFileEventHandler(ObservabilityHandlerSuite):
    path: Path

    @pytest.fixture(autouse=True)
    def _folder(self, path: Path) -> None:
        self.path = path

    def make_handler(self) -> ObservabilityEventHandler:
        return FileEventHandler(FileSettings(path=self.path))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def contents(path: Path) -> bytes:
    return path.read_bytes()


def texts(path: Path) -> list[object]:
    return [record["text"] for record in read_events(path)]


def write(path: Path, *events: Event, **settings: object) -> None:
    handler = build(FileSettings(path=path, **settings))  # type: ignore[arg-type]
    handler.start()
    for event in events:
        handler.handle(event)
    handler.stop(1)


async def test_one_line_an_event_with_all_of_its_data(path: Path) -> None:
    client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
    events = sample_events("s")
    for event in events:
        client.observe(event)
    report = await client.stop()
    assert report.handlers[0].delivered == len(events)
    records = [json.loads(line) for line in lines(path)]
    assert [each["event_type"] for each in records] == [type(each).__name__ for each in events]
    assert [each["id"] for each in records] == [event.id for event in events]
    assert {each["session_id"] for each in records} == {"s"}
    assert all(each["timestamp"].endswith("Z") for each in records)
    started = records[1]["command"]
    assert started["text"] == "two teas"
    assert started["price"] == "3.20"
    assert records[2]["request"]["messages"][0]["parts"][0]["text"] == "hi"


def test_content_can_be_left_out(path: Path) -> None:
    write(path, *sample_events(), content=False)
    assert b"two teas" not in path.read_bytes()
    assert b"Oslo" not in path.read_bytes()
    assert b"weather" in path.read_bytes()


def test_secrets_are_left_out(path: Path) -> None:
    write(path, LogEvent(text="password=hunter2", attributes={"api_key": "hunter2"}))
    assert b"hunter2" not in path.read_bytes()


def test_without_orjson_the_lines_say_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [LogEvent(text="ünï\u2028 \ud800"), *sample_events()]
    write(path, *events)
    with_orjson = list(read_events(path))
    path.unlink()
    monkeypatch.setitem(sys.modules, "orjson", None)
    write(path, *events)
    assert list(read_events(path)) == with_orjson


@posix
def test_only_the_owner_can_read(path: Path) -> None:
    before = os.umask(0)
    try:
        write(path, LogEvent(text="x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_written_before_the_handler_starts(path: Path) -> None:
    handler = FileEventHandler(FileSettings(path=path))
    assert handler.path == path
    assert not path.parent.exists()


def test_an_earlier_file_is_continued(path: Path) -> None:
    write(path, LogEvent(text="one"))
    write(path, LogEvent(text="two"))
    assert texts(path) == ["one", "two"]


@pytest.mark.parametrize("tail", [b'{"event_type":"Half","te', b"\xff", b'{"event_type":'])
def test_a_torn_tail_ends_before_the_next_record(path: Path, tail: bytes) -> None:
    write(path, LogEvent(text="one"))
    with path.open("ab") as file:
        file.write(tail)
    write(path, LogEvent(text="two"), LogEvent(text="three"))
    assert lines(path)[1] == tail
    assert texts(path) == ["one", "two", "three"]


def test_the_reader_finds_a_record_behind_half_a_line(path: Path) -> None:
    write(path, LogEvent(text="one", attributes={"a": 1}))
    line = path.read_bytes()
    nested = b'{"event_type":"Any","v":{"event_type":"inner"},"text":"two"}\n'
    path.write_bytes(line[:50] + line + b"\n\nnot json\n[]\n" + b"{" * 100_000 + b"\n" + nested)
    assert texts(path) == ["one", "two"]


def test_the_reader_picks_a_session(path: Path) -> None:
    ids = ["a", "ü\u2028", 'quote"', "nul\0", None]
    write(path, *[LogEvent(text=repr(each), session_id=each) for each in ids])
    for each in ids[:-1]:
        assert [record["text"] for record in read_events(path, each)] == [repr(each)]
    assert len(list(read_events(path))) == len(ids)


def test_reading_what_is_not_there(path: Path) -> None:
    assert list(read_events(path)) == []


def test_rotation_keeps_the_newest(path: Path) -> None:
    events = [LogEvent(text=f"{number:03}") for number in range(100)]
    write(path, *events, max_bytes=2000, backups=3)
    files = sorted(each.name for each in path.parent.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2", "events.jsonl.3"]
    assert all(each.stat().st_size <= 2000 for each in path.parent.iterdir())
    found = texts(path)
    assert found == [f"{number:03}" for number in range(100 - len(found), 100)]
    assert len(found) > 20


def test_rotation_without_backups_begins_anew(path: Path) -> None:
    write(path, *[LogEvent(text=str(number)) for number in range(50)], max_bytes=1000, backups=0)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert texts(path)[-1] == "49"


def test_no_rotation_without_a_limit(path: Path) -> None:
    write(path, *[LogEvent(text=str(number)) for number in range(50)], max_bytes=0)
    assert len(texts(path)) == 50


def test_a_line_longer_than_a_file_is_written_all_the_same(path: Path) -> None:
    write(path, LogEvent(text="a" * 500), LogEvent(text="b" * 500), max_bytes=100, backups=5)
    assert texts(path) == ["a" * 500, "b" * 500]


def test_the_reader_bridges_a_gap_in_the_numbers(path: Path) -> None:
    write(path, *[LogEvent(text=f"{n:02}") for n in range(20)], max_bytes=1000, backups=9)
    whole = texts(path)
    path.with_name(f"{path.name}.1").rename(path.with_name(f"{path.name}.99"))
    assert 0 < len(texts(path)) < len(whole)
    path.rename(path.with_name("moved"))
    assert len(texts(path)) < len(whole)


@posix
def test_a_file_that_is_moved_away_is_replaced_soon(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = FileEventHandler(FileSettings(path=path))
    handler.start()
    handler.handle(LogEvent(text="one"))
    path.rename(path.with_name("moved"))
    handler.handle(LogEvent(text="two"))
    later = time.monotonic() + 0.1
    monkeypatch.setattr(jsonl, "monotonic", lambda: later)
    handler.handle(LogEvent(text="three"))
    handler.stop(1)
    assert texts(path.with_name("moved")) == ["one", "two"]
    assert texts(path) == ["three"]


@posix
def test_rotation_that_is_refused_costs_no_event(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(Path, "replace", refuse)
    write(path, *[LogEvent(text=str(number)) for number in range(50)], max_bytes=1000)
    assert len(texts(path)) == 50
    assert sum("can't be rotated" in each for each in caplog.messages) == 1


@posix
async def test_a_path_that_cannot_be_opened_is_reported_sparsely(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    path = blocked / "events.jsonl"
    client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
    for _ in range(100):
        client.log("info", "x")
    report = await client.stop()
    assert report.handlers[0].failed == 100
    assert sum("FileEventHandler failed" in each for each in caplog.messages) == 1


@posix
def test_what_is_no_file_is_written_to_and_never_rotated(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    handler = FileEventHandler(FileSettings(path=fifo, max_bytes=10))
    received: list[bytes] = []

    def read() -> None:
        with fifo.open("rb") as file:
            received.extend(file.readline() for _ in range(2))

    reader = threading.Thread(target=read)
    reader.start()
    handler.start()
    handler.handle(LogEvent(text="one"))
    handler.handle(LogEvent(text="two"))
    reader.join()
    handler.stop(1)
    assert [json.loads(line)["text"] for line in received] == ["one", "two"]
    assert list(tmp_path.iterdir()) == [fifo]


@pytest.fixture
def file_limit() -> Iterator[None]:
    """Let no file of this process grow beyond 20,000 bytes: writes end early, then fail."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.usefixtures("file_limit")
async def test_a_full_disk_is_survived_counted_and_reported_sparsely(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
    for number in range(300):
        client.log("info", f"{number}")
    assert await client.flush()
    (account,) = client.report().handlers
    written = account.delivered
    assert 0 < written < 300
    assert account.failed == 300 - written
    assert contents(path)[-1:] != b"\n"
    assert len(contents(path)) == 20_000
    (warning,) = [each for each in caplog.messages if "failed to handle" in each]
    assert str(path) in warning
    assert "\n" not in warning

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for number in range(300, 310):
        client.log("info", f"{number}")
    report = await client.stop()
    assert report.handlers[0].delivered == written + 10
    expected = [*range(written), *range(300, 310)]
    assert texts(path) == [str(number) for number in expected]


class Writers:
    """Other processes that write to the file, all at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: list[int] = []
        self._gate = os.pipe()

    def start(self, name: str, *, count: int, max_bytes: int) -> None:
        child = os.fork()
        if child == 0:
            try:
                os._exit(self._write(name, count, max_bytes))
            finally:
                os._exit(99)
        self._started.append(child)

    def _write(self, name: str, count: int, max_bytes: int) -> int:
        reading, writing = self._gate
        os.close(writing)
        os.read(reading, 1)
        settings = FileSettings(path=self._path, max_bytes=max_bytes, backups=1000)
        client = ObservabilityClient(
            [FileEventHandler(settings)], ObservabilitySettings(buffer_size=10**6)
        )
        for number in range(count):
            client.log("info", f"{name} {number} " + "x" * (number % 97))
        return client.close(60).lost

    def go(self) -> list[int]:
        """Let them write, and return how they ended."""
        for end in self._gate:
            os.close(end)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self._started]


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("max_bytes", [0, 5_000])
def test_processes_share_a_file_without_losing_or_tearing_a_line(
    path: Path, max_bytes: int
) -> None:
    names = ["a", "b", "c", "d"]
    writers = Writers(path)
    for name in names:
        writers.start(name, count=300, max_bytes=max_bytes)
    assert writers.go() == [0] * 4
    files = list(path.parent.iterdir())
    assert len(files) > 30 if max_bytes else len(files) == 1
    for file in files:
        for line in lines(file):
            assert json.loads(line)["event_type"] == "LogEvent"
    counts = Counter(str(text).split()[0] for text in texts(path))
    assert counts == dict.fromkeys(names, 300)
    assert len(set(texts(path))) == 1200


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_process_leaves_at_most_one_torn_line(path: Path) -> None:
    whole = 0
    for number in range(10):
        child = os.fork()
        if child == 0:
            client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
            while True:
                client.log("info", f"{number}", text="x" * 500)
        expected = whole + 20
        while not path.exists() or len(lines(path)) < expected:
            time.sleep(0.001)  # or the child gets no time on a busy machine
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = lines(path)
        torn = sum(_is_torn(line) for line in found)
        assert torn <= number
        whole = len(found) - torn
    write(path, LogEvent(text="afterwards"))
    assert json.loads(lines(path)[-1])["text"] == "afterwards"
    assert len(texts(path)) == whole + 1


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_to_the_same_file(path: Path) -> None:
    client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
    client.log("info", "parent")
    child = os.fork()
    if child == 0:
        client.log("info", "child")
        os._exit(client.close(5).lost)
    assert os.waitpid(child, 0)[1] == 0
    client.log("info", "parent again")
    assert client.close().lost == 0
    assert sorted(map(str, texts(path))) == ["child", "parent", "parent again"]


def test_what_is_lost_is_said_at_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = ObservabilityClient([FileEventHandler(FileSettings(path=tmp_path))])
    client.log("info", "x")
    client.close()
    assert caplog.records[-1].levelno == logging.WARNING
    assert "FileEventHandler: 1 emitted = 0 delivered + 1 dropped" in caplog.messages[-1]


def test_standard_logging_is_in_the_file_with_its_traceback_and_no_secret(path: Path) -> None:
    client = ObservabilityClient([FileEventHandler(FileSettings(path=path))])
    with bridged_logging(client, "info"):
        try:
            int(f"password={SECRET}")
        except ValueError:
            extra = {"api_key": "k-1", "note": SECRET}
            logging.getLogger("shop").exception("using %s", SECRET, extra=extra)
    client.close(20)
    (record,) = read_events(path)
    attributes = record["attributes"]
    assert isinstance(attributes, dict)
    assert record["level"] == "error"
    assert attributes["logger"] == "shop"
    assert "in test_standard_logging" in str(attributes["exception.stacktrace"])
    assert SECRET.encode() not in contents(path)
    assert b"k-1" not in contents(path)

"""The three tools as plain functions: what a model gets for what it may ask."""

from __future__ import annotations

import os
import re
import zoneinfo
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from assistant.calculator import calculate
from assistant.files import FileReader
from assistant.tools import current_time
from hypothesis import given
from hypothesis import strategies as st
from llmgine.errors import ToolError

# -- The calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*34", "408"),
        (" 2 ^ 3 + 1 ", "9"),
        ("-2 ** 2", "-4"),
        ("7 // 2 + 7 % 2 - +1", "3"),
        ("10 / 4", "2.5"),
        ("10 / 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("6 × 7 ÷ 2 − 1", "20"),  # noqa: RUF001
        ("sqrt(16) + max(1, 2, 3) + abs(-1)", "8"),
        ("round(pi, 4)", "3.1416"),
        ("round(2.5)", "2"),
        ("2 ** 100", "1267650600228229401496703205376"),
        ("1e3 * 1_000", "1000000"),
        ("1 ** 4000", "1"),
    ],
)
def test_arithmetic_is_worked_out(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1 / 0", "division by zero"),
        ("5 % 0", "by zero"),
        ("0 ** -1", "negative power"),
        ("9 ** 9 ** 9 ** 9", "too large"),
        ("2 ** 5000", "too large"),
        ("2.0 ** 5000", "too large"),
        ("1e308 * 10", "too large"),
        ("1e999", "too large"),
        ("exp(1000)", "too large"),
        ("round(1, -1000000000)", "too large"),
        ("(2 ** 4000) * (2 ** 4000)", "too large"),
        ("(2 ** 4000) + 0.5", "too large"),
        ("1 +", "no arithmetic expression"),
        ("1or 2", "no arithmetic expression"),
        ("", "no arithmetic expression"),
        ("1; 2", "no arithmetic expression"),
        ("'a' * 3", "no arithmetic expression"),
        ("1\0", "no arithmetic expression"),
        ("(" * 140 + "1" + ")" * 139, "no arithmetic expression"),
        ("-" * 299 + "x", "'x' is not understood"),
        ("1+" * 200 + "1", "too long"),
        ("1, 2", "only arithmetic"),
        ("x + 1", "'x' is not understood"),
        ("True + 1", "'True' is not understood"),
        ("2j", "'2j' is not understood"),
        ("__import__(1)", "is not understood"),
        ("pi.real", "is not understood"),
        ("sqrt(x=1)", "no arithmetic expression"),
        ("max(*1)", "is not understood"),
        ("(1).__class__", "is not understood"),
        ("sqrt(-1)", "can't be worked out"),
        ("(-8) ^ 0.5", "a root of a negative number"),
        ("log(0)", "can't be worked out"),
        ("sqrt(1, 2)", "can't be worked out"),
        ("round(1, 0.5)", "can't be worked out"),
        ("max()", "can't be worked out"),
    ],
)
def test_what_can_t_be_worked_out_is_told(expression: str, told: str) -> None:
    with pytest.raises(ToolError, match=re.escape(told)):
        calculate(expression)


@given(st.text(alphabet="0123456789.+-*/%^(), episqrtabound", max_size=60))
def test_any_expression_has_a_value_or_an_error_for_the_model(expression: str) -> None:
    with suppress(ToolError):
        assert re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", calculate(expression))


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_whole_numbers_are_exact(a: int, b: int, c: int) -> None:
    assert calculate(f"({a} + {b}) * ({a} - ({b})) // {c}") == str((a + b) * (a - b) // c)
    assert float(calculate(f"{a} / {c}")) == pytest.approx(float(Fraction(a, c)))


# -- The clock

needs_database = pytest.mark.skipif(
    not zoneinfo.available_timezones(), reason="this computer knows no time zones"
)


def parsed(told: str) -> datetime:
    found = re.fullmatch(r"\w+day, (\S+ \S+) \(.+\)", told)
    assert found is not None, told
    return datetime.fromisoformat(found[1])


@needs_database
@pytest.mark.parametrize("zone", ["", " ", "UTC", "utc", "Asia/Kathmandu", " Asia/Kathmandu"])
def test_the_time_is_told(zone: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    told = current_time(zone)
    then = parsed(told)
    assert before <= then <= datetime.now(UTC)
    assert told.startswith(f"{then:%A}, ")
    if "/" in zone:
        assert then.utcoffset() == timedelta(hours=5, minutes=45)
        assert told.endswith("(Asia/Kathmandu)")


@needs_database
@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Berlin", "did you mean Europe/Berlin?"),
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("new york", "America/New_York"),
        ("Middle-earth", "use an IANA name"),
        ("../../etc/passwd", "use an IANA name"),
        ("/etc/passwd", "use an IANA name"),
        ("Europe", "did you mean"),
        ("a\0b", "use an IANA name"),
        ("x" * 10_000, "use an IANA name"),
        ("zone.tab", "use an IANA name"),
    ],
)
def test_an_unknown_zone_is_told(zone: str, told: str) -> None:
    with pytest.raises(ToolError, match=re.escape(told)):
        current_time(zone)


def test_without_a_database_utc_and_the_local_time_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = zoneinfo.TZPATH
    monkeypatch.setattr("importlib.resources.files", _nothing)
    zoneinfo.reset_tzpath([str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert parsed(current_time())
        assert parsed(current_time("UTC"))
        with pytest.raises(ToolError, match="for want of the package `tzdata`"):
            current_time("Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath(before)


def _nothing(package: str) -> Path:
    raise ModuleNotFoundError(package)


# -- Files


@pytest.fixture
def reader(tmp_path: Path) -> FileReader:
    """A reader of a folder that holds one of everything."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "folder"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "a.md").write_text("one\ntwo\n")
    (folder / "docs" / ".hidden").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / ".env").write_text("secret")
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("")
    (folder / "umlaut.txt").write_text("größer\n", encoding="utf-8")
    (folder / "binary").write_bytes(b"\x00\x01")
    (folder / "latin").write_bytes("größer".encode("latin-1"))
    (folder / "huge").write_bytes(b"x" * (1024 * 1024 + 1))
    (folder / "long").write_text("".join(f"line {n}\n" for n in range(1, 901)))
    return FileReader(folder)


def linked(folder: Path, name: str, target: Path) -> None:
    try:
        (folder / name).symlink_to(target)
    except OSError:
        pytest.skip("no links here")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/a.md", "one\ntwo\n"),
        ("./docs/../docs/a.md", "one\ntwo\n"),
        ("umlaut.txt", "größer\n"),
        ("empty.txt", "(an empty file)"),
        ("docs", "a.md"),
        ("empty", "(an empty folder)"),
        (".", "binary\ndocs/\nempty.txt\nempty/\nhuge\nlatin\nlong\numlaut.txt"),
    ],
)
def test_files_are_read_and_folders_listed(reader: FileReader, path: str, text: str) -> None:
    assert reader.read_file(path) == text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nope.txt", "can't be read: No such file"),
        ("docs/a.md/b", "can't be read: "),
        ("../secret.txt", "outside the folder"),
        ("docs/../../secret.txt", "outside the folder"),
        ("..", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("../folder-and-more/x", "outside the folder"),
        (".env", "hidden"),
        (".git/config", "hidden"),
        ("docs/.hidden", "hidden"),
        ("docs/../.env", "hidden"),
        ("binary", "no text file"),
        ("latin", "no text file"),
        ("huge", "too large"),
        ("a\0b", "no path"),
        ("x" * 10_000, "x"),
    ],
)
def test_what_may_not_or_can_t_be_read_is_told(reader: FileReader, path: str, told: str) -> None:
    with pytest.raises(ToolError, match=re.escape(told)):
        reader.read_file(path)


def test_a_path_from_the_root_is_fine_below_the_folder(reader: FileReader, tmp_path: Path) -> None:
    assert reader.read_file(str(tmp_path / "folder" / "docs" / "a.md")) == "one\ntwo\n"


def test_links_are_followed_within_the_folder_alone(reader: FileReader, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    linked(folder, "inside", folder / "docs" / "a.md")
    linked(folder, "outside", tmp_path / "secret.txt")
    linked(folder, "up", tmp_path)
    linked(folder, "plain", folder / ".env")
    linked(folder, "loop", folder / "loop")
    assert reader.read_file("inside") == "one\ntwo\n"
    for path in ("outside", "up", "up/secret.txt", "plain", "loop"):
        with pytest.raises(ToolError):
            reader.read_file(path)


@pytest.mark.skipif(not vars(os).get("mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_file(reader: FileReader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "folder" / "pipe")
    with pytest.raises(ToolError, match="no file that can be read"):
        reader.read_file("pipe")


def test_a_long_file_is_read_in_pieces(reader: FileReader) -> None:
    seen: list[str] = []
    first = 1
    while True:
        *lines, last = reader.read_file("long", first).splitlines()
        seen += lines
        found = re.search(r"of 900; first_line=(\d+) reads on", last)
        if found is None:
            seen.append(last)
            break
        first = int(found[1])
    assert seen == [f"line {n}" for n in range(1, 901)]
    assert reader.read_file("long", -5) == reader.read_file("long", 1)
    with pytest.raises(ToolError, match=r"no line 901: the file has 900"):
        reader.read_file("long", 901)


@given(st.lists(st.sampled_from(["..", ".", "/", "docs", "up", "secret.txt", ".env", "a.md"])))
def test_no_path_leads_to_a_secret(steps: list[str]) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "folder"
        (folder / "docs").mkdir(parents=True)
        for place in (folder.parent / "secret.txt", folder / ".env", folder / "docs" / ".env"):
            place.write_text("the secret")
        (folder / "docs" / "a.md").write_text("open")
        for path in ("/".join(steps), str(folder / "/".join(steps))):
            with suppress(ToolError):
                assert "the secret" not in FileReader(folder).read_file(path)


def test_long_lines_leave_room_for_the_hint(reader: FileReader, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "wide"
    path.write_text(f"{'x' * 999}\n" * 400)
    assert re.search(r"lines 1 to 49 of 400; first_line=50 reads on\)$", reader.read_file("wide"))
    path.write_text(f"{'x' * 99_999}\nlast")
    text = reader.read_file("wide")
    assert len(text) < 64 * 1024
    assert "this line was cut: it has 100,000 bytes" in text
    assert text.endswith("(lines 1 to 1 of 2; first_line=2 reads on)")

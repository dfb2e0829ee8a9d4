"""Several processes on one file, and processes that end without a word."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from llmgine.context.sqlite import SQLiteContextStore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, signals and limits")

START = """
import asyncio, os, resource, sys
from llmgine.context.sqlite import SQLiteContextStore
from llmgine.contracts import ChatMessage
from llmgine.errors import ContextStoreError

path = sys.argv[1]
"""

# Children wait at a pipe until all are there, so that their first openings coincide. SQLite gives
# turns to whoever asks at the right moment: on a loaded machine the last one waits for long.
EIGHT = """
async def write(child):
    async with SQLiteContextStore(path, synchronous="normal", busy_timeout=45) as store:
        for number in range(10):
            pair = [ChatMessage.user(f"{child} {number} {half}") for half in "ab"]
            await store.add_messages("shared", pair)
            await store.add_messages(f"own {child}", pair, expected_version=2 * number)

reading, writing = os.pipe()
children = []
for child in range(8):
    if not (pid := os.fork()):
        os.close(writing)
        os.read(reading, 1)
        asyncio.run(write(child))
        os._exit(0)
    children.append(pid)
os.close(writing)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children))
"""

ENDLESS = """
async def write():
    store = SQLiteContextStore(path)
    async def task(name):
        number = 0
        while True:
            await store.add_messages(name, [ChatMessage.user(f"{number} {half}") for half in "ab"])
            print(name, number, flush=True)
            number += 1
    await asyncio.gather(*map(task, "xyz"))

asyncio.run(write())
"""

FULL = """
async def write():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    async with SQLiteContextStore(path) as store:
        kept = 0
        try:
            while kept < 2_000:
                kept = await store.add_messages("s", [ChatMessage.user("x" * 1_000)] * 4)
        except ContextStoreError as error:
            assert path in str(error)
        assert 0 < kept < 2_000
        assert len(await store.get_context("s")) == kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        more = await store.add_messages("s", [ChatMessage.user("x")], expected_version=kept)
        assert more == kept + 1

asyncio.run(write())
"""

FORKED = """
store = SQLiteContextStore(path)
asyncio.run(store.add_message("s", ChatMessage.user("a")))
if not (pid := os.fork()):
    try:
        asyncio.run(store.add_message("s", ChatMessage.user("b")))
    except ContextStoreError as error:
        os._exit(0 if "forked" in str(error) else 2)
    os._exit(1)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
asyncio.run(store.add_message("s", ChatMessage.user("c")))
asyncio.run(store.close())
sys.exit(status)
"""


FORKED_ANEW = """
store = SQLiteContextStore(path)
asyncio.run(store.add_message("s", ChatMessage.user("a")))
if not (pid := os.fork()):
    for other in (store, SQLiteContextStore(path)):
        try:
            asyncio.run(other.get_context("s"))
        except ContextStoreError as error:
            assert "forked" in str(error)
        else:
            os._exit(1)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
asyncio.run(store.close())
if not (pid := os.fork()):
    asyncio.run(SQLiteContextStore(path).add_message("s", ChatMessage.user("b")))
    os._exit(0)
sys.exit(status or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

# It has read as well as written: two connections of one process.
LONG_LIVED = """
async def write():
    store = SQLiteContextStore(path)
    await store.add_message("s", ChatMessage.user("early"))
    await store.get_context("s")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        await store.add_message("s", ChatMessage.user(f"late {number}"))
    print("acknowledged", flush=True)
    sys.stdin.readline()

asyncio.run(write())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "context.db"


def texts(path: Path, session_id: str) -> list[str]:
    async def read() -> list[str]:
        async with SQLiteContextStore(path) as store:
            return [message.text for message in await store.get_context(session_id)]

    return asyncio.run(read())


def run(program: str, path: Path) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", START + program, str(path)]
    subprocess.run(arguments, check=True, timeout=50)  # noqa: S603


def test_eight_processes_open_and_write_one_new_file_at_once(path: Path) -> None:
    run(EIGHT, path)
    shared = texts(path, "shared")
    assert len(set(shared)) == len(shared) == 8 * 10 * 2
    assert [text[:-1] for text in shared[::2]] == [text[:-1] for text in shared[1::2]]
    for child in range(8):
        own = [text for text in shared if text.startswith(f"{child} ")]
        assert own == texts(path, f"own {child}")
        assert own == [f"{child} {number} {half}" for number in range(10) for half in "ab"]


def test_what_was_acknowledged_outlives_a_kill(path: Path) -> None:
    arguments = [sys.executable, "-c", START + ENDLESS, str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(100)]
        process.kill()
        heard += process.stdout.readlines()
    for name in "xyz":
        acknowledged = sum(line.startswith(name) and line.endswith("\n") for line in heard)
        kept = texts(path, name)
        assert len(kept) >= 2 * acknowledged > 0
        assert kept == [f"{n} {half}" for n in range(len(kept) // 2) for half in "ab"]


def test_a_full_disk_costs_no_more_than_what_was_refused(path: Path) -> None:
    run(FULL, path)


def test_a_store_in_use_is_not_carried_over_a_fork(path: Path) -> None:
    run(FORKED, path)
    assert texts(path, "s") == ["a", "c"]


def test_a_store_that_closes_takes_nothing_from_one_that_lives(path: Path) -> None:
    arguments = [sys.executable, "-c", START + LONG_LIVED, str(path)]
    with subprocess.Popen(  # noqa: S603
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert texts(path, "s") == ["early"]
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "acknowledged\n"
        assert len(texts(path, "s")) == 21
        process.kill()
    assert texts(path, "s") == ["early", *(f"late {number}" for number in range(20))]


def test_a_file_that_was_open_at_a_fork_is_refused_in_the_child(path: Path) -> None:
    run(FORKED_ANEW, path)
    assert texts(path, "s") == ["a", "b"]

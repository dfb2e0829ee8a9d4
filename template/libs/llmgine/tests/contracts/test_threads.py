"""Worker threads: bounded, with the caller's context, and rid of calls that never return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar

import pytest
from llmgine.contracts.threads import WorkerThreads

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Blocker:
    """Calls that hold their thread until they are let go."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, argument: object) -> object:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.release.wait(30)
        with self._lock:
            self.running -= 1
        return argument


@pytest.fixture
def blocker() -> Generator[Blocker]:
    made = Blocker()
    yield made
    made.release.set()


def threads(limit: int = 2, abandoned_limit: int = 2) -> WorkerThreads:
    return WorkerThreads(limit=limit, abandoned_limit=abandoned_limit, name="test-worker")


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test-worker"]


def alive() -> int:
    return len(ours())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Generator[None]:
    """Each test begins without the threads of the one before, which end in their own time."""
    yield
    for thread in ours():
        thread.join(30)
        assert not thread.is_alive()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - threads end without a word
            await asyncio.sleep(0.002)


async def abandon(workers: WorkerThreads, blocker: Blocker) -> None:
    running = blocker.running
    call = asyncio.create_task(workers.run(blocker, None))
    await until(lambda: blocker.running > running)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_returns_its_result_from_another_thread() -> None:
    workers = threads()
    assert await workers.run(lambda _: threading.get_ident(), None) != threading.get_ident()
    workers.close()
    await until(lambda: alive() == 0)


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt()])
async def test_whatever_the_function_raises_comes_back(error: BaseException) -> None:
    def fail(argument: object) -> None:
        raise error

    workers = threads()
    with pytest.raises(type(error)) as caught:
        await workers.run(fail, None)
    assert caught.value is error
    workers.close()


async def test_the_function_runs_in_a_copy_of_the_callers_context() -> None:
    def change(argument: str) -> str:
        before = request_id.get()
        request_id.set(argument)
        return before

    workers = threads()
    request_id.set("caller's")
    assert await workers.run(change, "changed") == "caller's"
    assert request_id.get() == "caller's"
    workers.close()


async def test_no_more_calls_run_at_once_than_the_limit(blocker: Blocker) -> None:
    workers = threads(limit=2)
    calls = [asyncio.create_task(workers.run(blocker, number)) for number in range(6)]
    await until(lambda: blocker.running == 2)
    blocker.release.set()
    assert await asyncio.gather(*calls) == list(range(6))
    assert blocker.most == 2
    workers.close()
    await until(lambda: alive() == 0)


async def test_idle_threads_are_used_again() -> None:
    workers = threads(limit=8)
    idents = {await workers.run(lambda _: threading.get_ident(), None) for _ in range(20)}
    assert len(idents) <= 2
    workers.close()


async def test_a_cancelled_call_is_abandoned_counted_and_replaced(blocker: Blocker) -> None:
    workers = threads(limit=1, abandoned_limit=2)
    await abandon(workers, blocker)
    await abandon(workers, blocker)
    assert workers.abandoned == 2
    assert alive() == 2
    blocker.release.set()
    await until(lambda: workers.abandoned == 0)
    assert await workers.run(lambda _: "works", None) == "works"
    workers.close()
    await until(lambda: alive() == 0)


async def test_past_the_limit_of_abandoned_threads_calls_wait(blocker: Blocker) -> None:
    workers = threads(limit=1, abandoned_limit=1)
    await abandon(workers, blocker)
    await abandon(workers, blocker)
    assert workers.abandoned == 2
    waiting = asyncio.create_task(workers.run(lambda _: "at last", None))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    blocker.release.set()
    assert await waiting == "at last"
    await until(lambda: workers.abandoned == 0)
    workers.close()
    await until(lambda: alive() == 0)


async def test_a_call_cancelled_while_it_waits_for_a_thread_takes_none(blocker: Blocker) -> None:
    workers = threads(limit=1)
    running = asyncio.create_task(workers.run(blocker, "first"))
    await until(lambda: blocker.running == 1)
    waiting = asyncio.create_task(workers.run(blocker, "second"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert workers.abandoned == 0
    blocker.release.set()
    assert await running == "first"
    assert await workers.run(lambda _: "third", None) == "third"
    workers.close()


async def test_a_call_past_its_time_is_abandoned(blocker: Blocker) -> None:
    workers = threads(limit=1)
    with pytest.raises(TimeoutError):
        await workers.run(blocker, None, timeout=0.05)
    assert workers.abandoned == 1
    assert await workers.run(str, 1, timeout=30) == "1"
    blocker.release.set()
    await until(lambda: workers.abandoned == 0)
    workers.close()
    await until(lambda: alive() == 0)


async def test_time_spent_waiting_for_a_thread_counts(blocker: Blocker) -> None:
    workers = threads(limit=1)
    running = asyncio.create_task(workers.run(blocker, "done"))
    await until(lambda: blocker.running == 1)
    with pytest.raises(TimeoutError):
        await workers.run(str, 1, timeout=0.05)
    assert workers.abandoned == 0
    blocker.release.set()
    assert await running == "done"
    workers.close()


async def test_a_timeout_of_the_function_s_own_is_no_call_past_its_time() -> None:
    def fail(argument: object) -> None:
        raise TimeoutError(argument)

    workers = threads()
    with pytest.raises(TimeoutError, match="its own"):
        await workers.run(fail, "its own", timeout=30)
    assert workers.abandoned == 0
    workers.close()


async def test_who_is_busy_at_the_close_ends_after_its_call(blocker: Blocker) -> None:
    workers = threads(limit=2)
    running = asyncio.create_task(workers.run(blocker, "done"))
    await until(lambda: blocker.running == 1)
    workers.close()
    blocker.release.set()
    assert await running == "done"
    await until(lambda: alive() == 0)


async def test_calls_after_the_close_open_it_again(blocker: Blocker) -> None:
    workers = threads(limit=2)
    running = asyncio.create_task(workers.run(blocker, "done"))
    await until(lambda: blocker.running == 1)
    workers.close()
    idents = {await workers.run(lambda _: threading.get_ident(), None) for _ in range(20)}
    assert len(idents) == 1
    blocker.release.set()
    assert await running == "done"
    workers.close()
    await until(lambda: alive() == 0)


async def test_a_system_without_threads_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = threads(limit=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="start new thread"):
                await workers.run(str, 1)
    assert await workers.run(str, 1, timeout=30) == "1"
    workers.close()


def test_threads_do_not_keep_the_process_from_ending() -> None:
    async def main() -> list[bool]:
        workers = threads()
        await workers.run(lambda _: None, None)
        daemons = [thread.daemon for thread in ours()]
        workers.close()
        return daemons

    assert asyncio.run(main()) == [True]


def test_a_call_that_outlives_its_loop_does_no_harm(blocker: Blocker) -> None:
    async def main() -> None:
        workers = threads()
        await abandon(workers, blocker)
        workers.close()

    asyncio.run(main())
    blocker.release.set()

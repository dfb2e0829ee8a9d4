"""An async tool begins at once, in a task of its own: it can't tell that its caller waits."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar

import pytest
from llmgine.contracts import ToolCall, ToolResult
from llmgine.settings import ToolSettings
from llmgine.tools import ToolManager

mark: ContextVar[str] = ContextVar("mark", default="none")


@pytest.fixture
def tools() -> ToolManager:
    return ToolManager("s")


async def run(tools: ToolManager, func: Callable[..., object]) -> ToolResult:
    tools.register_tool(func)
    return await tools.execute_tool_call(ToolCall(id="c", name=func.__name__))


def current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Trips:
    """Counts how often the loop has come round."""

    def __init__(self) -> None:
        self.count = -1
        self._come_round()

    def _come_round(self) -> None:
        self.count += 1
        self.next = asyncio.get_running_loop().call_soon(self._come_round)


async def test_a_tool_that_waits_for_nothing_takes_no_trip_through_the_loop(
    tools: ToolManager,
) -> None:
    async def quick() -> str:
        return "done"

    trips = Trips()
    assert (await run(tools, quick)).content == "done"
    trips.next.cancel()
    assert trips.count == 0


async def test_the_task_is_the_tools_own_from_its_first_step_to_its_last(
    tools: ToolManager,
) -> None:
    seen: list[tuple[asyncio.Task[object], str]] = []

    def look() -> None:
        task = current()
        assert task in asyncio.all_tasks()
        assert isinstance(task, asyncio.Task)
        assert repr(task)
        assert task.get_stack()
        seen.append((task, mark.get()))

    async def watched() -> str:
        look()
        mark.set("first")
        await asyncio.sleep(0)
        look()
        mark.set("second")
        await asyncio.sleep(0.001)
        look()
        return "done"

    caller = current()
    assert (await run(tools, watched)).content == "done"
    assert current() is caller
    assert [text for _, text in seen] == ["none", "first", "second"]
    assert len({task for task, _ in seen}) == 1
    assert seen[0][0] is not caller
    assert mark.get() == "none"
    await asyncio.wait({seen[0][0]}, timeout=10)
    assert seen[0][0].done()


async def test_a_task_that_is_looked_at_only_afterwards_is_over(tools: ToolManager) -> None:
    kept: list[asyncio.Task[object]] = []

    async def quick() -> str:
        kept.append(current())
        return "done"

    async def other_quick() -> str:
        return await quick()

    for func in (quick, other_quick):
        assert (await run(tools, func)).content == "done"
    first, second = kept
    await asyncio.wait_for(first, 10)
    await asyncio.wait({second}, timeout=10)
    assert [task.done() for task in kept] == [True, True]
    assert current() not in kept


async def test_what_a_tool_asks_of_its_task_in_the_first_step_happens(tools: ToolManager) -> None:
    ended: asyncio.Queue[asyncio.Task[object]] = asyncio.Queue()

    async def quick() -> str:
        current().add_done_callback(ended.put_nowait)
        return current().get_name()

    async def waiting() -> str:
        name = await quick()
        await asyncio.sleep(0)
        return name

    for func in (quick, waiting):
        assert (await run(tools, func)).content == "llmgine-tool"
        assert (await asyncio.wait_for(ended.get(), 10)).done()


async def test_tools_that_wait_for_nothing_leave_no_task_behind(tools: ToolManager) -> None:
    kept: list[weakref.ref[asyncio.Task[object]]] = []

    async def quick() -> str:
        kept.append(weakref.ref(current()))
        return "done"

    assert (await run(tools, quick)).content == "done"
    await asyncio.sleep(0)
    gc.collect()
    assert kept[0]() is None
    assert asyncio.all_tasks() == {current()}


async def test_tools_that_call_tools_each_have_their_own_task(tools: ToolManager) -> None:
    async def inner() -> str:
        tasks.append(current())
        return "inner"

    async def outer() -> str:
        tasks.append(current())
        text = (await run(tools, inner)).text
        assert current() is tasks[1]
        return text

    tasks = [current()]
    assert (await run(tools, outer)).content == "inner"
    assert current() is tasks[0]
    assert len(set(tasks)) == 3


async def test_a_tool_that_cancels_itself_and_returns_has_returned(tools: ToolManager) -> None:
    async def at_once() -> str:
        current().cancel()
        return "done"

    async def later() -> str:
        await asyncio.sleep(0)
        current().cancel()
        return "done"

    for func in (at_once, later):
        assert (await run(tools, func)).content == "done"
    await asyncio.sleep(0)
    assert current().cancelling() == 0


async def test_a_tool_that_cancels_itself_and_waits_is_cancelled_there(tools: ToolManager) -> None:
    ended: list[str] = []

    async def working() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("what it waits for")

    async def at_once() -> None:
        current().cancel()
        await asyncio.sleep(0)
        ended.append("never")

    async def with_others() -> None:
        work = asyncio.create_task(working())
        await asyncio.sleep(0)
        current().cancel()
        await work

    async def first_of_all() -> None:
        future = asyncio.get_running_loop().create_future()
        current().cancel()
        try:
            await future
        except asyncio.CancelledError:
            ended.append(f"cancelled={future.cancelled()}")
            raise

    async def over_already() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        waited = asyncio.shield(future)
        current().cancel()
        await waited
        ended.append("never")

    for func in (at_once, with_others, first_of_all, over_already):
        result = await run(tools, func)
        assert (result.error_code, "CancelledError" in result.text) == ("failed", True)
    assert ended == ["what it waits for", "cancelled=True"]
    assert current().cancelling() == 0


async def test_a_cancellation_before_the_second_step_is_the_one_that_was_sent(
    tools: ToolManager,
) -> None:
    async def waiting() -> str:
        task = current()
        found: tuple[object, ...] = ()
        task.cancel("why")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            task.uncancel()
            found = error.args
        assert sys.exc_info()[1] is None
        with pytest.raises(ValueError, match="another") as other:
            raise ValueError("another")
        assert other.value.__context__ is None
        return str(found)

    assert (await run(tools, waiting)).content == "('why',)"


async def test_what_the_first_wait_brings_is_the_tools_to_keep(tools: ToolManager) -> None:
    async def waiting() -> str:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[Trips] = loop.create_future()
        loop.call_soon(first.set_result, Trips())
        brought = await first
        brought.next.cancel()
        kept = weakref.ref(brought)
        del first, brought
        await asyncio.sleep(0.001)
        gc.collect()
        return "kept" if kept() else "freed"

    assert (await run(tools, waiting)).content == "freed"


async def test_a_tool_can_get_over_its_own_cancellation(tools: ToolManager) -> None:
    async def stubborn() -> str:
        current().cancel()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            current().uncancel()
        await asyncio.sleep(0.001)
        return "done"

    assert (await run(tools, stubborn)).content == "done"


@types.coroutine
def stepping() -> Generator[None, None, str]:
    for _ in range(3):
        yield
    return "generated"


class Own:
    """Something that can be awaited, and is no coroutine."""

    def __await__(self) -> Generator[object, None, str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "own")
        return (yield from future.__await__())


async def test_whatever_can_be_awaited_is_awaited(tools: ToolManager) -> None:
    async def generated() -> str:
        return await stepping()

    async def owned() -> str:
        return await Own()

    def handed_out() -> Awaitable[str]:
        return Own()

    async def at_once() -> str:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done.set_result("at once")
        return await done

    results = [await run(tools, each) for each in (generated, owned, handed_out, at_once)]
    assert [each.content for each in results] == ["generated", "own", "own", "at once"]


async def test_calls_at_once_wait_for_one_and_the_same(tools: ToolManager) -> None:
    """Such as a connection that the first of them opens."""
    opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        return await opened

    async def wait_outside() -> str:
        return await opened

    tools.register_tool(wait)
    calls = [
        asyncio.create_task(tools.execute_tool_call(ToolCall(id=str(number), name="wait")))
        for number in range(2)
    ]
    outside = asyncio.create_task(wait_outside())
    await asyncio.sleep(0)
    opened.set_result("open")
    assert [(await call).content for call in calls] == ["open", "open"]
    assert await outside == "open"


async def test_a_tool_that_cancels_itself_cancels_what_it_shares(tools: ToolManager) -> None:
    shared: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        current().cancel()
        return await shared

    async def wait_outside() -> str:
        return await shared

    call = asyncio.create_task(run(tools, wait))
    outside = asyncio.create_task(wait_outside())
    async with asyncio.timeout(10):
        assert "CancelledError" in (await call).text
        with pytest.raises(asyncio.CancelledError):
            await outside


async def test_what_can_t_be_waited_for_is_the_tools_failure(tools: ToolManager) -> None:
    @types.coroutine
    def odd() -> Generator[object, None, None]:
        yield "no future"

    async def wait() -> None:
        await odd()

    assert (await run(tools, wait)).error_code == "failed"


async def test_an_interrupt_at_the_first_step_is_not_kept(tools: ToolManager) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    caller = current()
    with pytest.raises(KeyboardInterrupt):
        await run(tools, interrupted)
    assert current() is caller
    await asyncio.sleep(0)


async def test_a_limit_within_the_first_step_is_the_tools_own(tools: ToolManager) -> None:
    async def limited() -> str:
        task = current()
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return f"over {task.cancelling()}"
        return "never"

    assert (await run(tools, limited)).content == "over 0"
    assert current().cancelling() == 0


async def test_those_who_wait_for_a_place_get_it_in_turn(tools: ToolManager) -> None:
    order: list[int] = []
    gates = [asyncio.Event() for _ in range(5)]

    async def work(number: int) -> None:
        order.append(number)
        await gates[number].wait()

    tools = ToolManager("s", settings=ToolSettings(concurrency=1))
    tools.register_tool(work)
    calls = [
        asyncio.create_task(
            tools.execute_tool_call(
                ToolCall(id=str(number), name="work", arguments=f'{{"number": {number}}}')
            )
        )
        for number in range(5)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls[1].cancel()  # while it waits
    gates[0].set()
    await calls[0]
    calls[2].cancel()  # while it has just got the place, or has begun
    gates[3].set()
    gates[4].set()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*calls, return_exceptions=True)
    kinds = [type(each) for each in results]
    gone = asyncio.CancelledError
    assert kinds == [ToolResult, gone, gone, ToolResult, ToolResult]
    assert [each for each in order if each != 2] == [0, 3, 4]

"""Running tools: limits, threads, events, and whatever a tool or a model does wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import (
    Event,
    Publisher,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolExecutor,
    ToolResult,
)
from llmgine.errors import ConfigurationError
from llmgine.settings import ToolSettings
from llmgine.testing.recording import RecordingPublisher
from llmgine.tools import ToolError, ToolManager
from llmgine.tools.manager import build
from pydantic import BaseModel, field_validator

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@pytest.fixture
def told() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
async def tools(told: RecordingPublisher) -> AsyncGenerator[ToolManager]:
    async with ToolManager("s", publisher=told) as manager:
        yield manager


def one_result(told: RecordingPublisher) -> ToolResult:
    """Return the result that was told, after one start and once."""
    kinds = [type(event) for event in told.events]
    assert kinds == [ToolExecuteStartedEvent, ToolExecuteResultEvent]
    (event,) = told.of(ToolExecuteResultEvent)
    assert event.session_id == "s"
    assert event.duration >= 0
    assert event.call == told.of(ToolExecuteStartedEvent)[0].call
    return event.result


def called(func: Callable[..., object] | str, arguments: Any = "{}", id: str = "c") -> ToolCall:  # noqa: A002
    name = func if isinstance(func, str) else func.__name__
    return ToolCall(id=id, name=name, arguments=arguments)


async def run(tools: ToolManager, func: Callable[..., object], **options: Any) -> ToolResult:
    tools.register_tool(func, **options)
    return await tools.execute_tool_call(called(func))


class Hold:
    """A plain tool that holds its thread until it is let go."""

    __name__ = "Hold"

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started: asyncio.Queue[None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.ran = 0

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.started.put_nowait, None)
        self.release.wait(20)
        self.ran += 1
        return "released"


@pytest.fixture
async def hold() -> AsyncGenerator[Hold]:
    made = Hold()
    yield made
    made.release.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - threads end without a word
            await asyncio.sleep(0.002)


# -- Calls that go well


async def test_a_call_has_a_result_and_its_events(
    tools: ToolManager, told: RecordingPublisher
) -> None:
    def add(left: int, right: int) -> int:
        return left + right

    tools.register_tool(add)
    result = await tools.execute_tool_call(called(add, '{"left": 1, "right": 2}'))
    assert result == ToolResult(tool_call_id="c", name="add", content="3")
    assert one_result(told) == result
    assert isinstance(tools, ToolExecutor)


async def test_a_manager_without_a_session_takes_the_ambient_one(bus: MessageBus) -> None:
    async def here(number: int = 1) -> int:
        return number

    heard: list[Event] = []
    bus.register_event_handler(Event, heard.append, inline=True)
    tools = build(ToolSettings(), publisher=bus)
    tools.register_tool(here)
    await tools.execute_tool_call(called(here))
    async with bus.session("ambient"):
        await tools.execute_tool_call(called(here))
        await tools.for_session("other").execute_tool_call(called(here))
    await bus.join()
    results = [each for each in heard if isinstance(each, ToolExecuteResultEvent)]
    assert {each.session_id for each in results} == {None, "ambient", "other"}


@pytest.mark.parametrize("arguments", ["", "  ", "{}", "null", " null\n", None])
async def test_no_arguments_are_fine_where_none_are_needed(
    tools: ToolManager, arguments: str | None
) -> None:
    def ping(number: int = 1) -> str:
        return f"pong {number}"

    tools.register_tool(ping)
    assert (await tools.execute_tool_call(called(ping, arguments))).content == "pong 1"


async def test_several_calls_run_at_once_and_answer_in_order(tools: ToolManager) -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def wait(number: int) -> int:
        gates[number].set()
        await asyncio.gather(*(gate.wait() for gate in gates))
        return number

    tools.register_tool(wait)
    calls = [called(wait, f'{{"number": {number}}}', id=str(number)) for number in (2, 0, 1)]
    calls.insert(1, called("nothing", id="bad"))
    results = await tools.execute_tool_calls(calls)
    assert [each.tool_call_id for each in results] == ["2", "bad", "0", "1"]
    assert [each.is_error for each in results] == [False, True, False, False]


async def test_plain_tools_run_in_threads_with_a_copy_of_the_context(tools: ToolManager) -> None:
    def where() -> str:
        before = request_id.get()
        request_id.set("changed")
        return f"{before} {threading.get_ident() == loop_thread}"

    loop_thread = threading.get_ident()
    request_id.set("mine")
    assert (await run(tools, where)).content == "mine False"
    assert request_id.get() == "mine"


async def test_async_tools_run_on_the_loop_with_a_copy_of_the_context(tools: ToolManager) -> None:
    async def where() -> str:
        before = request_id.get()
        request_id.set("changed")
        return f"{before} {threading.get_ident() == loop_thread}"

    loop_thread = threading.get_ident()
    request_id.set("mine")
    assert (await run(tools, where)).content == "mine True"
    assert request_id.get() == "mine"


# -- What models send

BAD = [
    ("{", "invalid_json"),
    ("{'number': 1}", "invalid_json"),
    ('{"number": 1} extra', "invalid_json"),
    ('{"number": 1, "number": 2}', "invalid_json"),
    ('{"number": 1, "more": {"a": 1, "a": 1}}', "invalid_json"),
    ('{"number": NaN}', "invalid_json"),
    ('{"number": -Infinity}', "invalid_json"),
    ('{"number": 1e999}', "invalid_json"),
    ('{"number": ' + "1" * 5_000 + "}", "invalid_json"),
    ("[1]", "invalid_json"),
    ('"text"', "invalid_json"),
    ("3", "invalid_json"),
    ("", "invalid_arguments"),
    ("null", "invalid_arguments"),
    ('{"number": 3.7}', "invalid_arguments"),
    ('{"number": "many"}', "invalid_arguments"),
    ('{"number": null}', "invalid_arguments"),
    ('{"number": 1, "unknown": 2}', "invalid_arguments"),
    ('{"number": 1, "p0": 2}', "invalid_arguments"),
    ('{"number": 1, "\\ud800": 2}', "invalid_arguments"),
    ('{"number": 1, "\ud800": 2}', "invalid_arguments"),
    ('{"number": 1, "more": "' + "x" * 256 * 1024 + '"}', "arguments_too_large"),
    ('{"number": 1, "more": "' + "é" * 128 * 1024 + '"}', "arguments_too_large"),
    ('{"number": 1, "more": ' + "[" * 64 + "]" * 64 + "}", "arguments_too_deep"),
    ("[" * 100_000, "arguments_too_deep"),
    ('{"a":' * 50_000, "arguments_too_deep"),
]


@pytest.mark.parametrize(("arguments", "code"), BAD, ids=range(len(BAD)))
async def test_what_a_model_gets_wrong_is_told_and_nothing_runs(
    arguments: str, code: str, tools: ToolManager, told: RecordingPublisher
) -> None:
    ran: list[int] = []

    def take(number: int, more: Any = None) -> None:
        ran.append(number)

    tools.register_tool(take)
    result = await tools.execute_tool_call(called(take, arguments))
    assert (result.is_error, result.error_code) == (True, code)
    assert len(result.text) > 20
    assert one_result(told) == result
    assert ran == []


async def test_the_deepest_and_the_longest_that_are_allowed(tools: ToolManager) -> None:
    def take(more: Any) -> int:
        return 1

    tools.register_tool(take)
    deep = '{"more": ' + "[" * 63 + "]" * 63 + "}"
    long = '{"more": "' + "x" * (256 * 1024 - 12) + '"}'
    assert len(long) == 256 * 1024
    for arguments in (deep, long):
        assert (await tools.execute_tool_call(called(take, arguments))).content == "1"


async def test_what_no_parser_goes_into_is_too_deep_whatever_is_allowed() -> None:
    def take(more: Any) -> None: ...

    settings = ToolSettings(max_depth=1_000_000, max_argument_bytes=10_000_000)
    tools = ToolManager(settings=settings)
    tools.register_tool(take)
    arguments = '{"more": ' + "[" * 100_000 + "]" * 100_000 + "}"
    result = await tools.execute_tool_call(called(take, arguments))
    assert result.error_code == "arguments_too_deep"


async def test_findings_name_their_place_and_are_limited(tools: ToolManager) -> None:
    def take(numbers: list[int], word: str) -> None: ...

    tools.register_tool(take)
    result = await tools.execute_tool_call(called(take, '{"numbers": [1, "x"]}'))
    assert result.text == (
        "The arguments don't fit:\n"
        "numbers.1: Input should be a valid integer, unable to parse string as an integer\n"
        "word: Field required"
    )
    result = await tools.execute_tool_call(
        called(take, '{"word": "", "numbers": [' + ", ".join(['"x"'] * 30) + "]}")
    )
    assert result.text.splitlines()[-1] == "and 10 more"


async def test_an_unknown_tool_is_told_which_there_are(
    tools: ToolManager, told: RecordingPublisher
) -> None:
    async def there() -> None: ...

    tools.register_tool(there)
    result = await tools.execute_tool_call(called("x" * 10_000))
    assert result.error_code == "unknown_tool"
    assert result.text == f"There is no tool {'x' * 64!r}. The tools are: there."
    assert one_result(told) == result


@pytest.mark.parametrize("name", ["__init__", "execute_tool_call", "", "\ud800"])
async def test_names_are_looked_up_among_tools_alone(tools: ToolManager, name: str) -> None:
    assert (await tools.execute_tool_call(called(name))).error_code == "unknown_tool"


# -- What tools do


class Loose(asyncio.CancelledError):
    """A cancellation that nobody asked for."""


ERRORS: list[BaseException] = [
    ValueError("secret"),
    TimeoutError("secret"),
    StopIteration("secret"),
    StopAsyncIteration("secret"),
    Loose("secret"),
    GeneratorExit("secret"),
    SystemExit("secret"),
    BaseExceptionGroup("secret", [SystemExit(1)]),
    RecursionError("secret"),
]


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt("secret")], ids=repr)
async def test_what_a_plain_tool_raises_stays_in_the_log(
    error: BaseException,
    tools: ToolManager,
    told: RecordingPublisher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise error

    check_contained(await run(tools, fail), error, told, caplog)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_what_an_async_tool_raises_stays_in_the_log(
    error: BaseException,
    tools: ToolManager,
    told: RecordingPublisher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise error

    # Python itself turns this one, raised in a coroutine, into a RuntimeError.
    stopped = isinstance(error, StopIteration)
    check_contained(await run(tools, fail), RuntimeError() if stopped else error, told, caplog)


def check_contained(
    result: ToolResult,
    error: BaseException,
    told: RecordingPublisher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert (result.is_error, result.error_code) == (True, "failed")
    assert type(error).__name__ in result.text
    assert "secret" not in result.text
    assert "tool 'fail' failed (call 'c')" in caplog.text
    assert "secret" in caplog.text
    assert one_result(told) == result


@pytest.mark.parametrize("code", [None, "no_such_city"])
async def test_a_tool_error_reaches_the_model_word_for_word(
    code: str | None, tools: ToolManager, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ToolError("No such city.", **({"code": code} if code else {}))

    result = await run(tools, fail)
    assert (result.content, result.error_code) == ("No such city.", code or "tool_error")
    assert caplog.text == ""


async def test_a_validator_that_breaks_is_contained(tools: ToolManager) -> None:
    ran: list[str] = []

    class Broken(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def check(cls, name: str) -> str:
            if name == "refused":
                raise ValueError("no such name")
            raise ZeroDivisionError("secret")

    def take(broken: Any) -> None:
        ran.append("ran")

    take.__annotations__["broken"] = Broken
    tools.register_tool(take)
    result = await tools.execute_tool_call(called(take, '{"broken": {"name": "x"}}'))
    assert (result.error_code, "secret" in result.text) == ("failed", False)
    result = await tools.execute_tool_call(called(take, '{"broken": {"name": "refused"}}'))
    assert result.error_code == "invalid_arguments"
    assert "broken.name: Value error, no such name" in result.text
    assert ran == []


# -- Limits


@pytest.mark.parametrize("timeout", [None, 0.01])
async def test_an_async_tool_is_cut_off_at_its_limit(
    timeout: float | None, told: RecordingPublisher
) -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    settings = ToolSettings(timeout=0.01 if timeout is None else 30)
    tools = ToolManager("s", publisher=told, settings=settings)
    result = await run(tools, hang, timeout=timeout)
    assert (result.error_code, "0.01 s" in result.text) == ("timeout", True)
    assert cancelled.is_set()
    assert tools.abandoned == 0
    assert one_result(told) == result


async def test_no_limit_is_a_limit_too(tools: ToolManager) -> None:
    async def quick() -> str:
        await asyncio.sleep(0)
        return "done"

    def quick_too() -> str:
        return "done"

    assert (await run(tools, quick, timeout=math.inf)).content == "done"
    assert (await run(tools, quick_too, timeout=math.inf)).content == "done"


async def test_an_async_tool_that_ignores_its_end_is_left_behind_and_counted(
    told: RecordingPublisher,
) -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    settings = ToolSettings(timeout=0.01, cancel_grace=0.01, abandoned_threads=1)
    tools = ToolManager("s", publisher=told, settings=settings)
    assert (await run(tools, stubborn)).error_code == "timeout"
    assert tools.abandoned == 1
    assert (await tools.execute_tool_call(called(stubborn))).error_code == "busy"
    release.set()
    await until(lambda: tools.abandoned == 0)


async def test_a_hanging_thread_is_abandoned_counted_and_replaced(hold: Hold) -> None:
    def quick() -> str:
        return "quick"

    settings = ToolSettings(threads=1, abandoned_threads=2)
    async with ToolManager("s", settings=settings) as tools:
        tools.register_tool(quick)
        tools.register_tool(hold, timeout=0.5)  # long enough to begin
        result = await tools.execute_tool_call(called("Hold"))
        assert (result.error_code, tools.abandoned) == ("timeout", 1)
        assert (await tools.execute_tool_call(called(quick))).content == "quick"
        other = tools.for_session("other")
        assert (await other.execute_tool_call(called("Hold"))).error_code == "timeout"
        for each in (tools, other):
            result = await each.execute_tool_call(called(quick))
            assert (result.is_error, result.error_code) == (True, "busy")
        hold.release.set()
        await until(lambda: tools.abandoned == 0)
        assert (await tools.execute_tool_call(called(quick))).content == "quick"
    assert hold.ran == 2


async def test_calls_at_once_are_limited_for_each_session() -> None:
    running: list[int] = []
    most: list[int] = []
    full = asyncio.Event()
    release = asyncio.Event()

    async def work() -> None:
        running.append(1)
        most.append(len(running))
        if len(running) == 4:
            full.set()
        await release.wait()
        running.pop()

    tools = ToolManager("a", settings=ToolSettings(concurrency=2))
    tools.register_tool(work)
    other = tools.for_session("b")
    calls = [called(work, id=str(number)) for number in range(5)]
    both = asyncio.gather(tools.execute_tool_calls(calls), other.execute_tool_calls(calls))
    async with asyncio.timeout(10):
        await full.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(running) == 4
    release.set()
    results = await both
    assert not any(each.is_error for part in results for each in part)
    assert max(most) == 4


async def test_a_tool_that_calls_tools_waits_for_no_place() -> None:
    tools = ToolManager("s", settings=ToolSettings(concurrency=1, timeout=10))

    def inner() -> str:
        return "inner"

    async def outer() -> str:
        return (await tools.execute_tool_call(called(inner))).text

    tools.register_tool(inner)
    assert (await run(tools, outer)).content == "inner"


async def test_an_awaitable_of_a_plain_tool_shares_its_limit(tools: ToolManager) -> None:
    def begin() -> Awaitable[None]:
        return asyncio.sleep(60)

    assert (await run(tools, begin, timeout=0.05)).error_code == "timeout"


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_tools_own_limits_and_groups_are_its_own_business(tools: ToolManager) -> None:
    async def limited() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "own limit"
        return "never"

    async def break_down() -> None:
        await asyncio.sleep(0)
        raise ValueError("secret")

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(break_down())
            await asyncio.Event().wait()

    assert (await run(tools, limited)).content == "own limit"
    assert (await run(tools, grouped)).error_code == "failed"
    assert cancelling() == 0


async def test_a_limit_leaves_no_trace_in_the_callers_task(tools: ToolManager) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def swallow() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert (await run(tools, hang, timeout=0.01)).error_code == "timeout"
    assert (await run(tools, swallow, timeout=0.01)).error_code == "timeout"
    assert cancelling() == 0
    await asyncio.sleep(0)


async def own_limit(release: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await ignore(release)


async def own_group(release: asyncio.Event) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise ValueError

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await ignore(release)


async def ignore(release: asyncio.Event) -> None:
    while not release.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()


@pytest.mark.parametrize("inner", [own_limit, own_group])
async def test_a_tool_that_is_left_behind_never_reaches_its_caller(
    inner: Callable[[asyncio.Event], Awaitable[None]], told: RecordingPublisher
) -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        await inner(release)

    settings = ToolSettings(timeout=0.01, cancel_grace=0.01)
    tools = ToolManager("s", publisher=told, settings=settings)
    assert (await run(tools, stubborn)).error_code == "timeout"
    assert tools.abandoned == 1
    await asyncio.sleep(0.1)  # longer than the limit inside: what it cancels is itself
    assert cancelling() == 0
    release.set()
    await until(lambda: tools.abandoned == 0)


@pytest.mark.parametrize("timeout", [None, math.inf])
async def test_a_cancellation_that_the_caller_has_got_over_is_not_its_next(
    timeout: float | None, tools: ToolManager
) -> None:
    async def quick() -> str:
        await asyncio.sleep(0)
        return "done"

    async def go_on() -> ToolResult:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await run(tools, quick, timeout=timeout)

    task = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    task.cancel()
    assert (await task).content == "done"


async def test_what_a_tool_leaves_behind_waits_for_places_again() -> None:
    running: list[int] = []
    most: list[int] = []
    left: list[asyncio.Task[list[ToolResult]]] = []

    async def work() -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0)
        running.pop()

    async def later() -> list[ToolResult]:
        await ended.wait()
        return await tools.execute_tool_calls([called(work, id=str(each)) for each in range(9)])

    async def leave() -> None:
        left.append(asyncio.create_task(later()))

    ended = asyncio.Event()
    tools = ToolManager("s", settings=ToolSettings(concurrency=2))
    tools.register_tool(work)
    assert not (await run(tools, leave)).is_error
    ended.set()
    assert not any(each.is_error for each in await left[0])
    assert max(most) == 2


async def test_a_plain_tool_that_got_no_thread_was_not_run(hold: Hold) -> None:
    ran: list[str] = []

    def quick() -> None:
        ran.append("ran")

    async with ToolManager("s", settings=ToolSettings(threads=1)) as tools:
        tools.register_tool(hold)
        holding = asyncio.create_task(tools.execute_tool_call(called("Hold")))
        await hold.started.get()
        result = await run(tools, quick, timeout=0.01)
        assert (result.error_code, "was not run" in result.text) == ("busy", True)
        hold.release.set()
        assert (await holding).content == "released"
    assert ran == []


# -- Cancellation


async def test_a_tool_can_t_keep_its_caller_from_being_cancelled(
    tools: ToolManager, told: RecordingPublisher
) -> None:
    started = asyncio.Event()

    async def swallow() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"
        return "never"

    task = asyncio.create_task(run(tools, swallow))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one_result(told).error_code == "cancelled"


@pytest.mark.parametrize("plain", [False, True])
async def test_the_callers_cancellation_passes_and_is_told(
    plain: bool, hold: Hold, tools: ToolManager, told: RecordingPublisher
) -> None:
    async def there() -> None:
        await hold.started.put(None)
        await asyncio.Event().wait()

    func = hold if plain else there
    tools.register_tool(func)
    task = asyncio.create_task(tools.execute_tool_call(called(func)))
    await hold.started.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    result = one_result(told)
    assert (result.is_error, result.error_code) == (True, "cancelled")
    assert tools.abandoned == plain


async def test_a_cancellation_while_telling_loses_no_event() -> None:
    class Slow(RecordingPublisher):
        async def publish(self, event: Event) -> None:
            if isinstance(event, ToolExecuteResultEvent):
                asking.set()
                await release.wait()
            await super().publish(event)

    asking, release, told = asyncio.Event(), asyncio.Event(), Slow()

    async def quick() -> None: ...

    tools = ToolManager("s", publisher=told)
    task = asyncio.create_task(run(tools, quick))
    await asking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await until(lambda: len(told.events) == 2)
    assert not one_result(told).is_error


async def test_cancelling_several_calls_ends_each_with_its_event(
    tools: ToolManager, told: RecordingPublisher
) -> None:
    started: list[asyncio.Event] = [asyncio.Event() for _ in range(3)]

    async def hang(number: int) -> None:
        started[number].set()
        await asyncio.Event().wait()

    tools.register_tool(hang)
    calls = [called(hang, f'{{"number": {number}}}', id=str(number)) for number in range(3)]
    task = asyncio.create_task(tools.execute_tool_calls(calls))
    await asyncio.gather(*(each.wait() for each in started))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    results = [event.result for event in told.of(ToolExecuteResultEvent)]
    assert sorted(each.tool_call_id for each in results) == ["0", "1", "2"]
    assert {each.error_code for each in results} == {"cancelled"}


# -- Around it


@pytest.mark.parametrize("publisher", [RecordingPublisher(RuntimeError("full")), None])
async def test_a_call_does_not_depend_on_being_told(publisher: Publisher | None) -> None:
    async def quick() -> str:
        return "done"

    assert (await run(ToolManager("s", publisher=publisher), quick)).content == "done"


async def test_threads_end_with_the_manager() -> None:
    def idle() -> None: ...

    def ours() -> set[threading.Thread]:
        named = {each for each in threading.enumerate() if each.name == "llmgine-tool"}
        return named - others

    others = set[threading.Thread]()
    others = ours()
    async with ToolManager() as tools:
        await run(tools, idle)
        assert len(ours()) == 1
    await until(lambda: not ours())


def test_a_manager_serves_one_loop_after_another() -> None:
    tools = ToolManager()

    def plain() -> str:
        return "done"

    async def once() -> ToolResult:
        async with tools:
            return (await tools.execute_tool_calls([called(plain)] * 20))[-1]

    tools.register_tool(plain)
    assert [asyncio.run(once()).content for _ in range(3)] == ["done"] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": -1},
        {"concurrency": 0},
        {"threads": 0},
        {"max_depth": 0},
        {"max_result_bytes": 10},
        {"max_argument_bytes": 0},
        {"abandoned_threads": 0},
        {"approval_timeout": math.nan},
    ],
)
def test_settings_that_can_t_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        ToolSettings(**settings)


async def test_a_partial_of_an_async_function_runs_on_the_loop(tools: ToolManager) -> None:
    async def where(number: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    tools.register_tool(functools.partial(where, number=1))
    assert (await tools.execute_tool_call(called(where))).content == "true"


async def test_nothing_is_logged_of_a_call_that_goes_well(
    tools: ToolManager, caplog: pytest.LogCaptureFixture
) -> None:
    async def quick() -> None: ...

    caplog.set_level(logging.DEBUG, "llmgine")
    await run(tools, quick)
    assert caplog.text == ""


# -- What a user's own models take


class Spot(BaseModel):
    x: float = 0.0
    size: int = 5
    label: str = ""


@pytest.mark.parametrize("number", ["NaN", "-Infinity", " inf ", "N\\u0061N"])
async def test_a_number_that_is_not_finite_reaches_no_tool(number: str) -> None:
    reached: list[str] = []

    def draw(first: Spot, rest: list[Spot]) -> None:
        reached.append(first.label + str(rest))

    tools = ToolManager()
    tools.register_tool(draw)
    spot = f'{{"x": "{number}"}}'
    for arguments in (f'{{"first": {spot}, "rest": []}}', f'{{"first": {{}}, "rest": [{spot}]}}'):
        result = await tools.execute_tool_call(called(draw, arguments))
        assert result.error_code == "invalid_arguments"
        assert "not finite" in result.text
    assert not reached
    label = f'{{"first": {{"label": "{number}"}}, "rest": []}}'
    assert not (await tools.execute_tool_call(called(draw, label))).is_error
    assert len(reached) == 1


async def test_a_null_inside_a_tuple_stands_for_the_default_of_its_model() -> None:
    sizes: list[int] = []

    def draw(pair: tuple[Spot, int], more: list[Spot] | tuple[Spot, str]) -> None:
        other = more[0]
        assert isinstance(other, Spot)
        sizes.extend([pair[0].size, pair[1], other.size])

    tools = ToolManager()
    tools.register_tool(draw)
    spot = '{"x": 1, "size": null, "label": null}'
    result = await tools.execute_tool_call(
        called(draw, f'{{"pair": [{spot}, 3], "more": [{spot}, "x"]}}')
    )
    assert not result.is_error, result.text
    assert sizes == [5, 3, 5]


async def test_a_plain_tool_that_waits_for_a_thread_never_runs_once_it_is_cancelled() -> None:
    began, release, ran = threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        began.set()
        release.wait(30)

    def act(name: str) -> None:
        ran.append(name)

    async with ToolManager(settings=ToolSettings(threads=1)) as tools:
        tools.register_tool(hold)
        tools.register_tool(act)
        holding = asyncio.create_task(tools.execute_tool_call(called(hold)))
        await asyncio.to_thread(began.wait, 30)
        waiting = asyncio.create_task(tools.execute_tool_call(called(act, '{"name": "late"}')))
        await asyncio.wait((waiting,), timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        await holding
        await tools.execute_tool_call(called(act, '{"name": "next"}'))
    assert ran == ["next"]

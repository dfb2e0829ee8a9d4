"""Calls that wait for a person: asked, answered, expired, cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import (
    Command,
    Event,
    ResolveToolApproval,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolCall,
    ToolExecuteResultEvent,
    ToolExecuteStartedEvent,
    ToolResult,
)
from llmgine.settings import ToolSettings
from llmgine.testing.fixtures import run_in_virtual_time
from llmgine.testing.recording import RecordingPublisher
from llmgine.tools import ToolManager

ORDER = [
    ToolExecuteStartedEvent,
    ToolApprovalRequestedEvent,
    ToolApprovalResolvedEvent,
    ToolExecuteResultEvent,
]


class Person(RecordingPublisher):
    """Hears of events, and can wait for a question."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: asyncio.Queue[ToolApprovalRequestedEvent] = asyncio.Queue()

    async def publish(self, event: Event) -> None:
        await super().publish(event)
        if isinstance(event, ToolApprovalRequestedEvent):
            self.asked.put_nowait(event)


class Deleter:
    def __init__(self, **settings: Any) -> None:
        self.person = Person()
        self.deleted: list[str] = []
        self.tools = ToolManager("s", publisher=self.person, settings=ToolSettings(**settings))

    def register(self, needs_approval: bool | Callable[[ToolCall], bool] = True) -> None:
        async def delete(name: str) -> str:
            self.deleted.append(name)
            return "deleted"

        self.tools.register_tool(delete, needs_approval=needs_approval)

    def call(
        self,
        call_id: str = "c",
        name: str = "a",
        tools: ToolManager | None = None,
    ) -> asyncio.Task[ToolResult]:
        call = ToolCall(id=call_id, name="delete", arguments=f'{{"name": "{name}"}}')
        return asyncio.create_task((tools or self.tools).execute_tool_call(call))

    def resolved(self) -> ToolApprovalResolvedEvent:
        assert [type(event) for event in self.person.events] == ORDER
        return self.person.of(ToolApprovalResolvedEvent)[0]


@pytest.fixture
def deleter() -> Deleter:
    made = Deleter()
    made.register()
    return made


async def test_an_approved_call_runs(deleter: Deleter) -> None:
    task = deleter.call()
    event = await deleter.person.asked.get()
    assert (event.session_id, event.call.id) == ("s", "c")
    assert 590 < event.expires_at - time.time() <= 600
    assert deleter.deleted == []
    assert deleter.tools.approve("c")
    assert not deleter.tools.approve("c")
    assert not deleter.tools.deny("c")
    assert (await task).content == "deleted"
    assert deleter.resolved().approved
    assert deleter.deleted == ["a"]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("", "The user denied the call, and it was not run."),
        ("not today", "The user denied the call, and it was not run: not today"),
    ],
)
async def test_a_denied_call_does_not_run_and_says_why(
    deleter: Deleter, reason: str, text: str
) -> None:
    task = deleter.call()
    await deleter.person.asked.get()
    assert deleter.tools.deny("c", reason)
    result = await task
    assert (result.is_error, result.error_code, result.content) == (True, "denied", text)
    event = deleter.resolved()
    assert (event.approved, event.reason, event.session_id) == (False, reason, "s")
    assert deleter.deleted == []


async def test_a_call_that_nobody_answers_expires() -> None:
    deleter = Deleter(approval_timeout=0.01)
    deleter.register()
    result = await deleter.call()
    assert (result.is_error, result.error_code) == (True, "expired")
    assert not deleter.resolved().approved
    assert deleter.deleted == []
    assert not deleter.tools.approve("c")


async def test_a_call_that_is_cancelled_while_it_waits(deleter: Deleter) -> None:
    task = deleter.call()
    await deleter.person.asked.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not deleter.resolved().approved
    (event,) = deleter.person.of(ToolExecuteResultEvent)
    assert event.result.error_code == "cancelled"
    assert not deleter.tools.approve("c")
    assert deleter.deleted == []


async def test_nobody_is_asked_about_arguments_that_don_t_fit(deleter: Deleter) -> None:
    call = ToolCall(id="c", name="delete", arguments='{"nam": "a"}')
    result = await deleter.tools.execute_tool_call(call)
    assert result.error_code == "invalid_arguments"
    assert not deleter.person.of(ToolApprovalRequestedEvent)


async def test_a_function_decides_from_the_call_whether_to_ask() -> None:
    deleter = Deleter()
    deleter.register(lambda call: "important" in call.arguments)
    assert (await deleter.call(name="a")).content == "deleted"
    task = deleter.call(name="important")
    await deleter.person.asked.get()
    deleter.tools.deny("c")
    assert (await task).error_code == "denied"
    assert deleter.deleted == ["a"]


@pytest.mark.parametrize("error", [KeyError, SystemExit])
async def test_a_function_that_can_t_decide_means_asking(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: ToolCall) -> bool:
        raise error(call.id)

    deleter = Deleter()
    deleter.register(broken)
    task = deleter.call()
    await deleter.person.asked.get()
    assert "needs_approval of tool 'delete' failed" in caplog.text
    deleter.tools.deny("c")
    assert (await task).error_code == "denied"


async def test_calls_of_two_sessions_with_one_id_are_told_apart(deleter: Deleter) -> None:
    other = deleter.tools.for_session("other")
    mine, theirs = deleter.call(name="mine"), deleter.call(name="theirs", tools=other)
    await deleter.person.asked.get()
    await deleter.person.asked.get()
    everybody = deleter.tools.for_session("third")
    assert not everybody.approve("c")
    everybody.session_id = None
    assert not everybody.approve("c")  # which of the two?
    assert other.approve("c")
    assert deleter.tools.deny("c")
    assert [(await each).is_error for each in (mine, theirs)] == [True, False]
    assert deleter.deleted == ["theirs"]


async def test_without_a_session_the_only_call_of_that_id_is_meant(deleter: Deleter) -> None:
    task = deleter.call()
    await deleter.person.asked.get()
    assert deleter.tools.resolve_approval(
        ResolveToolApproval(session_id=None, call_id="c", approved=True)
    )
    assert (await task).content == "deleted"


async def test_an_id_waits_once(deleter: Deleter) -> None:
    first = deleter.call(name="first")
    await deleter.person.asked.get()
    result = await deleter.call(name="second")
    assert (result.is_error, result.error_code) == (True, "duplicate_call")
    deleter.tools.approve("c")
    assert (await first).content == "deleted"
    assert deleter.deleted == ["first"]


async def test_an_answer_may_come_from_another_thread(deleter: Deleter) -> None:
    task = deleter.call()
    await deleter.person.asked.get()
    assert await asyncio.to_thread(deleter.tools.approve, "c")
    assert (await task).content == "deleted"


async def test_an_answer_may_come_with_the_question() -> None:
    class Eager(Person):
        async def publish(self, event: Event) -> None:
            if isinstance(event, ToolApprovalRequestedEvent):
                assert deleter.tools.approve(event.call.id)

    deleter = Deleter()
    deleter.tools = ToolManager("s", publisher=Eager())
    deleter.register()
    assert (await deleter.call()).content == "deleted"


async def test_a_waiting_call_takes_no_place() -> None:
    deleter = Deleter(concurrency=1)
    deleter.register()

    async def quick() -> str:
        return "quick"

    deleter.tools.register_tool(quick)
    waiting = [deleter.call(str(number)) for number in range(3)]
    for _ in waiting:
        await deleter.person.asked.get()
    call = ToolCall(id="q", name="quick")
    assert (await deleter.tools.execute_tool_call(call)).content == "quick"
    for number in range(3):
        assert deleter.tools.approve(str(number))
    assert [(await each).content for each in waiting] == ["deleted"] * 3


@dataclass(frozen=True, kw_only=True)
class Turn(Command[str]):
    pass


async def test_no_limit_of_the_bus_runs_while_a_call_waits(bus: MessageBus) -> None:
    deleter = Deleter()
    deleter.register()
    limit = 0.3

    async def turn(command: Turn) -> str:
        return (await deleter.call()).text

    bus.register_command_handler(Turn, turn, timeout=limit)
    task = asyncio.create_task(bus.execute(Turn()))
    await deleter.person.asked.get()
    await asyncio.wait((task,), timeout=2 * limit)
    assert not task.done()
    deleter.tools.approve("c")
    assert await task == "deleted"


async def test_the_tools_own_limit_starts_after_the_answer() -> None:
    deleter = Deleter(timeout=0.05)
    deleter.register()
    task = deleter.call()
    await deleter.person.asked.get()
    await asyncio.wait((task,), timeout=0.2)
    deleter.tools.approve("c")
    assert (await task).content == "deleted"


@pytest.mark.parametrize("busy", [0, 2])
def test_a_tool_whose_call_waits_keeps_the_time_it_had(busy: int) -> None:
    """Its limit is a second; a person takes an hour, twice; then it is busy for a while."""

    async def scenario() -> None:
        deleter = Deleter(timeout=1, approval_timeout=7200)
        deleter.register()

        async def clean_up() -> str:
            await asyncio.sleep(0.4)
            await asyncio.gather(*(deleter.call(each) for each in "ab"))
            await asyncio.sleep(0.4 + busy)
            return "clean"

        deleter.tools.register_tool(clean_up)
        call = ToolCall(id="outer", name="clean_up")
        task = asyncio.create_task(deleter.tools.execute_tool_call(call))
        for each in "ab":
            await asyncio.sleep(3600)
            deleter.tools.approve(each)
        result = await task
        assert deleter.deleted == ["a", "a"]
        assert result.content == "clean" if not busy else result.error_code == "timeout"

    run_in_virtual_time(scenario())


def test_the_limits_of_calls_beside_the_one_that_waits_run_on() -> None:
    async def scenario() -> None:
        deleter = Deleter(approval_timeout=7200)
        deleter.register()
        loop, took = asyncio.get_running_loop(), list[float]()

        async def hang() -> None:
            try:
                await loop.create_future()
            finally:
                took.append(loop.time())

        async def both() -> str:
            hanging = ToolCall(id="h", name="hang")
            await asyncio.gather(deleter.call(), deleter.tools.execute_tool_call(hanging))
            return "both"

        deleter.tools.register_tool(hang, timeout=2)
        deleter.tools.register_tool(both, timeout=1)
        result = await deleter.tools.execute_tool_call(ToolCall(id="outer", name="both"))
        assert (result.content, took) == ("both", [pytest.approx(2, abs=0.5)])

    run_in_virtual_time(scenario())


def test_a_call_that_a_tool_has_left_in_the_background_keeps_its_time_too() -> None:
    async def scenario() -> None:
        deleter = Deleter(timeout=1, approval_timeout=7200)
        deleter.register()
        left: list[asyncio.Task[ToolResult]] = []

        async def clean_up() -> str:
            return (await deleter.call()).text

        async def begin() -> str:
            call = ToolCall(id="inner", name="clean_up")
            left.append(asyncio.create_task(deleter.tools.execute_tool_call(call)))
            return "begun"

        deleter.tools.register_tool(clean_up)
        deleter.tools.register_tool(begin)
        begun = await deleter.tools.execute_tool_call(ToolCall(id="outer", name="begin"))
        assert begun.content == "begun"
        await asyncio.sleep(3600)
        assert deleter.tools.approve("c")
        assert (await left[0]).content == "deleted"

    run_in_virtual_time(scenario())


def test_whoever_doesn_t_wait_any_more_has_no_time_to_spare() -> None:
    """The inner tool asks in the background and returns; the outer one hangs."""

    async def scenario() -> None:
        deleter = Deleter(approval_timeout=7200)
        deleter.register()
        loop, left = asyncio.get_running_loop(), list[asyncio.Task[ToolResult]]()

        async def inner() -> str:
            left.append(deleter.call())
            await asyncio.sleep(0.1)
            return "begun"

        async def outer() -> None:
            await deleter.tools.execute_tool_call(ToolCall(id="inner", name="inner"))
            await loop.create_future()

        deleter.tools.register_tool(inner, timeout=1)
        deleter.tools.register_tool(outer, timeout=2)
        result = await deleter.tools.execute_tool_call(ToolCall(id="outer", name="outer"))
        assert result.error_code == "timeout"
        assert loop.time() == pytest.approx(2.1, abs=0.5)
        assert deleter.tools.approve("c")
        assert (await left[0]).content == "deleted"

    run_in_virtual_time(scenario())


async def test_who_waits_on_another_thread_s_loop_is_no_reason_to_wait() -> None:
    """A tool asks from a loop of its own; the tool that called it is given up at its limit."""
    asyncio.get_running_loop().set_debug(True)
    asked, over = threading.Event(), threading.Event()

    class Elsewhere(RecordingPublisher):
        async def publish(self, event: Event) -> None:
            await super().publish(event)
            if isinstance(event, ToolApprovalRequestedEvent):
                asked.set()

    def delegate() -> str:
        deleter = Deleter()
        deleter.tools = ToolManager("s", publisher=Elsewhere())
        deleter.register()

        async def wait() -> str:
            call = deleter.call()
            await asyncio.to_thread(over.wait, 30)
            deleter.tools.approve("c")
            return (await call).text

        return asyncio.run(wait())

    tools = ToolManager("s", settings=ToolSettings(timeout=0.3))
    tools.register_tool(delegate, timeout=30)

    async def outer() -> str:
        return (await tools.execute_tool_call(ToolCall(id="d", name="delegate"))).text

    tools.register_tool(outer)
    result = await tools.execute_tool_call(ToolCall(id="o", name="outer"))
    assert asked.is_set()
    over.set()
    assert result.error_code == "timeout"

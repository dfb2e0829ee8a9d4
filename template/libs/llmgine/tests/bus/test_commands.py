"""Commands: one handler, awaited directly in the caller's task, between two events."""

from __future__ import annotations

import asyncio
import gc
import traceback
from contextvars import ContextVar
from dataclasses import dataclass

import pytest
from llmgine.bus import MessageBus
from llmgine.bus.frames import Frame
from llmgine.contracts import Command, CommandResultEvent, CommandStartedEvent, Event
from llmgine.errors import DuplicateHandlerError, NoHandlerError
from llmgine.settings import BusSettings

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class AskLoudly(Ask):
    pass


@dataclass(frozen=True, kw_only=True)
class Countdown(Command[int]):
    left: int


@dataclass(frozen=True, kw_only=True)
class Tick(Event):
    pass


class Listener:
    """Keeps the lifecycle events that it hears."""

    def __init__(self, bus: MessageBus) -> None:
        self.started: list[CommandStartedEvent] = []
        self.results: list[CommandResultEvent] = []
        bus.register_event_handler(CommandStartedEvent, self.started.append, inline=True)
        bus.register_event_handler(CommandResultEvent, self.results.append, inline=True)


async def echo(command: Ask) -> str:
    return command.text


async def hang(command: Ask) -> str:
    await asyncio.Event().wait()
    return ""


async def test_execute_returns_the_handlers_value(bus: MessageBus) -> None:
    bus.register_command_handler(Ask, echo)
    assert await bus.execute(Ask(text="hello")) == "hello"


async def test_a_second_handler_of_a_type_in_a_scope_is_refused(bus: MessageBus) -> None:
    bus.register_command_handler(Ask, echo)
    with pytest.raises(
        DuplicateHandlerError, match=r"Ask already has a handler on the bus: .*echo"
    ):
        bus.register_command_handler(Ask, hang)
    bus.register_command_handler(Ask, echo, session_id="s")
    with pytest.raises(DuplicateHandlerError, match="in session 's'"):
        bus.register_command_handler(Ask, hang, session_id="s")
    assert await bus.execute(Ask(text="still the first")) == "still the first"


async def test_a_cancelled_registration_makes_room_for_another(bus: MessageBus) -> None:
    registration = bus.register_command_handler(Ask, hang)
    registration.cancel()
    registration.cancel()
    bus.register_command_handler(Ask, echo)
    assert await bus.execute(Ask(text="second")) == "second"


async def test_a_handler_answers_the_exact_type_only(bus: MessageBus) -> None:
    bus.register_command_handler(Ask, echo)
    with pytest.raises(NoHandlerError):
        await bus.execute(AskLoudly(text="hello"))


async def test_a_sessions_handler_shadows_the_buss(bus: MessageBus) -> None:
    async def own(command: Ask) -> str:
        return "own"

    bus.register_command_handler(Ask, echo)
    async with bus.session("s") as session:
        assert await session.execute(Ask(text="bus")) == "bus"
        session.register_command_handler(Ask, own)
        assert await session.execute(Ask(text="bus")) == "own"
        assert await bus.execute(Ask(text="bus", session_id="other")) == "bus"
    assert await bus.execute(Ask(text="bus", session_id="s")) == "bus"


async def test_no_handler_is_an_error_at_once_counted_and_without_events(bus: MessageBus) -> None:
    heard = Listener(bus)
    seen: list[Event] = []
    bus.add_observer(seen.append)
    with pytest.raises(NoHandlerError, match="no handler for Ask on the bus"):
        await bus.execute(Ask())
    with pytest.raises(NoHandlerError, match="no handler for Ask in session 's' or on the bus"):
        await bus.execute(Ask(session_id="s"))
    await bus.join()
    stats = bus.stats()
    assert (stats.commands_unhandled, stats.commands) == (2, 0)
    assert (heard.started, heard.results, seen) == ([], [], [])


async def test_the_handler_runs_in_the_callers_task_and_context(bus: MessageBus) -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def handler(command: Ask) -> str:
        tasks.append(asyncio.current_task())
        before = request_id.get()
        await asyncio.sleep(0)
        request_id.set("set by the handler")
        return before

    bus.register_command_handler(Ask, handler)
    request_id.set("caller's")
    assert await bus.execute(Ask()) == "caller's"
    assert request_id.get() == "set by the handler"
    assert tasks == [asyncio.current_task()]


async def test_the_handlers_own_exception_comes_back_with_its_traceback(bus: MessageBus) -> None:
    error = ValueError("from the handler")

    async def failing_handler(command: Ask) -> str:
        await asyncio.sleep(0)
        raise error

    bus.register_command_handler(Ask, failing_handler)
    with pytest.raises(ValueError, match="from the handler") as caught:
        await bus.execute(Ask())
    assert caught.value is error
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[0] == "test_the_handlers_own_exception_comes_back_with_its_traceback"
    assert frames[-1] == "failing_handler"
    assert bus.stats().commands_failed == 1


async def test_a_plain_function_runs_in_a_thread_with_the_callers_context(bus: MessageBus) -> None:
    def blocking(command: Ask) -> str:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return request_id.get()

    bus.register_command_handler(Ask, blocking)
    request_id.set("of the caller")
    assert await bus.execute(Ask()) == "of the caller"


async def test_an_inline_function_runs_on_the_loop(bus: MessageBus) -> None:
    def quick(command: Ask) -> str:
        assert asyncio.get_running_loop()
        return command.text

    bus.register_command_handler(Ask, quick, inline=True)
    assert await bus.execute(Ask(text="quick")) == "quick"


@pytest.mark.parametrize("suspends", [False, True])
async def test_commands_nest_at_any_depth(bus: MessageBus, *, suspends: bool) -> None:
    parents: list[tuple[str | None, str]] = []

    async def count(command: Countdown) -> int:
        parents.append((command.parent_id, command.id))
        if suspends:
            await asyncio.sleep(0)
        return 0 if command.left == 0 else 1 + await bus.execute(Countdown(left=command.left - 1))

    bus.register_command_handler(Countdown, count)
    assert await bus.execute(Countdown(left=60)) == 60
    ids = [own for _, own in parents]
    assert [parent for parent, _ in parents] == [None, *ids[:-1]]


async def test_an_event_handler_may_execute_commands(bus: MessageBus) -> None:
    answers: list[str] = []

    async def on_tick(event: Tick) -> None:
        answers.append(await bus.execute(Ask(text="from an event")))

    bus.register_command_handler(Ask, echo)
    bus.register_event_handler(Tick, on_tick)
    await bus.publish_and_wait(Tick())
    assert answers == ["from an event"]


async def test_listeners_get_one_started_and_one_result_event(bus: MessageBus) -> None:
    heard = Listener(bus)
    bus.register_command_handler(Ask, echo)
    command = Ask(text="hello", session_id="s")
    await bus.execute(command)
    await bus.join()
    (started,), (ended,) = heard.started, heard.results
    assert started.command is ended.command is command
    assert (started.session_id, started.parent_id) == ("s", command.id)
    assert (ended.session_id, ended.parent_id) == ("s", command.id)
    assert (ended.result.status, ended.result.value, ended.result.error) == ("ok", "hello", None)
    assert ended.result.duration >= 0


async def test_a_failed_command_gives_one_result_event_with_the_error(bus: MessageBus) -> None:
    heard = Listener(bus)
    error = KeyError("missing")

    async def failing(command: Ask) -> str:
        raise error

    bus.register_command_handler(Ask, failing)
    with pytest.raises(KeyError):
        await bus.execute(Ask())
    await bus.join()
    assert [(e.result.status, e.result.error) for e in heard.results] == [("error", error)]
    assert len(heard.started) == 1


@pytest.mark.parametrize("listening", [False, True])
async def test_cancelling_the_caller_cancels_the_handler(
    bus: MessageBus, *, listening: bool
) -> None:
    heard = Listener(bus) if listening else None
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def handler(command: Ask) -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()
        return ""

    bus.register_command_handler(Ask, handler)
    caller = asyncio.create_task(bus.execute(Ask()))
    await entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert caller.cancelled()
    assert cleaned.is_set()
    await bus.join()
    if heard is not None:
        assert len(heard.started) == 1
        assert [event.result.status for event in heard.results] == ["cancelled"]


async def test_a_callers_own_timeout_counts_as_its_cancellation(bus: MessageBus) -> None:
    heard = Listener(bus)
    bus.register_command_handler(Ask, hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await bus.execute(Ask())
    await bus.join()
    assert [event.result.status for event in heard.results] == ["cancelled"]


async def test_a_handler_that_raises_cancellederror_itself_is_an_error(bus: MessageBus) -> None:
    heard = Listener(bus)

    async def broken(command: Ask) -> str:
        raise asyncio.CancelledError

    bus.register_command_handler(Ask, broken)
    with pytest.raises(asyncio.CancelledError):
        await bus.execute(Ask())
    await bus.join()
    assert [event.result.status for event in heard.results] == ["error"]


@pytest.mark.parametrize("suspended", [False, True])
async def test_closing_the_coroutine_gives_exactly_one_result_event(
    bus: MessageBus, *, suspended: bool
) -> None:
    heard = Listener(bus)
    bus.register_command_handler(Ask, hang)
    running = bus.execute(Ask())
    if suspended:
        running.send(None)
    running.close()
    await bus.join()
    assert len(heard.started) == len(heard.results) == int(suspended)
    assert all(event.result.status == "cancelled" for event in heard.results)
    assert bus.stats().commands_in_flight == 0


async def test_listeners_present_at_the_start_get_both_events(bus: MessageBus) -> None:
    early: list[Event] = []
    late: list[Event] = []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(command: Ask) -> str:
        entered.set()
        await leave.wait()
        return ""

    async def later(event: CommandResultEvent) -> None:
        late.append(event)

    bus.register_event_handler(CommandResultEvent, early.append, inline=True)
    bus.register_command_handler(Ask, handler)
    running = asyncio.create_task(bus.execute(Ask()))
    await entered.wait()
    bus.register_event_handler(CommandResultEvent, later)
    leave.set()
    await running
    await bus.join()
    assert len(early) == 1
    assert late == []


async def test_a_sessions_listener_hears_its_sessions_commands_only(bus: MessageBus) -> None:
    heard: list[CommandResultEvent] = []
    bus.register_command_handler(Ask, echo)
    async with bus.session("mine") as session:
        session.register_event_handler(CommandResultEvent, heard.append, inline=True)
        await bus.execute(Ask(text="not mine", session_id="other"))
        await session.execute(Ask(text="mine"))
    assert [event.result.value for event in heard] == ["mine"]


async def test_execute_waits_for_room_in_a_full_queue_before_it_starts() -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def slow(event: Event) -> None:
        entered.set()
        await release.wait()

    async def handler(command: Ask) -> str:
        calls.append(command.text)
        return command.text

    async with MessageBus.isolated(BusSettings(queue_size=2)) as bus:
        bus.register_event_handler(Tick, slow)
        bus.register_event_handler(CommandResultEvent, slow)
        bus.register_command_handler(Ask, handler)
        await bus.publish(Tick())
        await entered.wait()
        for _ in range(2):
            await bus.publish(Tick())
        running = asyncio.create_task(bus.execute(Ask(text="waits")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert calls == []
        release.set()
        assert await running == "waits"


async def test_execute_of_one_id_does_not_wait_for_anothers_full_queue() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(event: Tick) -> None:
        entered.set()
        await release.wait()

    async with MessageBus.isolated(BusSettings(queue_size=1)) as bus:
        Listener(bus)
        bus.register_event_handler(Tick, slow)
        bus.register_command_handler(Ask, echo)
        await bus.publish(Tick())
        await entered.wait()
        await bus.publish(Tick())
        async with asyncio.timeout(30):
            assert await bus.execute(Ask(text="free", session_id="s")) == "free"
        release.set()


async def test_lifecycle_events_are_exempt_from_the_bound() -> None:
    results: list[object] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def on_tick(event: Tick) -> None:
        entered.set()
        await release.wait()
        for number in range(20):
            await bus.execute(Ask(text=str(number)))

    def on_result(event: CommandResultEvent) -> None:
        results.append(event.result.value)

    async with MessageBus.isolated(BusSettings(queue_size=1)) as bus:
        bus.register_event_handler(Tick, on_tick)
        bus.register_event_handler(CommandResultEvent, on_result, inline=True)
        bus.register_command_handler(Ask, echo)
        await bus.publish(Tick())
        await entered.wait()
        release.set()
        await bus.join()
        assert results == [str(number) for number in range(20)]


async def test_nobody_listening_means_no_events(bus: MessageBus) -> None:
    bus.register_command_handler(Ask, echo)
    await bus.execute(Ask())
    assert (bus.stats().events, bus.stats().commands) == (0, 1)


@dataclass(frozen=True, kw_only=True)
class Relay(Command[None]):
    left: int


async def test_a_chain_of_tasks_that_execute_the_next_command_keeps_nothing() -> None:
    """Each handler leaves a task behind that runs the next: frames that are over must go."""
    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, Frame) for thing in gc.get_objects())

    before = alive()
    counted: list[int] = []
    async with MessageBus.isolated() as bus:

        async def count(command: Relay) -> None:
            await asyncio.sleep(0)
            if command.left:
                tasks[:] = [asyncio.create_task(bus.execute(Relay(left=command.left - 1)))]
                return
            counted.append(alive())
            over.set()

        bus.register_command_handler(Relay, count)
        await bus.execute(Relay(left=200))
        await over.wait()

    assert counted[0] - before < 20

"""Sessions: what is ambient in them, how they begin and end, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass

import pytest
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    Command,
    CommandResultEvent,
    Event,
    EventHandlerFailedEvent,
    SessionEndEvent,
    SessionStartEvent,
    current_parent_id,
    current_session_id,
)
from llmgine.errors import (
    BusNotRunningError,
    InvalidSessionIdError,
    NoHandlerError,
    SessionClosedError,
    SessionMismatchError,
    SessionOpenError,
)
from llmgine.settings import BusSettings


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


async def echo(command: Ask) -> str:
    return command.text


def record(bus: MessageBus) -> list[Event]:
    events: list[Event] = []
    bus.register_event_handler(Event, events.append, inline=True)
    return events


def lanes(bus: MessageBus) -> list[str | None]:
    """Return the ids that the bus keeps anything for; nothing public shows idle ones."""
    return list(vars(bus)["_lanes"])


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


# -- Ambient


async def test_messages_made_in_a_session_belong_to_it(bus: MessageBus) -> None:
    assert Ask().session_id is None
    async with bus.session("s") as session:
        assert session.session_id == current_session_id() == Step().session_id == "s"
        async with bus.session("inner"):
            assert Step().session_id == "inner"
        assert Step().session_id == "s"
    assert current_session_id() is None


async def test_sessions_get_an_id_of_their_own(bus: MessageBus) -> None:
    async with bus.session() as one, bus.session() as other:
        assert one.session_id != other.session_id
        assert len(one.session_id) == 32
        assert one.bus is bus


async def test_handlers_are_in_the_session_and_under_the_message(bus: MessageBus) -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def note(message: Ask | Step) -> str:
        await asyncio.sleep(0)
        seen.append((current_session_id(), current_parent_id()))
        return ""

    def note_in_thread(event: Step) -> None:
        seen.append((current_session_id(), current_parent_id()))

    bus.register_command_handler(Ask, note)
    bus.register_event_handler(Step, note)
    bus.register_event_handler(Step, note_in_thread)
    command, event = Ask(session_id="a"), Step(session_id="b")
    await bus.execute(command)
    await bus.publish_and_wait(event)
    assert seen == [("a", command.id), ("b", event.id), ("b", event.id)]
    assert (current_session_id(), current_parent_id()) == (None, None)


async def test_what_is_ambient_is_restored_after_failures_too(bus: MessageBus) -> None:
    async def fail(command: Ask) -> str:
        await asyncio.sleep(0)
        raise ValueError("boom")

    bus.register_command_handler(Ask, fail)
    with pytest.raises(ValueError, match="boom"):
        await bus.execute(Ask(session_id="s"))
    with pytest.raises(KeyError):
        async with bus.session("s"):
            raise KeyError
    assert (current_session_id(), current_parent_id()) == (None, None)


async def test_a_message_without_a_session_is_sent_as_a_copy(bus: MessageBus) -> None:
    heard: list[Step] = []
    executed: list[Ask] = []

    async def keep(command: Ask) -> str:
        executed.append(command)
        return command.text

    bus.register_event_handler(Step, heard.append, inline=True)
    bus.register_command_handler(Ask, keep)
    event, command = Step(number=5), Ask(text="hello")
    async with bus.session("s") as session:
        await session.publish_and_wait(event)
        await session.publish(event)
        assert await session.execute(command) == "hello"
    copies: list[Ask | Step] = [*heard, *executed]
    for copy, original in zip(copies, [event, event, command], strict=True):
        assert copy is not original
        assert (copy.id, copy.timestamp) == (original.id, original.timestamp)
        assert (copy.session_id, original.session_id) == ("s", None)
    assert heard[0].number == 5


async def test_a_message_of_the_session_itself_is_sent_as_it_is(bus: MessageBus) -> None:
    heard: list[Event] = []
    bus.register_event_handler(Step, heard.append, inline=True)
    async with bus.session("s") as session:
        event = Step()
        await session.publish(event)
    assert heard == [event]


async def test_a_message_of_another_session_is_refused(bus: MessageBus) -> None:
    bus.register_command_handler(Ask, echo)
    async with bus.session("s") as session:
        with pytest.raises(SessionMismatchError, match="Ask belongs to session 'other'"):
            await session.execute(Ask(session_id="other"))
        with pytest.raises(SessionMismatchError):
            await session.publish(Step(session_id="other"))
        with pytest.raises(SessionMismatchError):
            await session.publish_and_wait(Step(session_id="other"))


# -- Opening


async def test_the_start_event_comes_first_and_the_end_event_last(bus: MessageBus) -> None:
    events = record(bus)
    bus.register_command_handler(Ask, echo)
    async with bus.session("s") as session:
        await session.execute(Ask())
        await session.publish(Step())
    assert names(events) == [
        "SessionStartEvent",
        "CommandStartedEvent",
        "CommandResultEvent",
        "Step",
        "SessionEndEvent",
    ]
    assert {event.session_id for event in events} == {"s"}
    assert isinstance(events[-1], SessionEndEvent)
    assert events[-1].error is None


async def test_an_open_id_cannot_be_opened_again(bus: MessageBus) -> None:
    async with bus.session("s"):
        with pytest.raises(SessionOpenError, match="'s' is open already"):
            async with bus.session("s"):
                pass
    async with bus.session("s"):
        assert bus.stats().sessions == 1
    assert bus.stats().sessions == 0


async def test_an_id_that_is_still_closing_cannot_be_opened(bus: MessageBus) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(event: SessionEndEvent) -> None:
        entered.set()
        await release.wait()

    async def closing() -> None:
        async with bus.session("s") as session:
            session.register_event_handler(SessionEndEvent, slow)

    task = asyncio.create_task(closing())
    await entered.wait()
    with pytest.raises(SessionOpenError):
        async with bus.session("s"):
            pass
    release.set()
    await task


async def test_a_session_needs_a_running_bus() -> None:
    with pytest.raises(BusNotRunningError):
        async with MessageBus.isolated().session():
            pass


async def test_a_session_is_used_inside_its_block_only(bus: MessageBus) -> None:
    session = bus.session("s")
    for state in ("isn't open yet", "has closed"):
        with pytest.raises(SessionClosedError, match=state):
            await session.execute(Ask())
        with pytest.raises(SessionClosedError, match=state):
            await session.publish(Step())
        with pytest.raises(SessionClosedError, match=state):
            session.register_command_handler(Ask, echo)
        with pytest.raises(SessionClosedError, match=state):
            session.register_event_handler(Step, print)
        async with session:
            pass


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "x" * 201,
        "a\nb",
        "a\x00b",
        "\x1b[2J",
        "a\u202eb",
        "\ud800",
        "a\u2028b",
        "\x7f",
        "\u200b",
    ],
)
async def test_hostile_session_ids_are_refused(bus: MessageBus, hostile: str) -> None:
    with pytest.raises(InvalidSessionIdError) as caught:
        BusSession(hostile, bus=bus)
    assert str(caught.value).isprintable()
    with pytest.raises(InvalidSessionIdError):
        bus.register_event_handler(Step, print, session_id=hostile)


@pytest.mark.parametrize("fine", ["x" * 200, "user:1/../é 漢字", "'; DROP TABLE--", "${7}"])
async def test_printable_ids_are_taken_as_they_are(bus: MessageBus, fine: str) -> None:
    async with bus.session(fine) as session:
        assert session.session_id == fine


# -- Leaving


async def test_leaving_drains_events_and_commands(bus: MessageBus) -> None:
    handled: list[int] = []
    entered = asyncio.Event()

    async def slow(event: Step) -> None:
        await asyncio.sleep(0.001)
        handled.append(event.number)

    async def slow_answer(command: Ask) -> str:
        entered.set()
        await asyncio.sleep(0.01)
        return "answered"

    bus.register_command_handler(Ask, slow_answer)
    events = record(bus)
    async with bus.session("s") as session:
        session.register_event_handler(Step, slow)
        for number in range(5):
            await session.publish(Step(number=number))
        asking = asyncio.create_task(session.execute(Ask()))
        await entered.wait()
    assert handled == [0, 1, 2, 3, 4]
    assert await asking == "answered"
    assert names(events)[-2:] == ["CommandResultEvent", "SessionEndEvent"]


async def test_while_a_session_leaves_outside_work_is_refused(bus: MessageBus) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    heard: list[int] = []

    async def slow(event: Step) -> None:
        heard.append(event.number)
        if event.number == 0:
            entered.set()
            await release.wait()
            await bus.publish(Step(number=1))  # finishes what is under way
            assert await bus.execute(Ask(text="inside")) == "inside"

    async def closing() -> None:
        async with bus.session("s") as session:
            session.register_event_handler(Step, slow)
            session.register_command_handler(Ask, echo)
            await session.publish(Step())

    task = asyncio.create_task(closing())
    await entered.wait()
    await asyncio.sleep(0)
    for attempt in (
        bus.publish(Step(session_id="s")),
        bus.publish_and_wait(Step(session_id="s")),
        bus.execute(Ask(session_id="s")),
    ):
        with pytest.raises(SessionClosedError, match="'s' is closing"):
            await attempt
    await bus.publish(Step(session_id="another"))
    release.set()
    await task
    assert heard == [0, 1]


async def test_publishers_that_wait_for_room_are_turned_away_and_counted() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(event: Step) -> None:
        entered.set()
        await release.wait()

    async with MessageBus.isolated(BusSettings(queue_size=1)) as bus:
        bus.register_event_handler(Step, slow)
        async with bus.session("s") as session:
            await session.publish(Step())
            await entered.wait()
            await session.publish(Step())
            waiting = asyncio.create_task(session.publish(Step()))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.01, release.set)
        with pytest.raises(SessionClosedError):
            await waiting
        assert bus.stats().events_refused == 1


async def test_past_the_drain_limit_work_is_cut_off_and_the_end_still_comes_last() -> None:
    events: list[Event] = []

    async def hang(message: Ask | Step) -> str:
        await asyncio.Event().wait()
        return ""

    settings = BusSettings(drain_timeout=0.05, cancel_grace=0.05)
    async with MessageBus.isolated(settings) as bus:
        bus.register_event_handler(Event, events.append, inline=True, priority=1)
        async with bus.session("s") as session:
            session.register_event_handler(Step, hang)
            session.register_command_handler(Ask, hang)
            for number in range(3):
                await session.publish(Step(number=number))
            asking = asyncio.create_task(session.execute(Ask()))
            await asyncio.sleep(0.01)
        with pytest.raises(SessionClosedError):
            await asking
        assert asking.cancelling() == 0
        stats = bus.stats()
        assert (stats.events_dropped, stats.handlers_interrupted) == (2 + 1, 2)
        assert stats.events == stats.events_handled + stats.events_dropped
    # Cut off, but told of: what the command and the handler came to.
    assert sorted(names(events)[2:-1]) == ["CommandResultEvent", "EventHandlerFailedEvent"]
    assert isinstance(events[-1], SessionEndEvent)


async def test_leaving_by_an_exception_names_it_in_the_end_event(bus: MessageBus) -> None:
    events = record(bus)
    error = ValueError("boom")

    async def conversation() -> None:
        async with bus.session() as session:
            await session.publish(Step())
            raise error

    with pytest.raises(ValueError, match="boom"):
        await conversation()
    assert names(events) == ["SessionStartEvent", "Step", "SessionEndEvent"]
    assert isinstance(events[-1], SessionEndEvent)
    assert events[-1].error is error


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_leaving_by_cancellation_even_twice_delivers_the_end(times: int) -> None:
    ends: list[SessionEndEvent] = []
    inside = asyncio.Event()
    cuts = 0

    async def cleans_up_slowly(event: Step) -> None:
        nonlocal cuts
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            cuts += 1
            await asyncio.sleep(0.01)

    async def on_end(event: SessionEndEvent) -> None:
        await asyncio.sleep(0.03)
        ends.append(event)

    async def conversation() -> None:
        async with bus.session("s") as session:
            session.register_event_handler(Step, cleans_up_slowly)
            await session.publish(Step())
            await asyncio.Event().wait()

    async with MessageBus.isolated(BusSettings(drain_timeout=0.1)) as bus:
        bus.register_event_handler(SessionEndEvent, on_end)
        task = asyncio.create_task(conversation())
        await inside.wait()
        for _ in range(times):
            # The first leaves the block; a second one cuts the draining short, but not the end.
            task.cancel()
            await asyncio.sleep(0.015)
        await asyncio.wait([task])
        assert task.cancelled()
        assert cuts == 1
        assert [event.session_id for event in ends] == ["s"]
        assert isinstance(ends[0].error, asyncio.CancelledError)
        assert bus.stats().sessions == 0


async def test_handlers_are_gone_after_the_session(bus: MessageBus) -> None:
    heard: list[Event] = []
    async with bus.session("s") as session:
        session.register_event_handler(Step, heard.append, inline=True)
        session.register_command_handler(Ask, echo)
        bus.register_event_handler(SessionStartEvent, heard.append, session_id="s", inline=True)
    await bus.publish(Step(session_id="s"))
    with pytest.raises(NoHandlerError):
        await bus.execute(Ask(session_id="s"))
    async with bus.session("s"):
        pass
    await bus.join()
    assert heard == []


async def test_the_sessions_own_handlers_hear_its_end(bus: MessageBus) -> None:
    heard: list[str] = []

    def on_end_of_bus(event: SessionEndEvent) -> None:
        heard.append("bus")

    def on_end_of_session(event: SessionEndEvent) -> None:
        heard.append("session")

    bus.register_event_handler(SessionEndEvent, on_end_of_bus, inline=True)
    async with bus.session() as session:
        session.register_event_handler(SessionEndEvent, on_end_of_session, inline=True)
    assert heard == ["bus", "session"]


async def test_after_its_end_event_a_session_takes_nothing_more(bus: MessageBus) -> None:
    events = record(bus)
    refused: list[SessionClosedError] = []

    async def on_end(event: SessionEndEvent) -> None:
        try:
            await bus.publish(Step(session_id=event.session_id))
        except SessionClosedError as error:
            refused.append(error)
        raise ValueError("boom")

    bus.register_event_handler(SessionEndEvent, on_end)
    async with bus.session("s"):
        pass
    await bus.join()
    assert len(refused) == 1
    # The failure of its handler is told of on the bus's own queue.
    assert names(events) == ["SessionStartEvent", "SessionEndEvent", "EventHandlerFailedEvent"]


async def test_an_observer_of_its_end_brings_no_more_into_a_session(bus: MessageBus) -> None:
    refused: list[BaseException] = []

    def on_end(event: Event) -> None:
        if isinstance(event, SessionEndEvent):
            # A first step at once, as tasks of an eager factory take it.
            publishing = bus.publish(Step(session_id=event.session_id))
            try:
                publishing.send(None)
            except (SessionClosedError, StopIteration) as error:
                refused.append(error)

    bus.add_observer(on_end)
    async with bus.session("s"):
        pass
    assert [type(error) for error in refused] == [SessionClosedError]


async def test_a_failing_handler_of_a_session_is_told_of_in_the_session(bus: MessageBus) -> None:
    heard: list[EventHandlerFailedEvent] = []

    async def fail(event: Step) -> None:
        raise ValueError("boom")

    async with bus.session("s") as session:
        session.register_event_handler(EventHandlerFailedEvent, heard.append, inline=True)
        session.register_event_handler(Step, fail)
        await session.publish(Step())
    assert [event.session_id for event in heard] == ["s"]


async def test_a_session_that_is_left_leaves_no_object_behind(bus: MessageBus) -> None:
    class Agent:
        async def hear(self, event: Event) -> None:
            await asyncio.sleep(0)

        async def answer(self, command: Ask) -> str:
            await asyncio.sleep(0)
            return command.text

    async def converse() -> weakref.ref[Agent]:
        agent = Agent()
        async with bus.session() as session:
            session.register_event_handler(Event, agent.hear)
            session.register_event_handler(CommandResultEvent, agent.hear, concurrent=True)
            session.register_command_handler(Ask, agent.answer)
            await session.execute(Ask())
            await session.publish(Step())
        return weakref.ref(agent)

    agents = [await asyncio.create_task(converse()) for _ in range(5)]
    await asyncio.sleep(0)
    gc.collect()
    assert [agent() for agent in agents] == [None] * 5
    assert lanes(bus) == [None]


async def test_many_sessions_at_once_do_not_mix(bus: MessageBus) -> None:
    async def own(command: Ask) -> str:
        await asyncio.sleep(0)
        return f"{current_session_id()}: {command.text}"

    async def converse(number: int) -> None:
        heard: list[int] = []

        async def hear(event: Step) -> None:
            await asyncio.sleep(0)
            heard.append(event.number)

        async with bus.session(f"s{number}") as session:
            session.register_event_handler(Step, hear)
            for step in range(5):
                await session.publish(Step(number=number * 10 + step))
                assert await session.execute(Ask(text="x")) == f"s{number}: x"
        assert heard == [number * 10 + step for step in range(5)]

    bus.register_command_handler(Ask, own)
    await asyncio.gather(*(converse(number) for number in range(100)))
    assert lanes(bus) == [None]

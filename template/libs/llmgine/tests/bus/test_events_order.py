"""Events: first in, first out for each session id, handlers one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from llmgine.bus import MessageBus
from llmgine.contracts import Event, paused_clock
from llmgine.errors import DuplicateHandlerError
from llmgine.settings import BusSettings


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class SpecialStep(Step):
    pass


@dataclass(frozen=True, kw_only=True)
class Other(Event):
    pass


def lanes(bus: MessageBus) -> list[str | None]:
    """Return the ids that the bus keeps anything for; nothing public shows idle ones."""
    return list(vars(bus)["_lanes"])


async def test_publish_returns_when_queued_not_when_handled(bus: MessageBus) -> None:
    release = asyncio.Event()
    handled: list[int] = []

    async def handler(event: Step) -> None:
        await release.wait()
        handled.append(event.number)

    bus.register_event_handler(Step, handler)
    await bus.publish(Step(number=1))
    assert (handled, bus.stats().events_queued) == ([], 1)
    release.set()
    await bus.join()
    assert handled == [1]


async def test_publish_and_wait_returns_when_all_handlers_are_done(bus: MessageBus) -> None:
    done: list[str] = []

    async def ordered(event: Step) -> None:
        await asyncio.sleep(0)
        done.append("ordered")

    async def concurrent(event: Step) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        done.append("concurrent")

    bus.register_event_handler(Step, ordered)
    bus.register_event_handler(Step, concurrent, concurrent=True)
    await bus.publish_and_wait(Step())
    assert done == ["ordered", "concurrent"]
    await bus.publish_and_wait(Other())


async def test_events_of_an_id_are_handled_first_in_first_out(bus: MessageBus) -> None:
    order: list[tuple[str, int]] = []

    async def uneven(event: Step) -> None:
        order.append(("first", event.number))
        for _ in range(event.number % 3):
            await asyncio.sleep(0)

    async def after(event: Step) -> None:
        order.append(("second", event.number))

    bus.register_event_handler(Step, uneven)
    bus.register_event_handler(Step, after)
    for number in range(100):
        await bus.publish(Step(number=number, session_id="s"))
    await bus.join()
    assert order == [(name, number) for number in range(100) for name in ("first", "second")]


async def test_order_holds_across_event_types_and_the_publishing_tasks(bus: MessageBus) -> None:
    published: list[str] = []
    heard: list[str] = []

    async def hear(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append(event.id)

    async def publisher(kind: Callable[[], Event]) -> None:
        for _ in range(20):
            event = kind()
            published.append(event.id)
            await bus.publish(event)
            await asyncio.sleep(0)

    bus.register_event_handler(Event, hear)
    await asyncio.gather(publisher(Step), publisher(Other), publisher(SpecialStep))
    await bus.join()
    assert heard == published


async def test_a_slow_id_never_holds_up_another(bus: MessageBus) -> None:
    stuck, release, quick = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(event: Step) -> None:
        if event.session_id == "slow":
            stuck.set()
            await release.wait()
        else:
            quick.set()

    bus.register_event_handler(Step, handler)
    await bus.publish(Step(session_id="slow"))
    await stuck.wait()
    for other in ("fast", None):
        quick.clear()
        await bus.publish_and_wait(Step(session_id=other))
        assert quick.is_set()
    release.set()


async def test_events_without_an_id_share_the_buss_own_queue(bus: MessageBus) -> None:
    running: list[int] = []
    most: list[int] = []

    async def handler(event: Step) -> None:
        running.append(event.number)
        most.append(len(running))
        await asyncio.sleep(0)
        running.remove(event.number)

    bus.register_event_handler(Step, handler)
    for number in range(10):
        await bus.publish(Step(number=number))
    await bus.join()
    assert max(most) == 1


async def test_two_buses_share_nothing(bus: MessageBus) -> None:
    stuck, release = asyncio.Event(), asyncio.Event()
    heard: list[Event] = []

    async def block(event: Step) -> None:
        stuck.set()
        await release.wait()

    bus.register_event_handler(Step, block)
    async with MessageBus.isolated() as other:
        other.register_event_handler(Step, heard.append, inline=True)
        await bus.publish(Step())
        await stuck.wait()
        await other.publish_and_wait(Step())
    assert len(heard) == 1
    release.set()


async def test_publishing_to_an_id_without_a_session_works_and_leaves_nothing(
    bus: MessageBus,
) -> None:
    heard: list[str | None] = []

    def hear(event: Step) -> None:
        heard.append(event.session_id)

    bus.register_event_handler(Step, hear, inline=True)
    before = lanes(bus)
    for number in range(50):
        await bus.publish(Step(session_id=f"visitor-{number}"))
    await bus.join()
    assert len(heard) == 50
    assert lanes(bus) == before


async def test_a_base_class_subscription_gets_the_subclasses(bus: MessageBus) -> None:
    steps: list[Event] = []
    everything: list[Event] = []
    special: list[Event] = []
    bus.register_event_handler(Step, steps.append, inline=True)
    bus.register_event_handler(Event, everything.append, inline=True)
    bus.register_event_handler(SpecialStep, special.append, inline=True)
    events = [Step(), SpecialStep(), Other()]
    for event in events:
        await bus.publish(event)
    await bus.join()
    assert (steps, everything, special) == (events[:2], events, events[1:2])


async def test_the_same_callable_twice_for_a_type_in_a_scope_is_refused(bus: MessageBus) -> None:
    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        async def hear(self, event: Step) -> None:
            self.calls += 1

    counter = Counter()
    bus.register_event_handler(Step, counter.hear)
    with pytest.raises(DuplicateHandlerError, match=r"Counter\.hear already hears Step on the bus"):
        bus.register_event_handler(Step, counter.hear)
    bus.register_event_handler(Step, Counter().hear)
    bus.register_event_handler(Step, counter.hear, session_id="s")
    with pytest.raises(DuplicateHandlerError, match="in session 's'"):
        bus.register_event_handler(Step, counter.hear, session_id="s")
    await bus.publish_and_wait(Step())
    assert counter.calls == 1


async def test_higher_priority_first_then_by_registration_in_both_scopes(bus: MessageBus) -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[Event], Awaitable[None]]:
        async def handler(event: Event) -> None:
            await asyncio.sleep(0)
            if isinstance(event, Step):
                order.append(name)

        return handler

    bus.register_event_handler(Step, named("0 a"))
    bus.register_event_handler(Event, named("0 b"))
    bus.register_event_handler(Step, named("-1"), priority=-1)
    bus.register_event_handler(Event, named("5"), priority=5)
    async with bus.session() as session:
        session.register_event_handler(Step, named("0 session"))
        session.register_event_handler(Step, named("7 session"), priority=7)
        bus.register_event_handler(Step, named("0 c"))
        await session.publish_and_wait(Step())
    assert order == ["7 session", "5", "0 a", "0 b", "0 session", "0 c", "-1"]


async def test_registrations_made_later_are_heard_from_the_next_event_on(bus: MessageBus) -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus.register_event_handler(Step, first.append, inline=True)
    await bus.publish(Step())
    registration = bus.register_event_handler(Step, second.append, inline=True)
    await bus.publish(Step())
    await bus.join()
    assert (len(first), len(second)) == (2, 1)
    await bus.publish(Step())
    registration.cancel()
    await bus.join()
    assert (len(first), len(second)) == (3, 1)


async def test_a_concurrent_handler_runs_outside_the_order(bus: MessageBus) -> None:
    started: list[int] = []
    all_started, release = asyncio.Event(), asyncio.Event()
    ordered: list[int] = []

    async def slow(event: Step) -> None:
        started.append(event.number)
        if len(started) == 5:
            all_started.set()
        await release.wait()

    def quick(event: Step) -> None:
        ordered.append(event.number)

    bus.register_event_handler(Step, slow, concurrent=True, priority=1)
    bus.register_event_handler(Step, quick, inline=True)
    for number in range(5):
        await bus.publish(Step(number=number))
    await all_started.wait()
    assert ordered == [0, 1, 2, 3, 4]
    release.set()


async def test_join_waits_for_concurrent_handlers(bus: MessageBus) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    done: list[Event] = []

    async def slow(event: Step) -> None:
        entered.set()
        await release.wait()
        done.append(event)

    bus.register_event_handler(Step, slow, concurrent=True)
    await bus.publish(Step())
    await entered.wait()
    joining = asyncio.create_task(bus.join())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not joining.done()
    release.set()
    await joining
    assert len(done) == 1


@pytest.mark.parametrize("leave", ["session", "stop"])
async def test_session_exit_and_stop_wait_for_concurrent_handlers(leave: str) -> None:
    done: list[Event] = []

    async def slow(event: Step) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        done.append(event)

    bus = MessageBus.isolated()
    await bus.start()
    bus.register_event_handler(Step, slow, concurrent=True)
    if leave == "session":
        async with bus.session() as session:
            await session.publish(Step())
        assert len(done) == 1
    else:
        await bus.publish(Step())
    assert (await bus.stop()).clean
    assert len(done) == 1


async def test_a_session_runs_64_concurrent_handlers_by_default() -> None:
    assert BusSettings().concurrent_per_session == 64


async def test_past_the_limit_of_concurrent_handlers_the_queue_waits() -> None:
    running = 0
    most = 0
    release = asyncio.Event()
    full = asyncio.Event()
    quick: list[str | None] = []

    async def slow(event: Step) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        with paused_clock():
            await release.wait()
        running -= 1

    def note(event: Step) -> None:
        quick.append(event.session_id)

    settings = BusSettings(concurrent_per_session=3, event_timeout=0.05, cancel_grace=0.05)
    async with MessageBus.isolated(settings) as bus:
        bus.register_event_handler(Step, slow, concurrent=True)
        bus.register_event_handler(Step, note, inline=True)
        for number in range(8):
            await bus.publish(Step(number=number, session_id="busy"))
        await full.wait()
        await bus.publish(Step(session_id="other"))
        # Longer than the limit of a handler: one that waits for its place hasn't begun.
        await asyncio.sleep(0.1)
        assert quick.count("busy") == 3
        assert quick.count("other") == 1
        assert bus.stats().handlers_failed == 0
        release.set()
        await bus.join()
        assert most == 4  # three of the busy session, one of the other
        assert quick.count("busy") == 8


async def test_events_published_by_handlers_queue_up_behind(bus: MessageBus) -> None:
    order: list[str] = []

    async def on_step(event: Step) -> None:
        order.append(f"step {event.number}")
        if event.number < 3:
            await bus.publish(Other())

    async def on_other(event: Other) -> None:
        order.append("other")

    bus.register_event_handler(Step, on_step)
    bus.register_event_handler(Other, on_other)
    for number in (1, 2, 3):
        await bus.publish(Step(number=number))
    await bus.join()
    assert order == ["step 1", "step 2", "step 3", "other", "other"]


async def test_join_waits_for_what_events_lead_to(bus: MessageBus) -> None:
    heard: list[int] = []

    async def chain(event: Step) -> None:
        heard.append(event.number)
        await asyncio.sleep(0)
        if event.number:
            await bus.publish(Step(number=event.number - 1, session_id=f"s{event.number}"))

    bus.register_event_handler(Step, chain)
    await bus.publish(Step(number=20))
    await bus.join()
    assert heard == list(range(20, -1, -1))


async def test_a_long_burst_lets_others_have_a_turn(bus: MessageBus) -> None:
    seen_at_turn: list[int] = []
    handled = 0

    def count(event: Step) -> None:
        nonlocal handled
        handled += 1

    async def bystander() -> None:
        while handled < 1000:
            await asyncio.sleep(0)
            seen_at_turn.append(handled)

    bus.register_event_handler(Step, count, inline=True)
    for _ in range(1000):
        await bus.publish(Step())
    await bystander()
    assert max(b - a for a, b in pairwise(seen_at_turn)) < 200

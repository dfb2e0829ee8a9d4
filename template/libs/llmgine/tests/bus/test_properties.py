"""Whatever happens in whatever order, the promises hold."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from llmgine.bus import MessageBus
from llmgine.contracts import (
    Command,
    CommandResultEvent,
    CommandStartedEvent,
    Event,
    EventHandlerFailedEvent,
    SessionEndEvent,
    SessionStartEvent,
)
from llmgine.errors import CommandTimeoutError, LlmgineError, QueueFullError
from llmgine.settings import BusSettings
from llmgine.testing.fixtures import run_in_virtual_time

Fate: TypeAlias = Literal["quick", "suspend", "fail", "fail later", "publish", "hang"]


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    fate: Fate = "quick"


@dataclass(frozen=True, kw_only=True)
class Child(Event):
    pass


@dataclass(frozen=True, kw_only=True)
class Ask(Command[str]):
    fate: Fate = "quick"


@dataclass(frozen=True)
class Act:
    """One thing that one of several tasks does."""

    kind: Literal["publish", "wait", "execute", "cancel", "pause", "session"]
    session_id: str | None
    fate: Fate


@dataclass
class Seen:
    """What was published, and what listeners heard."""

    queued: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    handled: dict[str | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    started: Counter[str] = field(default_factory=Counter[str])
    ended: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    doomed: set[str] = field(default_factory=set[str])


FATES: tuple[Fate, ...] = ("quick", "suspend", "fail", "fail later", "publish", "hang")
ACTS = st.builds(
    Act,
    st.sampled_from(("publish", "publish", "wait", "execute", "cancel", "pause", "session")),
    st.sampled_from((None, "a", "b")),
    st.sampled_from(FATES),
)
PLANS = st.lists(st.lists(ACTS, max_size=8), min_size=1, max_size=4)


class World:
    """A bus with handlers that do as their messages say."""

    def __init__(self, queue_size: int) -> None:
        limits = BusSettings(
            queue_size=queue_size,
            event_timeout=0.01,
            command_timeout=0.01,
            cancel_grace=0.5,
            drain_timeout=2.0,
        )
        self.bus = MessageBus.isolated(limits)
        self.seen = Seen()
        self.bus.add_observer(self.observe)
        self.bus.register_event_handler(Event, self.note, inline=True, priority=5)
        self.bus.register_event_handler(Step, self.step)
        self.bus.register_event_handler(Step, self.step_alone, concurrent=True)
        self.bus.register_command_handler(Ask, self.answer)

    def observe(self, event: Event) -> None:
        """Observers see an event in the moment before it is queued."""
        self.seen.queued[event.session_id].append(event.id)

    def note(self, event: Event) -> None:
        self.seen.handled[event.session_id].append(event.id)
        if isinstance(event, CommandStartedEvent):
            self.seen.started[event.command.id] += 1
        elif isinstance(event, CommandResultEvent):
            self.seen.ended[event.command.id] += 1
        elif isinstance(event, EventHandlerFailedEvent):
            self.seen.failed[event.event.id] += 1

    async def live(self, message: Step | Ask) -> None:
        if message.fate == "fail":
            raise ValueError("fated")
        if message.fate == "hang":
            await asyncio.Event().wait()
        if message.fate != "quick":
            await asyncio.sleep(0)
        if message.fate == "fail later":
            raise ValueError("fated")
        if message.fate == "publish":
            with suppress(QueueFullError):
                await self.bus.publish(Child())

    async def step(self, event: Step) -> None:
        if event.fate in {"fail", "fail later", "hang"}:
            self.seen.doomed.add(event.id)
        await self.live(event)

    async def step_alone(self, event: Step) -> None:
        await asyncio.sleep(0)

    async def answer(self, command: Ask) -> str:
        await self.live(command)
        return command.fate

    async def act(self, act: Act) -> None:
        match act.kind:
            case "publish":
                await self.bus.publish(Step(session_id=act.session_id, fate=act.fate))
            case "wait":
                await self.bus.publish_and_wait(Step(session_id=act.session_id, fate=act.fate))
            case "execute":
                await self.execute(act)
            case "cancel":
                asking = asyncio.create_task(self.execute(act))
                await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
            case "pause":
                await asyncio.sleep(0)
            case "session":
                async with self.bus.session(act.session_id) as session:
                    await session.publish(Step(fate=act.fate))
                    await asyncio.sleep(0)

    async def execute(self, act: Act) -> None:
        try:
            answer = await self.bus.execute(Ask(session_id=act.session_id, fate=act.fate))
        except CommandTimeoutError:
            assert act.fate == "hang"
        except ValueError:
            assert act.fate.startswith("fail")
        else:
            assert answer == act.fate

    async def follow(self, plan: list[Act]) -> None:
        for act in plan:
            # The session was closing, or open already: refused, and nothing else.
            with suppress(LlmgineError):
                await self.act(act)

    async def run(self, plans: list[list[Act]]) -> None:
        async with self.bus:
            await asyncio.gather(*(self.follow(plan) for plan in plans))
            await self.bus.join()
            assert list(vars(self.bus)["_lanes"]) == [None]
        self.check()

    def check(self) -> None:
        seen, stats = self.seen, self.bus.stats()
        for session_id, ids in seen.handled.items():
            assert ids == [id_ for id_ in seen.queued[session_id] if id_ in set(ids)]
        assert stats.events == stats.events_handled + stats.events_dropped + stats.events_queued
        assert stats.events_queued == stats.events_dropped == 0
        assert sum(map(len, seen.handled.values())) == stats.events
        assert seen.started == seen.ended
        assert set(seen.started.values()) <= {1}
        assert sum(seen.started.values()) <= stats.commands  # some never got room to start
        assert dict(seen.failed) == dict.fromkeys(seen.doomed, 1)
        assert (stats.sessions, stats.commands_in_flight, stats.handlers_abandoned) == (0, 0, 0)


@settings(max_examples=100)
@given(PLANS, st.integers(min_value=1, max_value=5))
def test_order_counts_and_lifecycle_hold_in_every_interleaving(
    plans: list[list[Act]], queue_size: int
) -> None:
    run_in_virtual_time(World(queue_size).run(plans))


async def test_the_first_and_last_events_of_each_session_are_its_start_and_end() -> None:
    order: dict[str | None, list[Event]] = defaultdict(list)

    def note(event: Event) -> None:
        order[event.session_id].append(event)

    async def converse(bus: MessageBus, session_id: str) -> None:
        async with bus.session(session_id) as session:
            for _ in range(3):
                await session.publish(Step())
                await asyncio.sleep(0)

    async with MessageBus.isolated() as bus:
        bus.register_event_handler(Event, note, inline=True)
        await asyncio.gather(*(converse(bus, f"s{number}") for number in range(20)))
    assert len(order) == 20
    for events in order.values():
        assert isinstance(events[0], SessionStartEvent)
        assert isinstance(events[-1], SessionEndEvent)
        assert len(events) == 5

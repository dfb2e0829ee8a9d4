"""What has failed for good is kept, and can be sent again."""

from __future__ import annotations

import asyncio
import gc
import resource
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from llmgine.bus import MessageBus
from llmgine.bus.middleware import DeadLetter, DeadLetters, ReplayReport, Retry
from llmgine.bus.middleware.dead_letter_file import DeadLetterFile
from llmgine.contracts import Command, Event, Message, SessionEndEvent
from llmgine.contracts.codec import register
from llmgine.errors import (
    BusNotRunningError,
    BusStoppedError,
    CommandTimeoutError,
    ConfigurationError,
    WouldDeadlockError,
)
from llmgine.settings import BusSettings, CommandRetrySettings, DeadLetterSettings


@register
@dataclass(frozen=True, kw_only=True)
class ShopOrder(Command[str]):
    idempotent: ClassVar[bool] = True

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Unknown(Command[str]):
    """A class that the codec doesn't know."""


@register
@dataclass(frozen=True, kw_only=True)
class ShopPaid(Event):
    number: int = 0


class Shop:
    """Handlers that fail while something is out of order."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[Message] = []
        self.mailed: list[Message] = []

    async def order(self, command: ShopOrder) -> str:
        self.seen.append(command)
        if self.broken:
            raise ConnectionError("no shop")
        return f"order {command.number}"

    async def book(self, event: ShopPaid) -> None:
        self.seen.append(event)
        if self.broken:
            raise ConnectionError("no book")

    async def mail(self, event: ShopPaid) -> None:
        self.mailed.append(event)


def a_bus(letters: DeadLetters, shop: Shop, settings: BusSettings | None = None) -> MessageBus:
    bus = MessageBus.isolated(settings)
    bus.add_middleware(letters)
    bus.register_command_handler(ShopOrder, shop.order)
    bus.register_event_handler(ShopPaid, shop.book)
    bus.register_event_handler(ShopPaid, shop.mail)
    return bus


async def fail(bus: MessageBus, *orders: ShopOrder) -> None:
    for order in orders:
        with pytest.raises(ConnectionError):
            await bus.execute(order)


async def test_a_command_that_fails_is_kept_and_sent_again() -> None:
    letters, shop, order = DeadLetters(), Shop(), ShopOrder(number=7)
    async with a_bus(letters, shop) as bus:
        await fail(bus, order)
        (letter,) = letters.letters()
        assert letter.message is order
        assert str(letter.error) == "ConnectionError: no shop"
        assert "in order" in letter.error.traceback
        assert (letter.handler, letter.replays) == ("", 0)

        assert await letters.replay(bus) == ReplayReport(handled=0, failed=1)
        (letter,) = letters.letters()
        assert letter.replays == 1

        shop.broken = False
        assert await letters.replay(bus) == ReplayReport(handled=1, failed=0)
        assert letters.letters() == []
        assert await letters.replay(bus) == ReplayReport()
    assert shop.seen == [order, order, order]
    assert letters.counts.failed == 2


async def test_an_event_goes_again_to_the_handler_that_had_failed_and_to_no_other() -> None:
    letters, shop, event = DeadLetters(), Shop(), ShopPaid(number=7)
    async with a_bus(letters, shop) as bus:
        await bus.publish_and_wait(event)
        (letter,) = letters.letters()
        assert letter.message is event
        assert letter.handler.endswith("Shop.book")
        assert await letters.replay(bus) == ReplayReport(failed=1)
        shop.broken = False
        assert await letters.replay(bus) == ReplayReport(handled=1)
        assert letters.letters() == []
        # Others hear of the next event, as ever.
        await bus.publish_and_wait(ShopPaid(number=8))
    assert shop.seen[:3] == [event, event, event]
    assert [paid.number for paid in shop.mailed if isinstance(paid, ShopPaid)] == [7, 8]


async def test_a_concurrent_handler_is_waited_for() -> None:
    letters, shop = DeadLetters(), Shop()
    bus = MessageBus.isolated()
    bus.add_middleware(letters)

    async def late(event: ShopPaid) -> None:
        await asyncio.sleep(0)
        await shop.book(event)

    bus.register_event_handler(ShopPaid, late, concurrent=True)
    async with bus:
        await bus.publish_and_wait(ShopPaid())
        assert await letters.replay(bus) == ReplayReport(failed=1)
        shop.broken = False
        assert await letters.replay(bus) == ReplayReport(handled=1)


async def test_what_nobody_handles_any_more_stays() -> None:
    letters, shop = DeadLetters(), Shop()
    bus = MessageBus.isolated()
    bus.add_middleware(letters)
    command = bus.register_command_handler(ShopOrder, shop.order)
    event = bus.register_event_handler(ShopPaid, shop.book)
    async with bus:
        await fail(bus, ShopOrder())
        await bus.publish_and_wait(ShopPaid())
        command.cancel()
        event.cancel()
        assert await letters.replay(bus) == ReplayReport(failed=2)
        assert len(letters.letters()) == 2


async def test_limits_and_stops_make_letters_and_callers_who_leave_make_none() -> None:
    letters = DeadLetters()
    bus = MessageBus.isolated(BusSettings(drain_timeout=0.05))
    bus.add_middleware(letters)

    async def hang(message: ShopOrder | ShopPaid) -> str:
        await asyncio.Event().wait()
        return "never"

    async def fail_alone(event: ShopPaid) -> None:
        raise asyncio.CancelledError

    bus.register_command_handler(ShopOrder, hang)
    bus.register_event_handler(ShopPaid, hang, timeout=0.01)
    bus.register_event_handler(ShopPaid, fail_alone)
    await bus.start()
    with pytest.raises(CommandTimeoutError):
        await bus.execute(ShopOrder(number=1), timeout=0.01)
    await bus.publish_and_wait(ShopPaid(number=2))
    leaving = asyncio.create_task(bus.execute(ShopOrder(number=3)))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    stopped = asyncio.create_task(bus.execute(ShopOrder(number=4)))
    await asyncio.sleep(0)
    await bus.stop()
    with pytest.raises(BusStoppedError):
        await stopped
    kinds = [letter.error.type.rpartition(".")[2] for letter in letters.letters()]
    assert kinds == [
        "CommandTimeoutError",
        "EventTimeoutError",
        "CancelledError",
        "BusStoppedError",
    ]


async def test_only_what_all_attempts_have_failed_at_is_a_letter() -> None:
    letters, shop = DeadLetters(), Shop()
    bus = MessageBus.isolated()
    bus.add_middleware(letters)
    bus.add_middleware(Retry(CommandRetrySettings(attempts=3, delay=0)))
    bus.register_command_handler(ShopOrder, shop.order)
    async with bus:
        await fail(bus, ShopOrder())
        assert (len(shop.seen), len(letters.letters())) == (3, 1)
        await letters.replay(bus)
        assert (len(shop.seen), len(letters.letters())) == (6, 1)


async def test_letters_go_with_their_session() -> None:
    letters, shop = DeadLetters(), Shop()

    async def fail_at_the_end(event: SessionEndEvent) -> None:
        raise ValueError("at the end")

    async with a_bus(letters, shop) as bus:
        bus.register_event_handler(SessionEndEvent, fail_at_the_end)
        await fail(bus, ShopOrder(number=1))
        async with bus.session("s") as session:
            await fail(bus, ShopOrder(number=2, session_id="s"))
            await session.publish_and_wait(ShopPaid(number=3))
            assert len(letters.letters()) == 3
            assert len(letters.letters("s")) == 2
        await bus.join()
        assert [letter.message.session_id for letter in letters.letters()] == [None]
        assert letters.counts.ended == 2


async def test_the_oldest_makes_way_and_is_counted_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letters, shop = DeadLetters(DeadLetterSettings(limit=3)), Shop()
    async with a_bus(letters, shop) as bus:
        await fail(bus, *(ShopOrder(number=number) for number in range(8)))
        kept = [letter.message for letter in letters.letters()]
        assert [order.number for order in kept if isinstance(order, ShopOrder)] == [5, 6, 7]
        assert letters.counts.dropped == 5
    lines = [line for line in caplog.messages if line.startswith("more than 3 dead letters")]
    assert [line.split(": ")[1] for line in lines] == [
        "1 dropped so far",
        "2 dropped so far",
        "4 dropped so far",
    ]


async def test_letters_can_be_cleared_and_chosen() -> None:
    def keep(message: Message, error: BaseException) -> bool:
        return isinstance(message, ShopOrder) and message.number > 0

    letters, shop = DeadLetters(keep=keep), Shop()
    async with a_bus(letters, shop) as bus, bus.session("s"):
        await fail(bus, ShopOrder(number=0), ShopOrder(number=1, session_id="s"))
        await fail(bus, *(ShopOrder(number=n, session_id=None) for n in (2, 3)))
        assert letters.clear("s") == 1
        assert len(letters.letters()) == 2
        shop.broken = False
        first = letters.letters()[:1]
        assert await letters.replay(bus, first) == ReplayReport(handled=1)
        assert letters.clear() == 1
        assert letters.letters() == []


async def test_a_replay_is_refused_where_it_could_not_end() -> None:
    letters, shop = DeadLetters(), Shop()
    bus = a_bus(letters, shop)
    refused: list[type] = []

    async def again(event: ShopPaid) -> None:
        try:
            await letters.replay(bus)
        except WouldDeadlockError as error:
            refused.append(type(error))

    async with bus:
        bus.register_event_handler(ShopPaid, again, priority=-1)
        await bus.publish_and_wait(ShopPaid())
    assert refused == [WouldDeadlockError]
    with pytest.raises(BusNotRunningError):
        await letters.replay(bus)
    assert len(letters.letters()) == 1


async def test_two_replays_at_once_send_a_message_once() -> None:
    letters, shop = DeadLetters(), Shop()
    bus = a_bus(letters, shop)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(command: ShopOrder) -> str:
        entered.set()
        await go_on.wait()
        return await shop.order(command)

    async with bus:
        await fail(bus, ShopOrder(session_id="slow"))
        shop.broken = False
        registration = bus.register_command_handler(ShopOrder, slow, session_id="slow")
        first = asyncio.create_task(letters.replay(bus))
        await entered.wait()
        assert await letters.replay(bus) == ReplayReport()
        go_on.set()
        assert await first == ReplayReport(handled=1)
        registration.cancel()
    assert len(shop.seen) == 2


async def test_replays_that_overlap_send_no_message_twice() -> None:
    letters, shop, entered, go_on = DeadLetters(), Shop(), asyncio.Event(), asyncio.Event()

    async def order(command: ShopOrder) -> str:
        if not shop.broken and command.number == 1:
            entered.set()
            await go_on.wait()
        return await shop.order(command)

    bus = MessageBus.isolated()
    bus.add_middleware(letters)
    bus.register_command_handler(ShopOrder, order)
    orders = ShopOrder(number=1), ShopOrder(number=2)
    async with bus:
        await fail(bus, *orders)
        shop.broken = False
        first = asyncio.create_task(letters.replay(bus))
        await entered.wait()
        assert await letters.replay(bus) == ReplayReport()
        assert await letters.replay(bus, letters.letters()) == ReplayReport()
        go_on.set()
        assert await first == ReplayReport(handled=2)
    assert shop.seen == [*orders, *orders]


async def test_letters_that_go_during_a_replay_are_not_sent() -> None:
    letters, shop = DeadLetters(), Shop()

    async def order(command: ShopOrder) -> str:
        if not shop.broken:
            letters.clear()
        return await shop.order(command)

    bus = MessageBus.isolated()
    bus.add_middleware(letters)
    bus.register_command_handler(ShopOrder, order)
    orders = ShopOrder(number=1), ShopOrder(number=2)
    async with bus:
        await fail(bus, *orders)
        shop.broken = False
        assert await letters.replay(bus) == ReplayReport(handled=1)
    assert shop.seen == [*orders, orders[0]]


async def test_a_handler_that_cancels_itself_has_failed_and_the_replay_goes_on() -> None:
    letters = DeadLetters()

    async def order(command: ShopOrder) -> str:
        raise asyncio.CancelledError

    bus = MessageBus.isolated()
    bus.add_middleware(letters)
    bus.register_command_handler(ShopOrder, order)
    async with bus:
        for number in range(2):
            with suppress(asyncio.CancelledError):
                await bus.execute(ShopOrder(number=number))
        assert await letters.replay(bus) == ReplayReport(failed=2)


async def test_a_failure_that_stands_in_a_file_twice_is_sent_once(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    letters, shop = DeadLetters(DeadLetterSettings(path=path)), Shop()
    async with a_bus(letters, shop) as bus:
        await fail(bus, ShopOrder())
        assert await letters.replay(bus) == ReplayReport(failed=1)
        shop.broken = False
        found = DeadLetterFile(path).letters()
        assert [letter.replays for letter in found] == [0, 1]
        assert await letters.replay(bus, found) == ReplayReport(handled=1)
    assert len(shop.seen) == 3


async def test_a_letter_that_has_no_room_is_unwritten_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    letters, shop, order = DeadLetters(DeadLetterSettings(path=path)), Shop(), ShopOrder(number=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with a_bus(letters, shop) as bus:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        try:
            await fail(bus, ShopOrder(number=1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert letters.counts.unwritten == 1
        await fail(bus, order)
    (written,) = DeadLetterFile(path).letters()
    assert written.message.id == order.id


async def test_a_sink_gets_every_letter_and_its_failures_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given: list[DeadLetter] = []

    def sink(letter: DeadLetter) -> None:
        given.append(letter)
        raise OSError("full")

    letters, shop = DeadLetters(sink=sink), Shop()
    async with a_bus(letters, shop) as bus:
        await fail(bus, ShopOrder(), ShopOrder())
        assert letters.letters() == given
    assert letters.counts.unwritten == 2
    assert "1 dead letters were not written so far, the last one a ShopOrder" in caplog.text


async def test_a_file_keeps_letters_for_the_next_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "letters" / "dead.jsonl"
    letters, shop = DeadLetters(DeadLetterSettings(path=path)), Shop()
    async with a_bus(letters, shop) as bus:
        await fail(bus, ShopOrder(number=1))
        await bus.publish_and_wait(ShopPaid(number=2))
        with path.open("ab") as file:
            file.write(b'{"type": "DeadLet')  # the process died while it wrote
        await fail(bus, ShopOrder(number=3, session_id="gone"))

        async def unknown(command: Unknown) -> str:
            raise ConnectionError("no shop")

        bus.register_command_handler(Unknown, unknown)
        with pytest.raises(ConnectionError):
            await bus.execute(Unknown())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert letters.counts.unwritten == 1
    assert "Unknown is not registered" in caplog.text

    moved = path.rename(tmp_path / "to-replay.jsonl")
    found = DeadLetterFile(moved).letters()
    assert [letter.message.id for letter in found] == [
        letter.message.id for letter in letters.letters()[:3]
    ]
    assert "line 3 is no dead letter" in caplog.text
    next_letters, next_shop = DeadLetters(DeadLetterSettings(path=path)), Shop()
    async with a_bus(next_letters, next_shop) as bus:
        assert await next_letters.replay(bus, found) == ReplayReport(failed=3)
        assert [letter.replays for letter in next_letters.letters()] == [1, 1, 1]
        assert len(DeadLetterFile(path).letters()) == 3
        next_shop.broken = False
        assert await next_letters.replay(bus) == ReplayReport(handled=3)
    assert next_shop.mailed == []
    assert next_letters.letters() == []


async def test_nothing_is_kept_of_sessions_that_have_ended() -> None:
    letters, shop = DeadLetters(), Shop()

    async def converse(bus: MessageBus, sessions: int) -> int:
        for _ in range(sessions):
            async with bus.session() as session:
                with suppress(ConnectionError):
                    await session.execute(ShopOrder())
                await session.publish_and_wait(ShopPaid())
            shop.seen.clear()
            shop.mailed.clear()
        assert letters.letters() == []
        gc.collect()
        return sys.getallocatedblocks()

    async with a_bus(letters, shop) as bus:
        rounds = [await converse(bus, 100) for _ in range(5)]
    # What leaks grows in every round; what is made only once, or elsewhere, doesn't.
    assert min(after - before for before, after in pairwise(rounds)) < 50


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^limit: "):
        DeadLetterSettings(limit=0)

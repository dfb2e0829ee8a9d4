"""What calls take is counted, for each session and altogether, and refused beyond the budget."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.bus import BusSession, MessageBus
from llmgine.contracts import (
    ChatMessage,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    TextDelta,
    Usage,
    closing,
    fold,
)
from llmgine.errors import BudgetExceededError, ConfigurationError, RateLimitError
from llmgine.providers import usage as module
from llmgine.providers.observed import ObservedProvider
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.providers.usage import Account, UsageLedger
from llmgine.settings import BudgetSettings, PriceSettings
from llmgine.testing.recording import RecordingPublisher

REQUEST = LLMRequest(messages=(ChatMessage.user("four letters each"),), model="small")
PRICE = PriceSettings(input=Decimal("1.25"), output=Decimal(10), cached=Decimal("0.125"))


def answer(
    tokens_in: int | None = 100, tokens_out: int | None = 10, *, model: str = "small"
) -> LLMResponse:
    return LLMResponse(
        message=ChatMessage.assistant("Four letters each."),
        model=model,
        usage=Usage(input_tokens=tokens_in, output_tokens=tokens_out),
    )


def metered(*script: ScriptStep, **limits: float) -> tuple[ObservedProvider, UsageLedger]:
    ledger = UsageLedger(BudgetSettings(**limits, prices={"small": PRICE}))  # pyright: ignore[reportArgumentType]
    return ObservedProvider(ScriptedProvider(script), RecordingPublisher(), ledger), ledger


async def read(stream: AsyncIterator[LLMChunk]) -> LLMResponse:
    return fold([chunk async for chunk in stream])


# -- Accounts


@pytest.mark.parametrize("whole", [True, False])
async def test_the_tokens_of_all_calls_are_added_up(whole: bool) -> None:
    provider, ledger = metered(answer(), answer(1, 2))
    for _ in range(2):
        await (provider.complete(REQUEST) if whole else read(provider.stream(REQUEST)))
    assert ledger.total == Account(
        calls=2, usage=Usage(input_tokens=101, output_tokens=12), cost=Decimal("0.00024625")
    )
    assert ledger.total.tokens == 113


async def test_each_session_has_an_account_of_its_own(bus: MessageBus) -> None:
    provider, ledger = metered(*[answer()] * 3)
    await provider.complete(REQUEST)
    for name in ("a", "b"):
        async with BusSession(name, bus=bus):
            await provider.complete(REQUEST)
    assert [ledger.session(name).tokens for name in ("a", "b", "c")] == [110, 110, 0]
    assert ledger.total.tokens == 330


async def test_a_stream_counts_for_the_session_that_asked(bus: MessageBus) -> None:
    provider, ledger = metered(answer())
    async with BusSession("a", bus=bus):
        stream = provider.stream(REQUEST)
    await read(stream)
    assert ledger.session("a").tokens == 110


async def test_what_is_not_reported_is_estimated() -> None:
    provider, ledger = metered(answer(None, None), answer(7, None), answer(7, 0))
    for _ in range(3):
        await provider.complete(REQUEST)
    assert ledger.total.estimated == 2
    # 17 characters of question, 18 of answer, four to a token
    assert ledger.total.usage.input_tokens == 5 + 7 + 7
    assert ledger.total.usage.output_tokens == 5 + 5


async def test_a_stream_that_is_left_or_breaks_off_counts_as_far_as_it_came() -> None:
    provider, ledger = metered("one two three", BrokenStream("one two three", after=1))
    async with closing(provider.stream(REQUEST)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                break
    assert (ledger.total.calls, ledger.total.estimated) == (1, 1)
    assert ledger.total.usage.output_tokens == 1
    with pytest.raises(Exception, match="broke off"):
        await read(provider.stream(REQUEST))
    assert (ledger.total.calls, ledger.total.usage.output_tokens) == (2, 2)


async def test_a_call_that_brought_nothing_took_nothing() -> None:
    provider, ledger = metered(RateLimitError("busy"))
    with pytest.raises(RateLimitError):
        await provider.complete(REQUEST)
    assert ledger.total == Account(calls=1)


# -- Costs


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(), "0"),
        (Usage(input_tokens=1_000_000), "1.25"),
        (Usage(input_tokens=1_000_000, output_tokens=1_000_000), "11.25"),
        (Usage(input_tokens=1_000_000, cache_read_tokens=1_000_000), "0.125"),
        (Usage(input_tokens=1_000_000, cache_read_tokens=400_000), "0.8"),
        (Usage(input_tokens=1_000_000, cache_write_tokens=1_000_000), "1.25"),
        (Usage(output_tokens=3, reasoning_tokens=3), "0.00003"),
        (Usage(input_tokens=1, cache_read_tokens=9), "0.000001125"),
    ],
)
def test_a_price_is_for_a_million_tokens(usage: Usage, cost: str) -> None:
    ledger = UsageLedger(BudgetSettings(prices={"small": PRICE}))
    assert ledger.cost(usage, "small") == Decimal(cost)


def test_writing_to_a_cache_may_cost_more() -> None:
    price = PriceSettings(input=Decimal(1), output=Decimal(2), cache_write=Decimal("1.25"))
    ledger = UsageLedger(BudgetSettings(prices={"m": price}))
    assert ledger.cost(Usage(input_tokens=10**6, cache_write_tokens=10**6), "m") == Decimal("1.25")


@pytest.mark.parametrize(
    ("answered", "asked", "known"),
    [
        ("small", "", True),
        ("small-2026-08-07", "", True),
        ("small-20260807", "", True),
        ("small@20260807", "", True),
        ("small-2026-08-07", "small", True),
        ("named-otherwise", "small", True),
        ("small-mini", "", False),
        ("small-mini-2026-08-07", "", False),
        ("", "", False),
    ],
)
def test_a_model_is_known_by_its_names(answered: str, asked: str, known: bool) -> None:
    ledger = UsageLedger(BudgetSettings(prices={"small": PRICE}))
    assert (ledger.cost(Usage(), answered, asked) is not None) == known


async def test_a_model_without_a_price_is_named() -> None:
    provider, ledger = metered(answer(model="other"))
    await provider.complete(LLMRequest(messages=REQUEST.messages))
    assert ledger.total.unpriced == {"other"}
    assert ledger.total.cost == 0


# -- Budgets


@contextmanager
def refusal(setting: str, spent: str, limit: str, session_id: str | None = None):  # noqa: ANN201
    with pytest.raises(BudgetExceededError) as caught:
        yield
    error = caught.value
    assert (error.setting, error.session_id) == (setting, session_id)
    assert (error.spent, error.limit) == (Decimal(spent), Decimal(limit))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("limits", "spent", "limit"),
    [
        ({"process_tokens": 220}, "220", "220"),
        ({"process_tokens": 111}, "220", "111"),
        ({"process_cost": 0.0003}, "0.00045", "0.0003"),
    ],
)
async def test_the_next_call_is_refused(
    limits: dict[str, float], spent: str, limit: str, whole: bool
) -> None:
    provider, ledger = metered(answer(), answer(), **limits)
    for _ in range(2):
        await provider.complete(REQUEST)
    before = ledger.total
    with refusal(f"budget.{next(iter(limits))}", spent, limit):
        await (provider.complete(REQUEST) if whole else read(provider.stream(REQUEST)))
    assert ledger.total == before


async def test_a_refusal_is_one_line_and_no_model_call() -> None:
    publisher = RecordingPublisher()
    ledger = UsageLedger(BudgetSettings(process_tokens=0))
    inner = ScriptedProvider(["never"])
    provider = ObservedProvider(inner, publisher, ledger)
    with pytest.raises(BudgetExceededError) as caught:
        await provider.complete(REQUEST)
    assert str(caught.value) == (
        "the process has spent 0 of 0 (budget.process_tokens); raise the limit to go on"
    )
    assert inner.requests == []
    assert publisher.of(LLMCallStartedEvent) == publisher.of(LLMCallResultEvent) == ()


async def test_a_session_s_budget_is_its_own(bus: MessageBus) -> None:
    provider, _ = metered(*[answer()] * 3, session_tokens=100, process_tokens=1000)
    async with BusSession("a", bus=bus):
        await provider.complete(REQUEST)
        with refusal("budget.session_tokens", "110", "100", "a"):
            await provider.complete(REQUEST)
    async with BusSession("b", bus=bus):
        await provider.complete(REQUEST)
    await provider.complete(REQUEST)


async def test_several_calls_at_once_count_with_their_input() -> None:
    """The budget holds but for the answers of those that were let through."""
    provider, ledger = metered(*[answer(5, 50)] * 9, process_tokens=20)
    calls = [provider.complete(REQUEST) for _ in range(9)]
    outcomes = await asyncio.gather(*map(asyncio.create_task, calls), return_exceptions=True)
    # Scripted answers come at once: each is there before the next is asked for.
    assert sum(isinstance(each, LLMResponse) for each in outcomes) == 1

    provider, ledger = metered(*["word"] * 9, process_tokens=20)
    streams = [provider.stream(REQUEST) for _ in range(9)]
    first = await asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
    refused = [each for each in first if isinstance(each, BudgetExceededError)]
    # Five tokens of input each: with four under way, the fifth is one too many.
    assert len(refused) == 5
    assert {each.spent for each in refused} == {Decimal(20)}
    for stream in streams:
        await stream.aclose()
    assert ledger.total.calls == 4


async def test_what_a_failed_call_was_thought_to_take_is_given_back() -> None:
    provider, _ = metered(RateLimitError("busy"), *[answer(1, 1)] * 2, process_tokens=4)
    with pytest.raises(RateLimitError):
        await provider.complete(REQUEST)
    await provider.complete(REQUEST)
    await provider.complete(REQUEST)
    with pytest.raises(BudgetExceededError):
        await provider.complete(REQUEST)


async def test_a_limited_cost_can_t_be_met_by_models_without_a_price() -> None:
    provider, _ = metered(answer(model="other"), "never", process_cost=1)
    request = LLMRequest(messages=REQUEST.messages)
    await provider.complete(request)
    with pytest.raises(ConfigurationError) as caught:
        await provider.complete(request)
    assert str(caught.value) == (
        "budget.prices: expected a price for 'other', found none; without it budget.process_cost "
        "can't hold: write [budget.prices.'other'] with input and output"
    )


@given(
    limit=st.integers(0, 500),
    calls=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=20),
)
def test_no_call_is_made_once_the_limit_is_reached(
    limit: int, calls: list[tuple[int, int]]
) -> None:
    ledger = UsageLedger(BudgetSettings(process_tokens=limit))
    for taken in calls:
        before = ledger.total.tokens
        try:
            call = ledger.begin(None, REQUEST)
        except BudgetExceededError:
            assert before >= limit
        else:
            assert before < limit
            call.end(answer(*taken))
            assert ledger.total.tokens == before + sum(taken)


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity"])
def test_a_price_that_can_t_be_meant_is_refused(price: str) -> None:
    with pytest.raises(ConfigurationError, match="output: expected a number from 0 up"):
        PriceSettings(input=Decimal(1), output=Decimal(price))


def test_a_limited_cost_needs_prices() -> None:
    with pytest.raises(ConfigurationError, match="session_cost: expected prices"):
        BudgetSettings(session_cost=1)


# -- Memory


def test_an_account_that_is_ended_is_gone() -> None:
    ledger = UsageLedger()
    call = ledger.begin("a", REQUEST)
    ledger.forget("a")
    call.end(answer())
    assert ledger.session("a") == Account()
    assert ledger.total.tokens == 110
    ledger.forget("a")


def test_sessions_that_never_end_don_t_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SESSIONS", 100)
    ledger = UsageLedger()
    for number in range(1000):
        ledger.begin("busy", REQUEST).end(answer())
        ledger.begin(str(number), REQUEST).end(answer())
    gc.collect()
    assert ledger.session("busy").calls == 1000
    assert [ledger.session(str(number)).calls for number in (0, 900, 901, 999)] == [0, 0, 1, 1]

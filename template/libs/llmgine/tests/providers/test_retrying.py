"""Failed calls are tried again: those that may succeed, within limits, unseen by the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmgine.contracts import (
    ChatMessage,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamStart,
    TextDelta,
    Usage,
    UsageUpdate,
    capabilities_of,
    closing,
    fold,
)
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import (
    AuthenticationError,
    BadResponseError,
    ConflictError,
    ContextLengthError,
    InvalidRequestError,
    OverloadedError,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.providers.observed import ObservedProvider
from llmgine.providers.retrying import RetryingProvider
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.settings import RetrySettings
from llmgine.testing.fixtures import run_in_virtual_time
from llmgine.testing.provider_suite import ProviderSuite
from llmgine.testing.recording import RecordingPublisher

T = TypeVar("T")
REQUEST = LLMRequest(messages=(ChatMessage.user("hi"),))
FOR_A_WHILE = (
    RateLimitError,
    OverloadedError,
    ProviderServerError,
    ConflictError,
    ProviderTimeoutError,
    ProviderConnectionError,
)
FOR_GOOD = (
    InvalidRequestError,
    ContextLengthError,
    AuthenticationError,
    QuotaExceededError,
    ProviderError,
    ZeroDivisionError,
)


class TestRetryingProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return RetryingProvider(ScriptedProvider())


def timed(work: Coroutine[object, object, T]) -> tuple[T | BaseException, float]:
    """Return what the work comes to, and the seconds that it would have taken."""

    async def outcome() -> tuple[T | BaseException, float]:
        (result,) = await asyncio.gather(work, return_exceptions=True)
        return result, asyncio.get_running_loop().time()

    return run_in_virtual_time(outcome())


def retrying(*script: ScriptStep, **settings: float) -> tuple[RetryingProvider, ScriptedProvider]:
    provider = ScriptedProvider(script)
    return RetryingProvider(provider, RetrySettings(**settings)), provider  # pyright: ignore[reportArgumentType]


async def read(stream: AsyncIterator[LLMChunk]) -> LLMResponse:
    return fold([chunk async for chunk in stream])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", FOR_A_WHILE)
def test_an_error_for_a_while_is_passed_over(kind: type[ProviderError], whole: bool) -> None:
    provider, inner = retrying(kind("busy"), kind("busy"), "Hello!")
    call = provider.complete(REQUEST) if whole else read(provider.stream(REQUEST))
    response, seconds = timed(call)
    assert isinstance(response, LLMResponse)
    assert response.text == "Hello!"
    assert seconds <= 0.5 + 1.0
    inner.assert_finished()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", FOR_GOOD)
def test_any_other_error_is_raised_at_once(kind: type[Exception], whole: bool) -> None:
    error = kind("no")
    provider, inner = retrying(error, "never")
    call = provider.complete(REQUEST) if whole else read(provider.stream(REQUEST))
    assert timed(call) == (error, 0.0)
    assert len(inner.requests) == 1


def test_an_error_says_itself_whether_to_try_again() -> None:
    error = RateLimitError("not today")
    error.retryable = False
    provider, _ = retrying(error, "never")
    assert timed(provider.complete(REQUEST)) == (error, 0.0)


def test_a_provider_that_says_why_it_ended_a_stream_is_believed() -> None:
    error = StreamInterruptedError("too long")
    error.provider_code = "context_length_exceeded"
    provider, inner = retrying(error, "never")
    assert timed(read(provider.stream(REQUEST))) == (error, 0.0)
    assert len(inner.requests) == 1


def test_the_last_error_is_raised_after_all_attempts() -> None:
    errors = [RateLimitError(str(number)) for number in range(4)]
    provider, inner = retrying(*errors, "never", attempts=4)
    found, _ = timed(provider.complete(REQUEST))
    assert found is errors[-1]
    assert len(inner.requests) == 4


def test_one_attempt_is_none_again() -> None:
    provider, inner = retrying(RateLimitError("busy"), "never", attempts=1)
    found, seconds = timed(provider.complete(REQUEST))
    assert isinstance(found, RateLimitError)
    assert (len(inner.requests), seconds) == (1, 0.0)


def test_a_bad_response_is_tried_again_once() -> None:
    provider, inner = retrying(BadResponseError("?"), "Fine")
    response, _ = timed(provider.complete(REQUEST))
    assert isinstance(response, LLMResponse)
    provider, inner = retrying(
        BadResponseError("?"), RateLimitError("busy"), BadResponseError("!"), "never", attempts=9
    )
    found, _ = timed(provider.complete(REQUEST))
    assert str(found) == "!"
    assert len(inner.requests) == 3


@given(
    asked=st.none() | st.floats(0, 20),
    delay=st.floats(0, 5),
    attempts=st.integers(1, 6),
)
def test_pauses_are_as_long_as_asked_and_no_longer_than_allowed(
    asked: float | None, delay: float, attempts: int
) -> None:
    errors = [RateLimitError("busy", retry_after=asked) for _ in range(attempts - 1)]
    provider, _ = retrying(*errors, "Hello!", attempts=attempts, delay=delay, max_delay=20)
    response, seconds = timed(provider.complete(REQUEST))
    assert isinstance(response, LLMResponse)
    least = (asked or 0.0) * (attempts - 1)
    most = least + sum(min(20, delay * 2**number) for number in range(attempts - 1))
    assert least - 0.001 <= seconds <= most + 0.001


def test_pauses_are_of_chance() -> None:
    taken = {
        timed(retrying(RateLimitError("busy"), "Hello!", delay=10)[0].complete(REQUEST))[1]
        for _ in range(9)
    }
    assert len(taken) > 1
    assert max(taken) <= 10


def test_a_provider_that_asks_for_too_long_a_pause_is_not_waited_for() -> None:
    error = RateLimitError("tomorrow", retry_after=31)
    provider, _ = retrying(error, "never", max_delay=30)
    assert timed(provider.complete(REQUEST)) == (error, 0.0)


def test_no_pause_ends_after_the_deadline() -> None:
    error = RateLimitError("busy", retry_after=10)
    provider, inner = retrying(*[error] * 9, attempts=9, deadline=25, delay=0)
    found, seconds = timed(provider.complete(REQUEST))
    assert found is error
    assert (len(inner.requests), seconds) == (3, 20.0)


@pytest.mark.parametrize("limits", [{"deadline": 7.0}, {"timeout": 7.0}, {"timeout": 0.0}])
def test_the_limit_is_for_all_attempts_together(limits: dict[str, float]) -> None:
    seen: list[float | None] = []

    class Stuck:
        name = "stuck"

        async def complete(self, request: LLMRequest) -> LLMResponse:
            seen.append(request.timeout)
            if len(seen) == 1:
                raise RateLimitError("busy", retry_after=2)
            await asyncio.sleep(3600)
            raise AssertionError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            yield StreamStart()
            await self.complete(request)

    request = LLMRequest(messages=REQUEST.messages, timeout=limits.get("timeout"))
    settings = RetrySettings(deadline=limits.get("deadline", 600), delay=0)
    provider = RetryingProvider(Stuck(), settings)
    for call in (provider.complete(request), read(provider.stream(request))):
        seen.clear()
        found, seconds = timed(call)
        limit = next(iter(limits.values()))
        assert isinstance(found, ProviderError)
        if limit:
            assert isinstance(found, ProviderTimeoutError)
            assert str(found) == "no answer within 7 s, in 2 attempt(s)"
            assert seen == [request.timeout, request.timeout and 5.0]
        assert seconds == limit


def test_an_answer_that_has_begun_may_go_on_after_the_deadline() -> None:
    provider = RetryingProvider(
        ScriptedProvider(["one two three"], delay=4), RetrySettings(deadline=10)
    )
    response, seconds = timed(read(provider.stream(REQUEST)))
    assert isinstance(response, LLMResponse)
    assert response.text == "one two three"
    assert seconds > 10


def test_a_time_limit_of_the_callers_own_is_not_taken_for_the_provider_s() -> None:
    own = TimeoutError("mine")
    provider, _ = retrying(own)
    assert timed(provider.complete(REQUEST)) == (own, 0.0)


@pytest.mark.parametrize("after", [0, 1])
def test_a_stream_is_tried_again_until_a_piece_of_its_answer_is_there(after: int) -> None:
    provider, inner = retrying(BrokenStream("Half an answer", after=after), "Whole")
    found, _ = timed(read(provider.stream(REQUEST)))
    if after:
        assert isinstance(found, StreamInterruptedError)
        assert len(inner.requests) == 1
    else:
        assert isinstance(found, LLMResponse)
        assert found.text == "Whole"


async def test_only_the_attempt_that_succeeds_is_seen() -> None:
    class Flaky:
        name = "flaky"
        calls = 0

        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            self.calls += 1
            yield StreamStart(id=str(self.calls))
            yield UsageUpdate(usage=Usage(input_tokens=1))
            if self.calls == 1:
                raise OverloadedError("busy")
            yield TextDelta(text="Hello!")

    provider = RetryingProvider(Flaky(), RetrySettings(delay=0))
    chunks = [chunk async for chunk in provider.stream(REQUEST)]
    assert chunks == [
        StreamStart(id="2"),
        UsageUpdate(usage=Usage(input_tokens=1)),
        TextDelta(text="Hello!"),
    ]


async def test_an_attempt_s_stream_is_closed_before_the_next_and_when_the_caller_leaves() -> None:
    log: list[str] = []

    class Closing:
        name = "closing"

        async def complete(self, request: LLMRequest) -> LLMResponse:
            raise NotImplementedError

        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            first = not log
            log.append("open")
            try:
                yield StreamStart()
                if first:
                    raise RateLimitError("busy")
                while True:
                    yield TextDelta(text="on and on")
            finally:
                log.append("closed")

    provider = RetryingProvider(Closing(), RetrySettings(delay=0))
    async with closing(provider.stream(REQUEST)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                break
    assert log == ["open", "closed", "open", "closed"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_cancelled_caller_is_gone_at_once(whole: bool) -> None:
    async def cancelled(*script: ScriptStep, delay: float) -> float:
        inner = ScriptedProvider(script, delay=delay)
        provider = RetryingProvider(inner, RetrySettings(delay=0))
        call = provider.complete(REQUEST) if whole else read(provider.stream(REQUEST))
        task = asyncio.create_task(call)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(inner.requests) == 1
        return asyncio.get_running_loop().time()

    pausing = cancelled(RateLimitError("busy", retry_after=20), "never", delay=0)
    assert timed(pausing) == (1.0, 1.0)
    if not whole:
        assert timed(cancelled("Hello!", "never", delay=60)) == (1.0, 1.0)


async def test_each_attempt_is_a_model_call_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    publisher = RecordingPublisher()
    observed = ObservedProvider(
        ScriptedProvider([RateLimitError("busy"), "Hello!"], name="theirs"), publisher
    )
    await RetryingProvider(observed, RetrySettings(delay=0)).complete(REQUEST)
    assert len({event.call_id for event in publisher.of(LLMCallStartedEvent)}) == 2
    failed, answered = publisher.of(LLMCallResultEvent)
    assert isinstance(failed.error, RateLimitError)
    assert answered.error is None
    assert caplog.messages == [
        "theirs: attempt 1 of 3 failed (RateLimitError: busy); the next follows in 0.0 s"
    ]


def test_it_can_do_what_its_provider_can() -> None:
    class Plain(ScriptedProvider):
        @property
        def capabilities(self) -> ProviderCapabilities:
            return ProviderCapabilities(tools=False)

    provider = RetryingProvider(Plain(name="plain"))
    assert provider.name == "plain"
    assert not capabilities_of(provider).tools

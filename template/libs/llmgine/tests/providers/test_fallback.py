"""Another provider answers where one can't."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest
from llmgine.contracts import (
    ChatMessage,
    LLMChunk,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamStart,
    capabilities_of,
    fold,
)
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import (
    AuthenticationError,
    BadResponseError,
    CallCancelledError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from llmgine.providers.fallback import Alternative, FallbackProvider
from llmgine.providers.scripted import BrokenStream, ScriptedProvider, ScriptStep
from llmgine.testing.provider_suite import ProviderSuite

REQUEST = LLMRequest(
    messages=(ChatMessage.user("hi"),), model="large", provider_options={"only": "first"}
)
HELPED = (
    RateLimitError,
    OverloadedError,
    ProviderServerError,
    ProviderTimeoutError,
    ProviderConnectionError,
    BadResponseError,
    QuotaExceededError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    ProviderError,
)
FINAL = (
    InvalidRequestError,
    ContextLengthError,
    ContentFilterError,
    CallCancelledError,
    ZeroDivisionError,
)


class TestFallbackProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return FallbackProvider(ScriptedProvider(), ScriptedProvider())


class TestFallbackProviderWhoseFirstIsAway(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        def away(request: LLMRequest) -> ProviderError:
            if request.tool_choice is not None:
                return InvalidRequestError("no such tool")
            return OverloadedError("away")

        return FallbackProvider(ScriptedProvider([away] * 99), ScriptedProvider())


def chain(*scripts: list[ScriptStep]) -> tuple[FallbackProvider, list[ScriptedProvider]]:
    providers = [
        ScriptedProvider(script, name=name)
        for name, script in zip(("one", "two", "three"), scripts, strict=False)
    ]
    first, *others = providers
    return FallbackProvider(first, *others), providers


async def ask(provider: LLMProvider, *, whole: bool, request: LLMRequest = REQUEST) -> LLMResponse:
    return await (provider.complete(request) if whole else read(provider.stream(request)))


async def read(stream: AsyncIterator[LLMChunk]) -> LLMResponse:
    return fold([chunk async for chunk in stream])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", HELPED)
async def test_the_next_is_asked_and_says_who_it_is(
    kind: type[ProviderError], whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    provider, (_, second, third) = chain([kind("no")], ["Hello!"], [])
    response = await ask(provider, whole=whole)
    assert (response.text, response.provider) == ("Hello!", "two")
    second.assert_finished()
    assert third.requests == []
    assert caplog.messages == [
        f"one can't answer ({kind.__name__}: no); asking two",
        "two answers in the place of one",
    ]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", FINAL)
async def test_nobody_is_asked_where_nobody_can_help(kind: type[Exception], whole: bool) -> None:
    error = kind("no")
    provider, (_, second) = chain([error], ["never"])
    with pytest.raises(kind) as caught:
        await ask(provider, whole=whole)
    assert caught.value is error
    assert second.requests == []


@pytest.mark.parametrize("whole", [True, False])
async def test_where_nobody_answers_the_first_error_is_raised(whole: bool) -> None:
    busy = OverloadedError("busy")
    provider, providers = chain([busy], [InvalidRequestError("no pictures")], [RateLimitError("!")])
    with pytest.raises(OverloadedError) as caught:
        await ask(provider, whole=whole)
    assert caught.value is busy
    assert caught.value.__notes__ == [
        "two, asked instead: InvalidRequestError: no pictures",
        "three, asked instead: RateLimitError: !",
    ]
    assert [len(each.requests) for each in providers] == [1, 1, 1]


async def test_a_caller_who_left_is_not_asked_for_at_another() -> None:
    provider, (_, _, third) = chain([OverloadedError("busy")], [CallCancelledError("left")], ["no"])
    with pytest.raises(CallCancelledError):
        await provider.complete(REQUEST)
    assert third.requests == []


@pytest.mark.parametrize("whole", [True, False])
async def test_each_is_asked_for_its_own_model_and_options(whole: bool) -> None:
    busy = OverloadedError("busy")
    first, same = ScriptedProvider([busy], name="one"), ScriptedProvider([busy], name="one")
    other = ScriptedProvider(["Hello!"], name="other")
    provider = FallbackProvider(first, Alternative(provider=same, model="small"), other)
    await ask(provider, whole=whole)
    assert first.requests == [REQUEST]
    assert same.requests == [replace(REQUEST, model="small")]
    assert other.requests == [replace(REQUEST, model="", provider_options={})]


@pytest.mark.parametrize("after", [0, 1])
async def test_a_stream_goes_over_only_before_a_piece_of_its_answer(after: int) -> None:
    provider, (_, second) = chain([BrokenStream("Half of it", after=after)], ["Whole"])
    if after:
        with pytest.raises(StreamInterruptedError):
            await read(provider.stream(REQUEST))
        assert second.requests == []
    else:
        assert (await read(provider.stream(REQUEST))).text == "Whole"


@pytest.mark.parametrize("whole", [True, False])
async def test_the_request_s_time_is_for_all_together(whole: bool) -> None:
    class Slow(ScriptedProvider):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            await asyncio.sleep((request.timeout or 0) + 0.001)
            raise ProviderTimeoutError("late")

        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            await self.complete(request)
            yield StreamStart()

    provider = FallbackProvider(Slow([]), second := ScriptedProvider(["never"]))
    request = replace(REQUEST, timeout=0.01)
    with pytest.raises(ProviderTimeoutError, match="late"):
        await ask(provider, whole=whole, request=request)
    assert second.requests == []


async def test_what_is_left_of_the_time_is_handed_on() -> None:
    provider, (_, second) = chain([OverloadedError("busy")], ["Hello!"])
    await provider.complete(replace(REQUEST, timeout=60.0))
    assert second.requests[0].timeout is not None
    assert second.requests[0].timeout < 60


def test_it_can_do_what_all_can() -> None:
    class Able(ScriptedProvider):
        def __init__(self, able: ProviderCapabilities) -> None:
            super().__init__()
            self.able = able

        @property
        def capabilities(self) -> ProviderCapabilities:
            return self.able

    provider = FallbackProvider(
        Able(ProviderCapabilities(tools=False)), Able(ProviderCapabilities(media=False))
    )
    assert capabilities_of(provider) == ProviderCapabilities(tools=False, media=False)
    assert provider.name == "scripted"

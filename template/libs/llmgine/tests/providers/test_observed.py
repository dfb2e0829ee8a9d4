"""Every model call is told of once, however it ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest
from llmgine.contracts import (
    ChatMessage,
    Event,
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunk,
    LLMChunkEvent,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    StreamEnd,
    StreamStart,
    TextDelta,
    capabilities_of,
    closing,
    fold,
    fold_stream,
)
from llmgine.contracts.ambient import AMBIENT, Ambient
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import CallCancelledError, QueueFullError, RateLimitError
from llmgine.providers import ObservedProvider, ScriptedProvider
from llmgine.providers.scripted import BrokenStream
from llmgine.testing.provider_suite import ProviderSuite

REQUEST = LLMRequest(messages=(ChatMessage.user("hi"),))


class Recorder:
    """Keeps events; refuses those that `refuse` picks, and holds results while `gate` is shut."""

    def __init__(self, refuse: Callable[[Event], bool] = lambda _: False) -> None:
        self.events: list[Event] = []
        self.offered: list[Event] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_gate = asyncio.Event()
        self.told = asyncio.Event()
        self._refuse = refuse

    async def publish(self, event: Event) -> None:
        self.offered.append(event)
        if self._refuse(event):
            raise QueueFullError("full")
        if isinstance(event, LLMCallResultEvent):
            self.at_gate.set()
            await self.gate.wait()
        self.events.append(event)
        if isinstance(event, LLMCallResultEvent):
            self.told.set()

    @property
    def chunks(self) -> list[LLMChunkEvent]:
        return [event for event in self.events if isinstance(event, LLMChunkEvent)]

    @property
    def results(self) -> list[LLMCallResultEvent]:
        return [event for event in self.events if isinstance(event, LLMCallResultEvent)]

    def result(self) -> LLMCallResultEvent:
        (started,) = [event for event in self.events if isinstance(event, LLMCallStartedEvent)]
        (result,) = self.results
        assert started.call_id == result.call_id
        assert all(event.call_id == result.call_id for event in self.chunks)
        return result


class Hanging:
    """Says one word, then hangs; notes when its stream is closed."""

    name = "hanging"

    def __init__(self, failure: Exception | None = None) -> None:
        self.hangs = asyncio.Event()
        self.closed = asyncio.Event()
        self._failure = failure

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold_stream(self.stream(request))

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        try:
            yield StreamStart(provider="hanging")
            yield TextDelta(text="Half")
            self.hangs.set()
            await asyncio.Event().wait()
        finally:
            # Closing takes its time, as that of a connection does.
            await asyncio.sleep(0)
            self.closed.set()
            if self._failure is not None:
                raise self._failure


class TestObservedProvider(ProviderSuite):
    def make_provider(self) -> LLMProvider:
        return ObservedProvider(ScriptedProvider(), Recorder())


async def read(stream: AsyncIterator[LLMChunk]) -> list[LLMChunk]:
    return [chunk async for chunk in stream]


async def test_a_whole_answer_is_told_of() -> None:
    recorder = Recorder()
    provider = ObservedProvider(ScriptedProvider(["Hello"]), recorder)
    response = await provider.complete(REQUEST)
    started, result = recorder.events
    assert isinstance(started, LLMCallStartedEvent)
    assert (started.provider, started.request) == ("scripted", REQUEST)
    assert isinstance(result, LLMCallResultEvent)
    assert result.call_id == started.call_id
    assert result.response is response
    assert (result.error, result.time_to_first_chunk) == (None, None)
    assert result.duration > 0


async def test_a_stream_is_told_of_chunk_by_chunk() -> None:
    recorder = Recorder()
    chunks = await read(ObservedProvider(ScriptedProvider(["a b"]), recorder).stream(REQUEST))
    assert [event.chunk for event in recorder.chunks] == chunks
    assert [event.index for event in recorder.chunks] == list(range(len(chunks)))
    result = recorder.result()
    assert result.response == fold(chunks)
    assert result.time_to_first_chunk is not None
    assert 0 < result.time_to_first_chunk <= result.duration
    assert recorder.events[-1] is result


async def test_errors_are_told_of_and_raised() -> None:
    recorder = Recorder()
    error = RateLimitError("slow down")
    with pytest.raises(RateLimitError) as caught:
        await ObservedProvider(ScriptedProvider([error]), recorder).complete(REQUEST)
    assert caught.value is error
    assert (recorder.result().error, recorder.result().response) == (error, None)


async def test_a_stream_that_breaks_off_tells_what_had_come() -> None:
    recorder = Recorder()
    error = RateLimitError("late")
    script = [BrokenStream("one two three", after=2, error=error)]
    with pytest.raises(RateLimitError):
        await read(ObservedProvider(ScriptedProvider(script), recorder).stream(REQUEST))
    result = recorder.result()
    assert result.error is error
    assert result.response is not None
    assert (result.response.text, result.response.finish_reason) == ("one two", "error")


async def test_leaving_a_stream_closes_it_at_once_and_is_told_of() -> None:
    recorder, inner = Recorder(), Hanging()
    async with closing(ObservedProvider(inner, recorder).stream(REQUEST)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, TextDelta):
                break
    assert inner.closed.is_set()
    result = recorder.result()
    assert isinstance(result.error, CallCancelledError)
    assert result.error.partial is result.response
    assert result.response is not None
    assert (result.response.text, result.response.finish_reason) == ("Half", "cancelled")


async def test_a_stream_that_is_dropped_is_closed_by_the_loop() -> None:
    recorder, inner = Recorder(), Hanging()
    async for _ in ObservedProvider(inner, recorder).stream(REQUEST):
        break
    await recorder.told.wait()
    assert inner.closed.is_set()
    assert isinstance(recorder.result().error, CallCancelledError)


async def test_a_stream_that_was_never_read_is_no_call() -> None:
    recorder = Recorder()
    await ObservedProvider(ScriptedProvider([]), recorder).stream(REQUEST).aclose()
    assert recorder.events == []


async def test_closing_a_finished_stream_adds_nothing() -> None:
    recorder = Recorder()
    stream = ObservedProvider(ScriptedProvider(["a"]), recorder).stream(REQUEST)
    await read(stream)
    await stream.aclose()
    assert recorder.result().error is None


@pytest.mark.parametrize("whole", [True, False])
async def test_a_cancelled_call_is_told_of(whole: bool) -> None:
    recorder, inner = Recorder(), Hanging()
    provider = ObservedProvider(inner, recorder)
    work = provider.complete(REQUEST) if whole else read(provider.stream(REQUEST))
    task = asyncio.ensure_future(work)
    await inner.hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.closed.is_set()
    result = recorder.result()
    assert isinstance(result.error, CallCancelledError)
    assert (result.response is None) == whole


@pytest.mark.parametrize("finished", [True, False])
async def test_a_cancellation_while_the_end_is_told_does_not_lose_it(finished: bool) -> None:
    recorder, inner = Recorder(), Hanging()
    recorder.gate.clear()
    provider = ObservedProvider(ScriptedProvider(["a"]) if finished else inner, recorder)
    task = asyncio.create_task(read(provider.stream(REQUEST)))
    if not finished:
        await inner.hangs.wait()
        task.cancel()
    await recorder.at_gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.results == []
    recorder.gate.set()
    await recorder.told.wait()
    assert (recorder.result().error is None) == finished


@pytest.mark.parametrize("inside_a_task", [True, False])
def test_the_end_of_the_loop_is_told_of(inside_a_task: bool) -> None:
    kept: list[object] = []

    async def main() -> Recorder:
        recorder, inner = Recorder(), Hanging()
        stream = ObservedProvider(inner, recorder).stream(REQUEST)
        if inside_a_task:
            kept.append(asyncio.create_task(read(stream)))
            await inner.hangs.wait()
        else:
            kept.append(stream)
            await anext(stream)
        return recorder

    recorder = asyncio.run(main())
    assert isinstance(recorder.result().error, CallCancelledError)


async def test_an_error_in_closing_the_inner_stream_comes_through() -> None:
    recorder = Recorder()
    stream = ObservedProvider(Hanging(RateLimitError("at the end")), recorder).stream(REQUEST)
    await anext(stream)
    with pytest.raises(RateLimitError):
        await stream.aclose()
    assert isinstance(recorder.result().error, RateLimitError)


async def test_events_belong_to_the_place_of_the_call() -> None:
    recorder = Recorder()
    provider = ObservedProvider(ScriptedProvider(["a"]), recorder)

    def call() -> AsyncIterator[LLMChunk]:
        here = Ambient()
        here.session_id, here.parent_id = "session", "command"
        AMBIENT.set(here)
        return provider.stream(REQUEST)

    # The stream is made in a handler's context and read outside of it.
    await read(contextvars.copy_context().run(call))
    assert len(recorder.events) > 3
    assert {event.session_id for event in recorder.events} == {"session"}
    assert {event.parent_id for event in recorder.events} == {"command"}


async def test_a_reader_keeps_its_own_context_between_chunks() -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="outside")
    seen: list[str] = []

    class Setting(Hanging):
        async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
            for chunk in (StreamStart(), TextDelta(text="a"), StreamEnd()):
                seen.append(place.get())
                yield chunk

    async for _ in ObservedProvider(Setting(), Recorder()).stream(REQUEST):
        place.set("inside")
    assert seen == ["outside", "inside", "inside"]


async def test_a_full_queue_does_not_cost_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(refuse=lambda event: isinstance(event, LLMChunkEvent))
    provider = ObservedProvider(ScriptedProvider(["one two three"]), recorder)
    response = await fold_stream(provider.stream(REQUEST))
    assert response.text == "one two three"
    assert recorder.result().response == response
    # Once refused, the call's other chunks are not offered: a reader of half of them has nothing.
    assert sum(isinstance(event, LLMChunkEvent) for event in recorder.offered) == 1
    assert caplog.text.count("was not published") == 1


async def test_a_publisher_that_refuses_everything_changes_nothing() -> None:
    recorder = Recorder(refuse=lambda _: True)
    provider = ObservedProvider(ScriptedProvider(["a", "b"]), recorder)
    assert (await provider.complete(REQUEST)).text == "a"
    assert (await fold_stream(provider.stream(REQUEST))).text == "b"
    assert recorder.events == []


async def test_name_and_capabilities_are_the_inner_ones() -> None:
    class Modest(Hanging):
        capabilities = ProviderCapabilities(tools=False)

    provider = ObservedProvider(Modest(), Recorder())
    assert provider.name == "hanging"
    assert not capabilities_of(provider).tools
    assert capabilities_of(ObservedProvider(Hanging(), Recorder())).tools

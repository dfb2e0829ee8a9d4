"""Events for every model call, whoever answers it. Providers themselves publish nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import TypedDict

from llmgine.contracts import (
    LLMCallResultEvent,
    LLMCallStartedEvent,
    LLMChunk,
    LLMChunkEvent,
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Publisher,
    StreamStart,
    current_parent_id,
    current_session_id,
    new_id,
)
from llmgine.contracts.protocols import ProviderCapabilities, capabilities_of, tell, tell_surely
from llmgine.contracts.stream import ResponseBuilder, closing
from llmgine.errors import CallCancelledError
from llmgine.providers.usage import MeteredCall, UsageLedger

__all__ = ["ObservedProvider"]


class _About(TypedDict):
    """What all events of one call have in common."""

    session_id: str | None
    parent_id: str | None
    call_id: str


class _Call:
    """One model call, and what is told of it.

    Session and parent are those of the place where the call was made: a stream may be read, and
    closed, by somebody else.
    """

    def __init__(
        self, provider: str, publisher: Publisher, ledger: UsageLedger | None, request: LLMRequest
    ) -> None:
        self._provider = provider
        self._publisher = publisher
        self._ledger = ledger
        self._metered: MeteredCall | None = None
        self._request = request
        self._about: _About = {
            "session_id": current_session_id(),
            "parent_id": current_parent_id(),
            "call_id": new_id(),
        }
        self._started = perf_counter()
        self._first: float | None = None
        self._chunks = 0
        self._chunks_wanted = True
        self._answer = ResponseBuilder()

    def admit(self) -> None:
        """Begin, unless what may be spent is spent: then there is no call to tell of."""
        if self._ledger is not None:
            self._metered = self._ledger.begin(self._about["session_id"], self._request)

    async def start(self) -> None:
        self._started = perf_counter()
        event = LLMCallStartedEvent(**self._about, provider=self._provider, request=self._request)
        await tell(self._publisher, event)

    async def chunk(self, chunk: LLMChunk) -> None:
        """Note a chunk and tell of it; once one is refused, this call's others aren't offered."""
        self._answer.add(chunk)
        if self._first is None and not isinstance(chunk, StreamStart):
            self._first = perf_counter() - self._started
        if self._chunks_wanted:
            event = LLMChunkEvent(**self._about, index=self._chunks, chunk=chunk)
            self._chunks_wanted = await tell(self._publisher, event)
        self._chunks += 1

    async def done(self, response: LLMResponse | None = None) -> None:
        """Tell of the end, with the whole answer or what the chunks make up."""
        await self._end(response or self._answer.response(), None)

    async def failed(self, error: BaseException) -> None:
        """Tell of an end before the end, with what had arrived of the answer."""
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
        partial = None
        if not self._answer.empty:
            partial = self._answer.response(unfinished="cancelled" if cancelled else "error")
        if cancelled:
            left = "the stream was left" if isinstance(error, GeneratorExit) else "cancelled"
            error = CallCancelledError(
                f"{left} before the answer was complete", provider=self._provider, partial=partial
            )
        await self._end(partial, error)

    async def _end(self, response: LLMResponse | None, error: BaseException | None) -> None:
        if self._metered is not None:
            self._metered.end(response)
        event = LLMCallResultEvent(
            **self._about,
            provider=self._provider,
            response=response,
            error=error,
            duration=perf_counter() - self._started,
            time_to_first_chunk=self._first,
        )
        # A (second) cancellation of the caller must not lose the event.
        await tell_surely(self._publisher, event)


class ObservedProvider:
    """Hands every call on to another provider and publishes what becomes of it.

    Each call has one `LLMCallStartedEvent`, one `LLMChunkEvent` per chunk of a stream, and exactly
    one `LLMCallResultEvent`: also if it fails, is cancelled, or its stream is left early, with
    what had arrived by then (the error is a `CallCancelledError` where the caller went away).
    An event that can't be published is logged and changes nothing for the caller.

    Leaving a stream closes the provider's own stream before the result is told.

    Args:
        provider: who answers.
        publisher: who is told.
        ledger: where the calls are accounted for, and refused beyond the budget.
    """

    def __init__(
        self, provider: LLMProvider, publisher: Publisher, ledger: UsageLedger | None = None
    ) -> None:
        self.name = provider.name
        self._provider = provider
        self._publisher = publisher
        self._ledger = ledger

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Those of the provider that answers."""
        return capabilities_of(self._provider)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the provider's answer, or raise its error.

        Raises:
            BudgetExceededError: what may be spent is spent; the provider isn't asked.
        """
        call = self._call(request)
        call.admit()
        try:
            await call.start()
            response = await self._provider.complete(request)
        except BaseException as error:
            await call.failed(error)
            raise
        await call.done(response)
        return response

    def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the provider's chunks; the call begins when the first is asked for."""
        return self._chunks(request, self._call(request))

    def _call(self, request: LLMRequest) -> _Call:
        return _Call(self.name, self._publisher, self._ledger, request)

    async def _chunks(self, request: LLMRequest, call: _Call) -> AsyncGenerator[LLMChunk, None]:
        call.admit()
        try:
            await call.start()
            async with closing(self._provider.stream(request)) as chunks:
                async for chunk in chunks:
                    await call.chunk(chunk)
                    yield chunk
        except BaseException as error:
            await call.failed(error)
            raise
        await call.done()

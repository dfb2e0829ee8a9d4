"""Asking another provider when one can't answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, replace

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse, StreamStart
from llmgine.contracts.chat import JsonObject
from llmgine.contracts.protocols import ProviderCapabilities, capabilities_of
from llmgine.contracts.stream import closing
from llmgine.errors import (
    CallCancelledError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    ProviderError,
)
from llmgine.providers._beginning import TimeLeft, beginning

__all__ = ["Alternative", "FallbackProvider", "build"]

_log = logging.getLogger(__name__)
_NONE: JsonObject = {}
# The request's own fault, or the caller's will: nobody else is asked.
_FINAL = (InvalidRequestError, ContextLengthError, ContentFilterError, CallCancelledError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """Who is asked instead, and for which model.

    Attributes:
        provider: who answers.
        model: its model, in the place of the request's; empty means its own default.
    """

    provider: LLMProvider
    model: str = ""


class _Search:
    """One request on its way from provider to provider."""

    def __init__(self, request: LLMRequest, chain: Sequence[Alternative]) -> None:
        self._left = TimeLeft(request)
        self._first = chain[0].provider.name
        self._errors: list[tuple[str, ProviderError]] = []

    def request(self, each: Alternative) -> LLMRequest:
        """Return the request as the next provider can take it.

        Raises:
            ProviderError: there is no time left to ask anybody; it is the first one's error.
        """
        name = each.provider.name
        if not self._errors:
            return self._left.request(name)
        if self._left.over:
            raise self.failure()
        failed, error = self._errors[-1]
        text = f"{type(error).__name__}: {error}"
        _log.warning("%s can't answer (%s); asking %s", failed, text, name)
        request = self._left.request(name)
        # What only the first provider knows would be an error to another.
        known = request.provider_options if name == self._first else _NONE
        return replace(request, model=each.model, provider_options=known)

    def failed(self, each: Alternative, error: ProviderError) -> None:
        """Take note of an error; raise it where nobody else can help."""
        final = isinstance(error, _FINAL) and not self._errors
        if final or isinstance(error, CallCancelledError):
            raise error
        self._errors.append((each.provider.name, error))

    def answered(self, each: Alternative) -> None:
        """Say who answered, if it wasn't the one who was asked."""
        if self._errors:
            _log.info("%s answers in the place of %s", each.provider.name, self._first)

    def failure(self) -> ProviderError:
        """Return the first provider's error, with what the others said as notes."""
        (_, first), *others = self._errors
        for name, error in others:
            first.add_note(f"{name}, asked instead: {type(error).__name__}: {error}")
        return first


class FallbackProvider:
    """Asks one provider after the other until one answers.

        FallbackProvider(OpenAIProvider(), Alternative(provider=AnthropicProvider(), model="..."))

    Another is asked after every error but those that it wouldn't mend: a request that is wrong or
    too long, or that a policy refused, and a caller who went away. So it is also asked where the
    first one's key is wrong or its credit is used up; the log has a warning for each such call.
    Of a stream, only as long as no piece of its answer has been handed on.

    The answer's `provider` says who gave it. Where nobody answers, the first provider's error is
    raised; its notes say what the others met. A request's `timeout` is for all of them together;
    `provider_options` are for the first, and for others of its name.

    Args:
        first: who is asked first.
        others: who is asked then, in this order.
    """

    def __init__(self, first: LLMProvider, *others: LLMProvider | Alternative) -> None:
        self.name = first.name
        self._chain = (
            Alternative(provider=first),
            *(
                each if isinstance(each, Alternative) else Alternative(provider=each)
                for each in others
            ),
        )

    @property
    def capabilities(self) -> ProviderCapabilities:
        """What all of them can do: any may have to answer."""
        able = [asdict(capabilities_of(each.provider)) for each in self._chain]
        return ProviderCapabilities(**{name: all(each[name] for each in able) for name in able[0]})

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the first answer, or raise the first provider's error."""
        search = _Search(request, self._chain)
        for each in self._chain:
            asked = search.request(each)
            try:
                response = await each.provider.complete(asked)
            except ProviderError as error:
                search.failed(each, error)
            else:
                search.answered(each)
                return replace(response, provider=response.provider or each.provider.name)
        raise search.failure()

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the chunks of the first answer that begins, or raise the first one's error."""
        search = _Search(request, self._chain)
        for each in self._chain:
            async with closing(each.provider.stream(search.request(each))) as stream:
                chunks = aiter(stream)
                try:
                    first = await beginning(chunks)
                except ProviderError as error:
                    search.failed(each, error)
                    continue
                search.answered(each)
                for chunk in first:
                    yield _named(chunk, each.provider.name)
                async for chunk in chunks:
                    yield chunk
                return
        raise search.failure()


def _named(chunk: LLMChunk, provider: str) -> LLMChunk:
    if isinstance(chunk, StreamStart) and not chunk.provider:
        return replace(chunk, provider=provider)
    return chunk


def build(first: LLMProvider, others: Sequence[tuple[LLMProvider, str]]) -> LLMProvider:
    """Put the layer around the providers that the settings name, the others with their models."""
    named = (Alternative(provider=provider, model=model) for provider, model in others)
    return FallbackProvider(first, *named)

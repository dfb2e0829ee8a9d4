"""The provider: requests in, a stream of chunks out, the model's thread in between."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from threading import Event

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.contracts.stream import ResponseBuilder, closing, fold_stream
from llmgine.errors import (
    ConfigurationError,
    InvalidRequestError,
    ProviderTimeoutError,
    StreamInterruptedError,
)
from llmgine.providers.local.model import Piece, bundled_model, model_at
from llmgine.providers.local.wire import body_of, chunks_of, end_of, finish_of, raise_for, refuse
from llmgine.settings import ProviderSettings

__all__ = ["LocalProvider", "build"]

_CONTEXT_TOKENS = 4096


class _Answer:
    """Pieces of one answer on their way from the model's thread to the event loop."""

    def __init__(self, timeout: float | None) -> None:
        self.stop = Event()
        self._loop = asyncio.get_running_loop()
        self._end = None if timeout is None else self._loop.time() + timeout
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

    def on_piece(self, piece: Piece) -> bool:
        """Hand a piece over; return whether the model should stop."""
        self.hand_over(piece)
        return self.stop.is_set()

    def hand_over(self, piece: Piece | None) -> None:
        if self.stop.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop is closed: nobody is left to read
            self.stop.set()

    async def next(self) -> Piece | None:
        """Return the next piece; nothing at the end.

        Raises:
            TimeoutError: the time for the whole answer is over.
        """
        async with asyncio.timeout_at(self._end):
            return await self._pieces.get()


class LocalProvider:
    """Asks a small model in this process; the one that comes with the extra has 135 M parameters.

    It shows streaming and JSON output for real, and is often wrong. It can't call tools, see
    pictures or think aloud: requests for that are refused with `InvalidRequestError`, and
    `capabilities` says so beforehand. Foreign reasoning in a history is left out. The model is
    loaded by the first call and shared within the process; calls wait for each other.
    `provider_options` go to llama.cpp as they are; `user_id` and `metadata` go nowhere.

    Args:
        model: a GGUF file; by default the one that comes with the extra.
        context_tokens: how many tokens question and answer may have together.

    Raises:
        ConfigurationError: the extra `local` isn't installed, or there is no such file.
    """

    def __init__(
        self, model: str | Path | None = None, *, context_tokens: int = _CONTEXT_TOKENS
    ) -> None:
        self.name = "local"
        self._model = model_at(Path(model) if model else bundled_model(), context_tokens)

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Text in, text or JSON out."""
        return ProviderCapabilities(tools=False, media=False)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            ProviderError: as `stream`.
        """
        async with closing(self.stream(request)) as chunks:
            return await fold_stream(chunks)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the answer token by token. Leaving it stops the model at its next token.

        Raises:
            InvalidRequestError: the request asks for what the model can't do.
            NotFoundError: the request names another model.
            ContextLengthError: the conversation is too long.
            ProviderTimeoutError: the answer took longer than the request's `timeout`.
            StreamInterruptedError: the model broke off.
            ConfigurationError: the model file can't be loaded.
        """
        refuse(request, self._model.name)
        answer = _Answer(request.timeout)
        builder = ResponseBuilder()
        running = self._model.generate(body_of(request), answer.on_piece, answer.stop)
        running.add_done_callback(lambda _: answer.hand_over(None))
        finish = ""
        try:
            while (piece := await answer.next()) is not None:
                raise_for(piece)
                finish = finish_of(piece) or finish
                for chunk in chunks_of(piece, self._model.name, first=builder.empty):
                    builder.add(chunk)
                    yield chunk
            running.result()
        except TimeoutError as error:
            raise ProviderTimeoutError(
                f"no whole answer within {request.timeout} s",
                provider=self.name,
                partial=builder.response(),
            ) from error
        except ConfigurationError:
            raise
        except ValueError as error:
            raise InvalidRequestError(str(error), provider=self.name) from error
        finally:
            answer.stop.set()
            running.cancel()
        if not finish:
            raise StreamInterruptedError(
                "the local model broke off", provider=self.name, partial=builder.response()
            )
        yield end_of(finish)


def build(settings: ProviderSettings) -> LLMProvider:
    """Make the provider that `provider.name = "local"` names.

    `provider.model` may name another GGUF file. The one option is `context_tokens`.

    Raises:
        ConfigurationError: as `LocalProvider`, or an option isn't known or no number of tokens.
    """
    if unknown := sorted(settings.options.keys() - {"context_tokens"}):
        raise ConfigurationError(
            f"provider.options.{unknown[0]}: the local provider knows only `context_tokens`"
        )
    given = settings.options.get("context_tokens", str(_CONTEXT_TOKENS))
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*", given):
        raise ConfigurationError(
            f"provider.options.context_tokens: expected a number of tokens, got {given!r}"
        )
    return LocalProvider(settings.model or None, context_tokens=int(given))

"""Whatever LiteLLM reaches: some hundred providers, in the shape of chat completions.

LiteLLM takes seconds to import, so that is done in a thread, when the provider is entered or first
asked. It is imported by name: another SDK may share no environment with it, and then neither a
type checker nor an import rule has anything to look at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import ClassVar, Protocol, Self
from weakref import WeakSet

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import ConfigurationError, ProviderError
from llmgine.providers._chat.dialect import Dialect
from llmgine.providers._chat.request import RequestWriter
from llmgine.providers._chat.response import ChunkReader, response_of, said_in
from llmgine.providers._sdk.closing import Closable
from llmgine.providers._sdk.errors import Failures, SdkErrors
from llmgine.providers._sdk.headers import add_headers
from llmgine.providers._sdk.options import (
    checked_options,
    flag_of,
    is_local,
    key_of,
    missing_key,
    seconds_of,
    url_of,
    usable_key,
)
from llmgine.providers._sdk.shape import Fields, fields, items, known, text
from llmgine.providers._sdk.streams import answered, relayed
from llmgine.settings import ProviderSettings

__all__ = ["LiteLLMProvider", "build"]

_NAME = "litellm"
_READ = 600.0
# How the variables end that hold what can be handed on as a key.
_KEYS = ("_API_KEY", "_API_TOKEN")
_OPTIONS = ("api_key", "base_url", "read_timeout", "send_reasoning")
# LiteLLM's exceptions are made of these.
_ERRORS = SdkErrors(
    api=APIError, status=APIStatusError, timeout=APITimeoutError, connection=APIConnectionError
)


class _Failures(Failures):
    """Makes errors of LiteLLM's, which keep the server's headers beside an answer of their own."""

    def of_call(self, error: Exception) -> ProviderError:
        """Return the error of a call of which nothing has been handed on."""
        found = super().of_call(error)
        headers: Mapping[str, str] | None = vars(error).get("litellm_response_headers")
        if headers is not None:
            add_headers(found, headers)
        return found


class _Dumped(Protocol):
    """An object of LiteLLM's that can be had as JSON."""

    def model_dump(self) -> Fields: ...


class _Wrapper(Protocol):
    """A stream of LiteLLM's."""

    received_finish_reason: str | None
    intermittent_finish_reason: str | None

    async def __anext__(self) -> _Dumped: ...

    async def aclose(self) -> None: ...


class LiteLLMProvider(Closable):
    """Asks a model through LiteLLM, which knows some hundred providers by name.

        async with LiteLLMProvider("gemini/gemini-3-flash") as provider: ...

    Keys are read from the variables that LiteLLM names for a provider. Requests are refused as by
    `OpenAIProvider`; what the chosen provider can't do, LiteLLM refuses, and `metadata` as well,
    since LiteLLM wouldn't send it on. `provider_options` are LiteLLM's own arguments. Its retries,
    telemetry, its reading of `.env` and its download of prices are off. Where a provider reports
    no usage in streams, LiteLLM's estimate stands in its place.

    Args:
        model: provider and model, such as `gemini/gemini-3-flash`, where a request names none.
        api_key: the key, where it isn't in LiteLLM's variable.
        base_url: where the server is, where it isn't the provider's own.
        read_timeout: seconds without a sign from the server before it is given up on.
        send_reasoning: whether a model's reasoning goes back to it with the history as text;
            signed reasoning does in any case.
        variables: where keys are looked for besides the environment, by LiteLLM's names.

    Raises:
        ConfigurationError: the key can't be one.
        ModuleNotFoundError: the extra `litellm` isn't installed.
    """

    _asking: ClassVar[WeakSet[LiteLLMProvider]] = WeakSet()

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        read_timeout: float = _READ,
        send_reasoning: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        if find_spec("litellm") is None:
            raise ModuleNotFoundError("No module named 'litellm'", name="litellm")
        self.name = _NAME
        self._model = model
        self._key = usable_key(api_key or "", "api_key") or None
        self._needs_key = not (base_url and is_local(base_url))
        self._base_url = base_url
        self._read_timeout = read_timeout
        self._variables = variables or {}
        self._library: ModuleType | None = None
        self._importing = asyncio.Lock()
        around = (value for name, value in os.environ.items() if name.endswith(_KEYS))
        secrets = (api_key or "", *self._variables.values(), *around)
        self._failures = _Failures(_NAME, _ERRORS, secrets=secrets)
        dialect = Dialect(
            provider=_NAME,
            limit_field="max_tokens",
            user_field="user",
            send_reasoning=send_reasoning,
        )
        self._writer = RequestWriter(dialect, model, self._failures.refusal)

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Everything; LiteLLM refuses what the chosen provider can't do."""
        return ProviderCapabilities()

    async def __aenter__(self) -> Self:
        """Import LiteLLM and look for the key.

        Raises:
            ConfigurationError: there is none.
        """
        self._key_for(self._model, await self._loaded())
        return self

    async def aclose(self) -> None:
        """Close LiteLLM's connections, which all its callers share, with the last of them."""
        self._asking.discard(self)
        if self._library is not None and not self._asking:
            await self._library.close_litellm_async_clients()
            # Else it would go on to use those that are closed.
            self._library.in_memory_llm_clients_cache.flush_cache()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            ProviderError: as `LLMProvider.complete`.
        """
        answer = await answered(self._answer(request), self._failures, request.timeout)
        result = response_of(answer.model_dump(), _Reader())
        if result is None:
            raise self._failures.unusable("the answer is no chat completion")
        return result

    def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the answer piece by piece.

        Raises:
            ProviderError: as `LLMProvider.stream`.
        """

        async def opening() -> tuple[_Stream, _Reader]:
            return _Stream(await self._open(request)), _Reader()

        return relayed(opening, self._failures, request.timeout)

    async def _answer(self, request: LLMRequest) -> _Dumped:
        library = await self._loaded()
        return await library.acompletion(**self._arguments(request, library, stream=False))

    async def _open(self, request: LLMRequest) -> _Wrapper:
        library = await self._loaded()
        return await library.acompletion(**self._arguments(request, library, stream=True))

    def _arguments(
        self, request: LLMRequest, library: ModuleType, *, stream: bool
    ) -> dict[str, object]:
        if request.metadata:
            raise self._failures.refusal("metadata: LiteLLM would keep it to itself")
        body = self._writer.body(request, stream=stream)
        connection = self._connection(request.model or self._model, library)
        if clash := sorted(connection.keys() & body.keys()):
            raise self._failures.refusal(f"provider_options: {clash[0]!r} is the provider's own")
        return {**body, **connection}

    def _connection(self, model: str, library: ModuleType) -> dict[str, object]:
        return {
            "api_key": self._key_for(model, library),
            "api_base": self._base_url,
            "timeout": self._read_timeout,
            "num_retries": 0,
            "max_retries": 0,
        }

    async def _loaded(self) -> ModuleType:
        async with self._importing:
            if self._library is None:
                self._library = await asyncio.to_thread(_imported)
        self._asking.add(self)
        return self._library

    def _key_for(self, model: str, library: ModuleType) -> str | None:
        """Return the key that was given, or stands in `.env`; nothing where LiteLLM has its own.

        A model's key is for its provider alone. Where LiteLLM names several, any of them will do;
        what isn't named like a key (an address, a region) it may find by other ways as well.
        """
        if self._key is not None:
            return self._key
        missing: list[str] = library.validate_environment(model=model)["missing_keys"]
        lacking = [name for name in missing if not os.environ.get(name)]
        found = [name for name in lacking if self._variables.get(name, "").strip()]
        if others := [name for name in found if not name.endswith(_KEYS)]:
            raise ConfigurationError(
                f"provider.name: for {model!r} LiteLLM reads {' and '.join(others)} from the "
                "environment alone; set them there and not in .env"
            )
        if found:
            return usable_key(self._variables[found[0]], f"{found[0]} in .env")
        keys = [name for name in lacking if name.endswith(_KEYS)]
        if keys and self._needs_key:
            raise missing_key(ProviderSettings(name=_NAME), " or ".join(keys))
        return "none" if keys else None


def _imported() -> ModuleType:
    # LiteLLM looks at these as it is imported: no prices from the network, no `.env` of its own.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    library = import_module("litellm")
    vars(library).update(telemetry=False, suppress_debug_info=True)
    return library


class _Stream:
    """A stream of LiteLLM's, without the end that it makes up for one that breaks off."""

    def __init__(self, wrapper: _Wrapper) -> None:
        self._wrapper = wrapper

    async def __anext__(self) -> Fields:
        piece = (await self._wrapper.__anext__()).model_dump()
        wrapper = self._wrapper
        if wrapper.received_finish_reason is None and wrapper.intermittent_finish_reason is None:
            for choice in items(piece.get("choices")):
                fields(choice)["finish_reason"] = None
        return piece

    async def close(self) -> None:
        await self._wrapper.aclose()


class _Reader:
    """Reads LiteLLM's pieces, in which signed reasoning comes as pieces of blocks."""

    def __init__(self) -> None:
        self._chat = ChunkReader(_NAME)
        self._blocks: list[Fields] = []

    def read(self, item: Fields, /) -> Iterator[LLMChunk]:
        """Yield what a piece says."""
        for each in items(item.get("choices")):
            choice = fields(each)
            said = said_in(choice)
            for block in items(said.pop("thinking_blocks", None)):
                self._take(fields(block))
            own = fields(said.pop("provider_specific_fields", None))
            said["refusal"] = said.get("refusal") or own.get("refusal")
            choice.pop("provider_specific_fields", None)
            rest = known(own, "refusal", "thinking_blocks", "reasoning_content")
            if rest:
                item = {**item, "provider_specific_fields": rest}
        yield from self._chat.read(item)

    def end(self) -> Iterator[LLMChunk]:
        """Yield the ends, with the blocks as they go back."""
        if self._blocks:
            said: Fields = {"thinking_blocks": [*self._blocks]}
            yield from self._chat.read({"choices": [{"delta": said}]})
        yield from self._chat.end()

    def _take(self, block: Fields) -> None:
        """Take a piece of a block: a block ends with its signature."""
        last = self._blocks[-1] if self._blocks else {}
        if block.get("type") == "thinking" == last.get("type") and not last.get("signature"):
            last["thinking"] = text(last.get("thinking")) + text(block.get("thinking"))
            last["signature"] = block.get("signature")
        elif block:
            self._blocks.append(block)


def build(settings: ProviderSettings) -> LLMProvider:
    """Make the provider that `provider.name = "litellm"` names.

    `provider.model` names provider and model. Keys are LiteLLM's variables, in the environment or
    in `.env`. The options are those of `LiteLLMProvider`.

    Raises:
        ConfigurationError: there is no model, or an option isn't known or can't be used.
        ModuleNotFoundError: the extra `litellm` isn't installed.
    """
    checked_options(settings, _OPTIONS)
    if "/" not in settings.model:
        raise ConfigurationError(
            "provider.model: LiteLLM wants provider and model, such as gemini/gemini-3-flash; "
            f"found {settings.model!r}"
        )
    return LiteLLMProvider(
        settings.model,
        api_key=key_of(settings, "LITELLM_API_KEY"),
        base_url=url_of(settings, "LITELLM_API_BASE"),
        read_timeout=seconds_of(settings, "read_timeout", _READ),
        send_reasoning=flag_of(settings, "send_reasoning", default=False),
        variables=settings.variables,
    )

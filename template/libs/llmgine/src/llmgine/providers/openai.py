"""OpenAI, and every server that speaks its chat completions, through the official SDK."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator

from httpx2 import AsyncClient, Response, Timeout
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
)

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import ConfigurationError
from llmgine.providers._chat.dialect import Dialect
from llmgine.providers._chat.request import RequestWriter
from llmgine.providers._chat.response import ChunkReader, response_of
from llmgine.providers._sdk.closing import Closable
from llmgine.providers._sdk.errors import Failures, SdkErrors
from llmgine.providers._sdk.options import (
    checked_options,
    flag_of,
    is_local,
    key_of,
    missing_key,
    seconds_of,
    url_of,
    usable_key,
    value_of,
)
from llmgine.providers._sdk.shape import fields
from llmgine.providers._sdk.streams import answered, relayed
from llmgine.settings import ProviderSettings

__all__ = ["OpenAIProvider", "build"]

_NAME = "openai"
_MODEL = "gpt-5.4-mini"
_KEY = "OPENAI_API_KEY"
_BASE = "OPENAI_BASE_URL"
_URL = "https://api.openai.com/v1"
_PATH = "/chat/completions"
_CONNECT = 10.0
_READ = 600.0
_DESCRIPTION = 1024
# What of `provider_data` the API knows; it refuses a request that holds anything else.
_EXTRAS = frozenset({"detail", "prompt_cache_breakpoint", "role"})
_OPTIONS = (
    "api_key", "base_url", "organization", "project", "limit_field", "read_timeout",
    "send_reasoning", "stream_usage",
)  # fmt: skip
_ERRORS = SdkErrors(
    api=APIError, status=APIStatusError, timeout=APITimeoutError, connection=APIConnectionError
)


class OpenAIProvider(Closable):
    """Asks OpenAI, or a server that speaks its chat completions, through the official SDK.

        async with OpenAIProvider(api_key=key) as provider: ...
        OpenAIProvider(base_url="http://localhost:11434/v1", model="qwen3")

    What chat completions have no field for is refused with `InvalidRequestError` before the call:
    `top_k`, a token budget or a summary of reasoning, pictures by file id, documents by URL,
    films. Servers that know more take it from `provider_options`, which go into the body as they
    are. Pictures in tool results follow them in a message of the user's. Reasoning that another
    provider signed is left out of the history, which is logged once. The SDK's own retries are
    off. Leaving a stream closes its connection.

    Args:
        api_key: the key; by default `OPENAI_API_KEY` of the environment. A server on this machine
            or a private network needs none.
        base_url: where the server is; by default `OPENAI_BASE_URL` of the environment, else OpenAI.
        model: the model where a request names none.
        organization: OpenAI's id of who pays, where the key has several.
        project: OpenAI's id of what for.
        limit_field: the field for the longest answer; older servers know `max_tokens` alone.
        read_timeout: seconds without a sign from the server before it is given up on.
        send_reasoning: whether a model's reasoning goes back to it with the history, as some
            compatible servers demand.
        stream_usage: whether to ask for usage in streams, which a few servers refuse.
        http_client: a client of your own, for a proxy or certificates; it is closed with this.

    Raises:
        ConfigurationError: there is no key, or it can't be one.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str = "",
        organization: str | None = None,
        project: str | None = None,
        limit_field: str = "max_completion_tokens",
        read_timeout: float = _READ,
        send_reasoning: bool = False,
        stream_usage: bool = True,
        http_client: AsyncClient | None = None,
    ) -> None:
        self.name = _NAME
        place, given = ("api_key", api_key) if api_key else (_KEY, os.environ.get(_KEY, ""))
        key = usable_key(given, place)
        # The SDK would take a variable that is set to nothing for an address.
        base_url = base_url or url_of(ProviderSettings(name=_NAME), _BASE) or _URL
        if not key and not is_local(base_url):
            raise missing_key(ProviderSettings(name=_NAME), _KEY)
        self._client = AsyncOpenAI(
            api_key=key or "none",
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=Timeout(read_timeout, connect=_CONNECT),
            max_retries=0,
            http_client=http_client,
        )
        own = f".{self._client.base_url.host}".endswith(".openai.com")
        dialect = Dialect(
            provider=_NAME,
            limit_field=limit_field,
            user_field="safety_identifier" if own else "user",
            description_limit=_DESCRIPTION if own else None,
            stream_usage=stream_usage,
            send_reasoning=send_reasoning,
            extras=_EXTRAS if own else None,
        )
        server = self._client.base_url.netloc.decode()  # without a password
        self._failures = Failures(_NAME, _ERRORS, secrets=(key,), server=server)
        self._writer = RequestWriter(dialect, model or _MODEL, self._failures.refusal)

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Everything; a model that can't do a thing is refused by the server."""
        return ProviderCapabilities()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            ProviderError: as `LLMProvider.complete`.
        """
        body = self._writer.body(request)
        call = self._client.post(_PATH, cast_to=Response, body=body)
        response = await answered(call, self._failures, request.timeout)
        try:
            answer = fields(response.json())
        except (ValueError, RecursionError):  # no JSON, or deeper than anybody nests it
            answer = {}
        if answer.get("error"):
            raise self._failures.of_body(answer, None, response.headers)
        request_id = response.headers.get("x-request-id")
        result = response_of(answer, ChunkReader(_NAME, request_id))
        if result is None:
            raise self._failures.unusable("the answer is no chat completion", request_id=request_id)
        return result

    def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the answer piece by piece.

        Raises:
            ProviderError: as `LLMProvider.stream`.
        """

        async def opening() -> tuple[AsyncStream[object], ChunkReader]:
            body = self._writer.body(request, stream=True)
            stream = await self._client.post(
                _PATH, cast_to=object, body=body, stream=True, stream_cls=_Stream
            )
            request_id = stream.response.headers.get("x-request-id")
            return stream, ChunkReader(_NAME, request_id)

        return relayed(opening, self._failures, request.timeout)


class _Stream(AsyncStream[object]):
    """A stream whose events without data, which keep the connection open, aren't read as JSON."""

    async def _iter_events(self):  # noqa: ANN202 - the SDK keeps the type to itself
        async for event in super()._iter_events():
            if event.data:
                yield event


def build(settings: ProviderSettings) -> LLMProvider:
    """Make the provider that `provider.name = "openai"` names.

    The key is `provider.options.api_key`, else `OPENAI_API_KEY` in the environment or in `.env`;
    a server on this machine or a private network needs none. Further options are those of
    `OpenAIProvider`.

    Raises:
        ConfigurationError: there is no key, or an option isn't known or can't be used.
    """
    checked_options(settings, _OPTIONS)
    limit_field = settings.options.get("limit_field", "max_completion_tokens")
    if limit_field not in {"max_completion_tokens", "max_tokens"}:
        raise ConfigurationError(
            "provider.options.limit_field: expected max_completion_tokens or max_tokens, "
            f"found {limit_field!r}"
        )
    return OpenAIProvider(
        api_key=key_of(settings, _KEY),
        base_url=url_of(settings, _BASE),
        model=settings.model,
        organization=value_of(settings, "OPENAI_ORG_ID", option="organization"),
        project=value_of(settings, "OPENAI_PROJECT_ID", option="project"),
        limit_field=limit_field,
        read_timeout=seconds_of(settings, "read_timeout", _READ),
        send_reasoning=flag_of(settings, "send_reasoning", default=False),
        stream_usage=flag_of(settings, "stream_usage", default=True),
    )

"""The provider: requests in, answers and streams out, Anthropic's SDK in between."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Self

from anthropic import (
    AnthropicError,
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncAnthropic,
    AsyncAPIResponse,
    AsyncStream,
    CredentialsError,
)
from httpx2 import AsyncClient, Timeout

from llmgine.contracts import LLMChunk, LLMProvider, LLMRequest, LLMResponse
from llmgine.contracts.protocols import ProviderCapabilities
from llmgine.errors import AuthenticationError, ConfigurationError, ProviderError
from llmgine.providers._sdk.errors import Failures, SdkErrors
from llmgine.providers._sdk.options import (
    checked_options,
    is_local,
    key_of,
    missing_key,
    seconds_of,
    url_of,
)
from llmgine.providers._sdk.streams import answered, relayed
from llmgine.providers.anthropic.answer import StreamReader, response_of
from llmgine.providers.anthropic.parts import NAME
from llmgine.providers.anthropic.request import Call, Writer
from llmgine.settings import ProviderSettings

__all__ = ["AnthropicProvider", "build"]

_PATH = "/v1/messages"
_MODEL = "claude-sonnet-5-5"
_MAX_TOKENS = 8192
_NO_KEY = "none"
_CONNECT = 10.0
_READ = 600.0
# The first version of the API without `temperature`, `top_p` and `top_k`.
_WITHOUT_SAMPLING = "2026-10-21"
_ERRORS = SdkErrors(
    api=APIError, status=APIStatusError, timeout=APITimeoutError, connection=APIConnectionError
)

_log = logging.getLogger(__name__)


class _Failures(Failures):
    """Makes errors of the SDK's, those of its own search for credentials included."""

    def of_call(self, error: Exception) -> ProviderError:
        """Return the error of a call of which nothing has been handed on."""
        if isinstance(error, CredentialsError):
            return AuthenticationError(f"{NAME}: no key: {error}", provider=NAME)
        return super().of_call(error)


class _Answer(AsyncAPIResponse[object]):
    """An answer as it came, with its headers."""


class AnthropicProvider:
    """Asks Claude, or a server that speaks Anthropic's Messages API.

    Text, images, documents, tools, structured output and reasoning are taken; requests for more
    are refused with `InvalidRequestError` before anything is sent. System messages go to the front,
    wherever they stand. `provider_options` go into the body as they are: `tools` are added to the
    request's own, and `betas`, `user_profile_id` and `workspace_id` become headers, as in the SDK.
    The SDK's own retries and traces are off, since the application has its own.

    A history that another provider made is taken: what only that one understands is left out,
    which is logged once.

    Args:
        api_key: by default what the SDK finds: `ANTHROPIC_API_KEY` and the others that it knows.
        auth_token: a bearer token in place of a key.
        base_url: another server; one of this machine or a private network needs no key.
        model: for requests that name none.
        max_tokens: the longest answer for requests that don't say, which Anthropic demands;
            a budget for reasoning is added to it.
        read_timeout: seconds without a sign from the server before it is given up on.
        api_version: another version of the API than the SDK's; `2023-06-01` still has
            `temperature`, `top_p` and `top_k`, for models that take them.
        http_client: a client of your own, for a proxy or certificates; it is closed with this.

    Raises:
        ConfigurationError: there is no key, or an argument can't be used.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        model: str = _MODEL,
        max_tokens: int = _MAX_TOKENS,
        read_timeout: float = _READ,
        api_version: str | None = None,
        http_client: AsyncClient | None = None,
    ) -> None:
        self.name = NAME
        self._client = _with_key(
            lambda: AsyncAnthropic(
                api_key=api_key,
                auth_token=auth_token,
                base_url=base_url,
                timeout=Timeout(read_timeout, connect=_CONNECT),
                max_retries=0,
                default_headers={"anthropic-version": api_version} if api_version else None,
                open_telemetry=False,
                http_client=http_client,
            )
        )
        secrets = {self._client.api_key or "", self._client.auth_token or ""} - {_NO_KEY}
        self._failures = _Failures(NAME, _ERRORS, secrets=secrets)
        self._noted: set[str] = set()
        self._writer = Writer(
            model=model,
            max_tokens=max_tokens,
            sampling=api_version is not None and api_version < _WITHOUT_SAMPLING,
            refusal=self._failures.refusal,
        )

    @property
    def capabilities(self) -> ProviderCapabilities:
        """Everything but sound and film."""
        return ProviderCapabilities()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            InvalidRequestError: the request asks for what Anthropic can't do.
            ProviderError: the call failed.
        """
        return await answered(self._ask(request), self._failures, request.timeout)

    def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """Return the answer piece by piece. Leaving it closes the connection at once.

        Raises:
            ProviderError: as `complete`.
            StreamInterruptedError: the stream broke off; `partial` holds what had arrived.
        """
        return relayed(partial(self._open, request), self._failures, request.timeout)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, request: LLMRequest) -> LLMResponse:
        call = self._written(request)
        answer = await self._client.post(
            _PATH, cast_to=_Answer, body=call.body, options={"headers": call.headers}
        )
        try:
            return response_of(await answer.json(), answer.request_id)
        except ValueError as error:
            reason = f"an answer that can't be read ({error})"
            raise self._failures.unusable(reason, request_id=answer.request_id) from None

    async def _open(self, request: LLMRequest) -> tuple[AsyncStream[object], StreamReader]:
        call = self._written(request)
        stream = await self._client.post(
            _PATH,
            cast_to=object,
            body={**call.body, "stream": True},
            options={"headers": call.headers},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        return stream, StreamReader(stream.response.headers.get("request-id"))

    def _written(self, request: LLMRequest) -> Call:
        call = self._writer.written(request)
        for what in sorted(call.left_out - self._noted):
            self._noted.add(what)
            _log.warning("left out of a history for %s: %s", NAME, what)
        return call


def _with_key(make: Callable[[], AsyncAnthropic]) -> AsyncAnthropic:
    """Make the SDK's client, and see to it that it has a key."""
    missing = missing_key(ProviderSettings(name=NAME), "ANTHROPIC_API_KEY")
    try:
        client = make()
    except AnthropicError as error:
        # Without a key the SDK looks for other credentials, which may be there and broken.
        raise ConfigurationError(f"{missing}; other credentials: {error}") from None
    if not (client.api_key or client.auth_token or client.credentials):
        if not is_local(str(client.base_url)):
            raise missing
        client.api_key = _NO_KEY
    return client


def build(settings: ProviderSettings) -> LLMProvider:
    """Make the provider that `provider.name = "anthropic"` names.

    The options are the arguments of `AnthropicProvider`. Key and address may also stand in the
    environment or in `.env`: `ANTHROPIC_API_KEY`, `ANTHROPIC_AUTH_TOKEN`, `ANTHROPIC_BASE_URL`.

    Raises:
        ConfigurationError: as `AnthropicProvider`, or an option can't be used.
    """
    known = ("api_key", "api_version", "auth_token", "base_url", "max_tokens", "read_timeout")
    checked_options(settings, known)
    api_key = key_of(settings, "ANTHROPIC_API_KEY")
    token = key_of(settings, "ANTHROPIC_AUTH_TOKEN", option="auth_token")
    return AnthropicProvider(
        api_key=api_key,
        auth_token=None if api_key else token,
        base_url=url_of(settings, "ANTHROPIC_BASE_URL"),
        model=settings.model or _MODEL,
        max_tokens=int(_matched(settings, "max_tokens", r"0*[1-9][0-9]*") or _MAX_TOKENS),
        read_timeout=seconds_of(settings, "read_timeout", _READ),
        api_version=_matched(settings, "api_version", r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    )


_EXPECTED = {"max_tokens": "a number of tokens", "api_version": "a date such as 2023-06-01"}


def _matched(settings: ProviderSettings, option: str, pattern: str) -> str | None:
    given = settings.options.get(option)
    if given is not None and not re.fullmatch(pattern, given):
        raise ConfigurationError(
            f"provider.options.{option}: expected {_EXPECTED[option]}, found {given!r}"
        )
    return given

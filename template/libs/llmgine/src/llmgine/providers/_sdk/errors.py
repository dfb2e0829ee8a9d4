"""An SDK's exceptions as the one error tree, whoever the provider is.

Their texts are one short line, and a key never stands in them, even where a server repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from llmgine.errors import (
    BadResponseError,
    InvalidRequestError,
    PartialAnswer,
    ProviderConnectionError,
    ProviderError,
    ProviderTimeoutError,
    StreamInterruptedError,
)
from llmgine.providers._sdk.headers import add_headers
from llmgine.providers._sdk.kinds import kind_of, said

__all__ = ["Failures", "SdkErrors"]

ErrorT = TypeVar("ErrorT", bound=ProviderError)

_LONGEST_TEXT = 500
_SHORTEST_SECRET = 8


class _Response(Protocol):
    @property
    def headers(self) -> Mapping[str, str]: ...


class _ApiError(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def body(self) -> object: ...


class _StatusError(_ApiError, Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def response(self) -> _Response: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SdkErrors:
    """The exceptions of an SDK.

    Attributes:
        api: the root of those that speak of a call.
        status: the answer's status is an error.
        timeout: nothing came for too long.
        connection: there is no connection, or it broke; with the HTTP client's own errors where
            the SDK lets these through.
    """

    api: type[_ApiError]
    status: type[_StatusError]
    timeout: type[Exception] | tuple[type[Exception], ...]
    connection: type[Exception] | tuple[type[Exception], ...]


class Failures:
    """Makes our errors of an SDK's.

    Args:
        provider: the provider's name.
        sdk: the SDK's exceptions.
        secrets: texts that must not stand in an error's, such as the key.
        server: who is connected to, where that is known.
    """

    def __init__(
        self, provider: str, sdk: SdkErrors, *, secrets: Iterable[str] = (), server: str = ""
    ) -> None:
        self._provider = provider
        self._no_connection = f"no connection to {server}" if server else "no connection"
        self._sdk = sdk
        # The end of a line, which a file may have put behind a key, is shown in various ways.
        texts = map(str.strip, secrets)
        self._secrets = tuple(each for each in texts if len(each) >= _SHORTEST_SECRET)

    def refusal(self, reason: str) -> InvalidRequestError:
        """Return the error for a request that the provider can't take, made before the call."""
        return InvalidRequestError(f"{self._provider}: {reason}", provider=self._provider)

    def of_request(self, error: Exception) -> ProviderError:
        """Return the error of a call to which there is no answer yet."""
        if isinstance(error, TypeError) or type(error) is ValueError:  # the JSON encoder's own
            return self.refusal(f"a request that can't be sent as JSON: {error}")
        return self.of_call(error)

    def of_call(self, error: Exception) -> ProviderError:
        """Return the error of a call of which nothing has been handed on."""
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, UnicodeEncodeError):
            return self.refusal(f"text that can't be sent as UTF-8: {error.reason}")
        if isinstance(error, self._sdk.status):
            body = error.body or error.message
            return self.of_body(body, error.status_code, error.response.headers)
        for kinds, kind, what in (
            (self._sdk.timeout, ProviderTimeoutError, "no answer in time"),
            (self._sdk.connection, ProviderConnectionError, self._no_connection),
        ):
            if isinstance(error, kinds):
                return self._made(kind, f"{what}{_cause(error)}")
        if isinstance(error, self._sdk.api):
            return self.of_body(error.body or error.message)
        return self._made(BadResponseError, f"an answer that can't be read{_named(error)}")

    def of_body(
        self, body: object, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> ProviderError:
        """Return the error that an answer's body tells of."""
        headers = {} if headers is None else headers
        code, words = said(body)
        number = None if status is None or str(status) == code else str(status)
        told = " ".join(filter(None, (number, code)))
        error = self._made(kind_of(status, code, words), ": ".join(filter(None, (told, words))))
        error.status = status
        error.provider_code = code
        add_headers(error, headers)
        return error

    def unusable(self, what: str, *, request_id: str | None = None) -> BadResponseError:
        """Return the error for an answer that isn't what the provider promises."""
        error = self._made(BadResponseError, what)
        error.request_id = request_id
        return error

    def late(self, timeout: float | None, partial: PartialAnswer | None = None) -> ProviderError:
        """Return the error for a call that took longer than the request allows."""
        error = self._made(ProviderTimeoutError, f"no whole answer within {timeout:g} s")
        error.partial = partial
        return error

    def interrupted(
        self, error: Exception | None, partial: PartialAnswer, *, shown: bool
    ) -> StreamInterruptedError:
        """Return the error of a stream that broke off.

        Args:
            error: the SDK's; `None` where the stream merely ended.
            partial: what had arrived.
            shown: whether any of it was handed on, so that a second try would repeat it.
        """
        found = None if error is None else self.of_call(error)
        if error is None:
            reason = "it ended before the answer was complete"
        elif isinstance(found, BadResponseError):
            reason = f"what came can't be read{_named(error)}"
        else:
            reason = str(found).removeprefix(f"{self._provider}: ")
        broken = self._made(StreamInterruptedError, f"the stream broke off: {reason}")
        broken.partial = partial
        broken.retryable = not shown and (found is None or found.retryable)
        if found is not None:
            broken.provider_code, broken.request_id = found.provider_code, found.request_id
            broken.retry_after = found.retry_after
        return broken

    def _made(self, kind: type[ErrorT], text: str) -> ErrorT:
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        text = " ".join(text.split())
        if len(text) > _LONGEST_TEXT:
            text = f"{text[:_LONGEST_TEXT]}..."
        return kind(f"{self._provider}: {text}", provider=self._provider)


def _named(error: BaseException) -> str:
    return f" ({type(error).__name__}: {error})"


def _cause(error: BaseException) -> str:
    """Return what lies behind a failure of which the SDK may only say that it is one."""
    return _named(error if error.__cause__ is None else error.__cause__)

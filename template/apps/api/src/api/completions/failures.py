"""What went wrong behind the endpoint, as OpenAI would say it."""

from __future__ import annotations

import math

from llmgine.errors import (
    AuthenticationError,
    BudgetExceededError,
    BusNotRunningError,
    BusStoppedError,
    CircuitOpenError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    LlmgineError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderConnectionError,
    ProviderError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateExceededError,
    RateLimitError,
    RefusedError,
    SessionClosedError,
)

from api.problems import Problem, unexpected

__all__ = ["interrupted", "problem_of"]

_BAD_REQUEST, _NOT_FOUND, _TOO_MANY = 400, 404, 429
_BROKEN, _BAD_GATEWAY, _UNAVAILABLE, _TIMEOUT = 500, 502, 503, 504

_KINDS: tuple[tuple[type[LlmgineError], int, str], ...] = (
    (InvalidRequestError, _BAD_REQUEST, "invalid_request"),
    (ContextLengthError, _BAD_REQUEST, "context_length_exceeded"),
    (ContentFilterError, _BAD_REQUEST, "content_filter"),
    (NotFoundError, _NOT_FOUND, "model_not_found"),
    (RateLimitError, _TOO_MANY, "rate_limit_exceeded"),
    (RateExceededError, _TOO_MANY, "rate_limit_exceeded"),
    (QuotaExceededError, _TOO_MANY, "insufficient_quota"),
    (BudgetExceededError, _TOO_MANY, "insufficient_quota"),
    (AuthenticationError, _BROKEN, "provider_access"),
    (PermissionDeniedError, _BROKEN, "provider_access"),
    (ProviderTimeoutError, _TIMEOUT, "provider_timeout"),
    (OverloadedError, _UNAVAILABLE, "provider_unavailable"),
    (ProviderConnectionError, _UNAVAILABLE, "provider_unavailable"),
    (CircuitOpenError, _UNAVAILABLE, "provider_unavailable"),
    (BusNotRunningError, _UNAVAILABLE, "stopping"),
    (BusStoppedError, _UNAVAILABLE, "stopping"),
    (SessionClosedError, _UNAVAILABLE, "stopping"),
    (ProviderError, _BAD_GATEWAY, "provider_failed"),
)
# What the caller can't mend, and needn't know: it may name accounts, addresses and limits.
_UNTOLD = {
    "provider_access": "The model's provider doesn't let this server in: its operator can say why.",
    "insufficient_quota": "What this server may spend on models is spent.",
    "provider_failed": "The model's provider failed, or broke its answer off.",
    "provider_unavailable": "The model's provider can't be reached, or has no capacity.",
    "rate_limit_exceeded": "The model is asked too often for now: ask again in a while.",
    "stopping": "The server is about to end: ask again in a while.",
}
_LASTING = frozenset({"insufficient_quota", "provider_access"})


def problem_of(error: LlmgineError) -> Problem:
    """Return what the caller is told of an error; headers say whether to ask again, and when."""
    kinds = (each for each in _KINDS if isinstance(error, each[0]))
    _, status, code = next(kinds, (LlmgineError, _BROKEN, "internal_error"))
    if code == "internal_error":
        return unexpected()
    return Problem(
        status=status,
        message=_UNTOLD.get(code) or str(error),
        param="messages" if code == "context_length_exceeded" else None,
        code=code,
        headers=_headers(error, code),
    )


def interrupted() -> Problem:
    """Return what the caller is told where the provider itself says that its answer is none."""
    code = "provider_failed"
    return Problem(status=_BAD_GATEWAY, message=_UNTOLD[code], code=code)


def _headers(error: LlmgineError, code: str) -> dict[str, str]:
    """Return what OpenAI's SDKs read: unless told otherwise, they ask again after a 429 or 5xx."""
    headers: dict[str, str] = {}
    if code in _LASTING or (isinstance(error, ProviderError) and not error.retryable):
        headers["x-should-retry"] = "false"
    wait = error.retry_after if isinstance(error, ProviderError | RefusedError) else None
    if wait is not None and math.isfinite(wait):
        headers["retry-after"] = str(max(0, math.ceil(wait)))
    return headers

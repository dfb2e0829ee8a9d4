"""Which kind of error an answer tells of.

What the provider's own code or words say counts first, then the status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

from llmgine.errors import (
    AuthenticationError,
    ConflictError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    ProviderServerError,
    ProviderTimeoutError,
    QuotaExceededError,
    RateLimitError,
)

__all__ = ["kind_of", "said"]

_TOO_MANY = 429
_SERVER_ERRORS = 500

_BY_CODE: Mapping[str, type[ProviderError]] = {
    "api_error": ProviderServerError,
    "authentication_error": AuthenticationError,
    "billing_error": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    "billing_not_active": QuotaExceededError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "insufficient_quota": QuotaExceededError,
    "internal_server_error": ProviderServerError,
    "invalid_api_key": AuthenticationError,
    "invalid_prompt": ContentFilterError,
    "model_not_found": NotFoundError,
    "not_found_error": NotFoundError,
    "overloaded_error": OverloadedError,
    "permission_error": PermissionDeniedError,
    "rate_limit_error": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "request_too_large": InvalidRequestError,
    "server_error": ProviderServerError,
    "timeout_error": ProviderTimeoutError,
}
_BY_STATUS: Mapping[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ProviderTimeoutError,
    409: ConflictError,
    429: RateLimitError,
    503: OverloadedError,
    504: ProviderTimeoutError,
    529: OverloadedError,
}
# Where a provider has one code for every bad request, only its words tell these apart.
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (
        re.compile(
            r"prompt is too long|context ?(?:length|window|size)"
            r"|input is too long|too many (?:input )?tokens",
            re.IGNORECASE,
        ),
        ContextLengthError,
    ),
    (re.compile(r"credit balance is too low", re.IGNORECASE), QuotaExceededError),
    (
        re.compile(
            r"content management policy|content filtering policy|usage polic", re.IGNORECASE
        ),
        ContentFilterError,
    ),
)


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def said(body: object) -> tuple[str | None, str]:
    """Return the code and the words of an error's body."""
    if not _is_object(body):
        return None, body if isinstance(body, str) else ""
    inner = body.get("error")
    if _is_object(inner):
        return said(inner)
    codes = (body.get("code"), body.get("type"))
    code = next((str(each) for each in codes if isinstance(each, str | int) and each), None)
    words = (inner, body.get("message"), body.get("detail"))
    return code, next((text for text in words if isinstance(text, str)), "")


def kind_of(status: int | None, code: str | None, words: str) -> type[ProviderError]:
    """Return the kind of error that an answer tells of by its status, its code and its words."""
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code]
    if status is None and code is not None and code.isdecimal():
        status = int(code)  # some servers send the status as the code of an error in a stream
    if status is None:
        return _worded(words) or ProviderServerError
    # What is said beside a limit on rates may sound like one on lengths: "too many tokens".
    if status >= _SERVER_ERRORS or status == _TOO_MANY:
        return _BY_STATUS.get(status, ProviderServerError)
    return _worded(words) or _BY_STATUS.get(status, InvalidRequestError)


def _worded(words: str) -> type[ProviderError] | None:
    return next((kind for pattern, kind in _BY_WORDS if pattern.search(words)), None)

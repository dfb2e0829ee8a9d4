"""Every error that llmgine raises, as one tree.

    LlmgineError
    ├── ConfigurationError (ValueError)      a setting, an argument or a part that can't be used
    ├── InvalidMessageError (TypeError)      a message class or a handler that can't be registered
    │   └── UndecoratedMessageError          ... for want of the dataclass decorator
    ├── NoHandlerError (LookupError)         nobody handles this command
    ├── DuplicateHandlerError (ValueError)   a second handler where one is allowed
    ├── CommandTimeoutError (TimeoutError)   a command ran past its limit
    ├── EventTimeoutError (TimeoutError)     an event handler ran past its limit
    ├── QueueFullError                       an event was refused for want of room
    ├── WouldDeadlockError                   a wait for oneself
    ├── WrongLoopError                       the bus runs on another event loop or thread
    ├── BusNotRunningError                   before start or after stop
    ├── BusStoppedError                      cut off by stop
    ├── RefusedError                         a guard of the bus lets nothing through for now
    │   ├── CircuitOpenError                 too many calls of its kind have failed lately
    │   └── RateExceededError                there have been enough calls for now
    ├── SessionError
    │   ├── SessionOpenError                 the id is already open
    │   ├── SessionClosedError               the session isn't open, or is closing
    │   ├── SessionMismatchError             the message belongs to another session
    │   └── InvalidSessionIdError (ValueError)
    ├── ToolRegistrationError (TypeError)    a function that can't be described to a model
    ├── ToolError                            what a tool tells the model instead of a result
    ├── ContextStoreError
    │   ├── VersionConflictError             somebody else wrote first
    │   └── CorruptRowError                  a stored message can't be read
    ├── CodecError (ValueError)              a value or text that the codec can't take
    ├── ScriptError (AssertionError)         a scripted provider and its script don't agree
    ├── CassetteError (AssertionError)       a test asks a model what was never recorded
    ├── BudgetExceededError                  a model call was refused: enough is spent
    └── ProviderError                        a model call failed; see `code` and `retryable`
        └── one subclass for each code, from InvalidRequestError to CallCancelledError

Classes that are also a built-in error are caught by code that knows only the built-in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

__all__ = [
    "AuthenticationError", "BadResponseError", "BudgetExceededError", "BusNotRunningError",
    "BusStoppedError", "CallCancelledError", "CassetteError", "CircuitOpenError", "CodecError",
    "CommandTimeoutError", "ConfigurationError", "ConflictError", "ContentFilterError",
    "ContextLengthError", "ContextStoreError", "CorruptRowError", "DuplicateHandlerError",
    "EventTimeoutError", "InvalidMessageError", "InvalidRequestError", "InvalidSessionIdError",
    "LlmgineError", "NoHandlerError", "NotFoundError", "OverloadedError", "PartialAnswer",
    "PermissionDeniedError", "ProviderConnectionError", "ProviderError", "ProviderServerError",
    "ProviderTimeoutError", "QueueFullError", "QuotaExceededError", "RateExceededError",
    "RateLimitError", "RefusedError", "ScriptError", "SessionClosedError", "SessionError",
    "SessionMismatchError", "SessionOpenError", "StreamInterruptedError", "ToolError",
    "ToolRegistrationError", "UndecoratedMessageError", "VersionConflictError",
    "WouldDeadlockError", "WrongLoopError", "provider_error",
]  # fmt: skip


class LlmgineError(Exception):
    """The root: whatever llmgine raises on purpose is one of these."""


class ConfigurationError(LlmgineError, ValueError):
    """A setting or an argument can't be used; the text names it and what was expected."""


class InvalidMessageError(LlmgineError, TypeError):
    """A message class or a handler can't be registered as it is."""


class UndecoratedMessageError(InvalidMessageError):
    """A message class lacks its dataclass decorator, so its fields would be dropped silently."""

    def __init__(self, message_type: type) -> None:
        name = message_type.__qualname__
        super().__init__(
            f"{name} is not decorated, so its fields would be lost; write\n"
            f"    @dataclass(frozen=True, kw_only=True)\n"
            f"    class {message_type.__name__}(...):"
        )


class NoHandlerError(LlmgineError, LookupError):
    """Raised at once by `execute` when nobody handles a command."""


class DuplicateHandlerError(LlmgineError, ValueError):
    """A command type has its handler in this scope, or an event has this very callable."""


class CommandTimeoutError(LlmgineError, TimeoutError):
    """A command's handler ran past its limit and was cut off."""


class EventTimeoutError(LlmgineError, TimeoutError):
    """An event's handler ran past its limit; carried by `EventHandlerFailedEvent`."""


class QueueFullError(LlmgineError):
    """An event was refused: its queue is full and the publisher can't wait. It is counted."""


class WouldDeadlockError(LlmgineError):
    """A handler asked to wait for something that waits for this handler."""


class WrongLoopError(LlmgineError):
    """The bus runs on another event loop or thread; `publish_threadsafe` crosses over."""


class BusNotRunningError(LlmgineError):
    """The bus isn't started yet, is stopping, or has stopped."""


class BusStoppedError(LlmgineError):
    """The work was still running when `stop` had waited to its limit, and was cut off."""


class RefusedError(LlmgineError):
    """A message was refused before its handler ran, and may be sent again later.

    Attributes:
        key: what the guard counts by.
        retry_after: seconds to wait first.
    """

    def __init__(self, message: str, *, key: object, retry_after: float) -> None:
        super().__init__(message)
        self.key = key
        self.retry_after = retry_after


class CircuitOpenError(RefusedError):
    """Too many calls of this kind have failed lately, so that for a while none is let through."""


class RateExceededError(RefusedError):
    """There have been as many calls as may be, and a turn is too long off to wait for."""


class SessionError(LlmgineError):
    """Something about a session."""


class SessionOpenError(SessionError):
    """A session of this id is open already."""


class SessionClosedError(SessionError):
    """The session isn't open (yet, or any more), or is closing and takes no outside work."""


class SessionMismatchError(SessionError):
    """A message that carries one session's id was sent through another session."""


class InvalidSessionIdError(SessionError, ValueError):
    """A session id is empty, too long or holds control characters."""


class ToolRegistrationError(LlmgineError, TypeError):
    """A function can't be offered to a model; the text names the parameter."""


class ToolError(LlmgineError):
    """Raised by a tool to tell the model, in these very words, why there is no result.

    Any other exception's text goes to the log alone.

    Attributes:
        code: the `error_code` of the result.
    """

    def __init__(self, message: str, *, code: str = "tool_error") -> None:
        super().__init__(message)
        self.code = code


class ContextStoreError(LlmgineError):
    """A context store can't do what was asked."""


class VersionConflictError(ContextStoreError):
    """The history has moved on since the version that the caller expected."""

    def __init__(self, session_id: str, version: int, expected: int) -> None:
        super().__init__(
            f"session {session_id!r} is at version {version}, not {expected}: "
            "somebody else wrote first"
        )


class CorruptRowError(ContextStoreError):
    """A stored message can't be read back."""


class CodecError(LlmgineError, ValueError):
    """A value can't be encoded, or a text is no encoding of a known contract."""


class ScriptError(LlmgineError, AssertionError):
    """A scripted provider was asked more than its script says, or less."""


class CassetteError(LlmgineError, AssertionError):
    """A recorded provider was asked what isn't on its cassette, or not all that is."""


class BudgetExceededError(LlmgineError):
    """A model call was refused before it was made: what may be spent is spent.

    Attributes:
        setting: the setting that says how much may be spent.
        spent: tokens, or money in the currency of the prices.
        limit: the setting's value.
        session_id: the session that it is the budget of; `None` for the process.
    """

    def __init__(
        self, setting: str, *, spent: Decimal, limit: Decimal, session_id: str | None = None
    ) -> None:
        whose = "the process" if session_id is None else f"session {session_id!r}"
        super().__init__(
            f"{whose} has spent {spent:,f} of {limit:,f} ({setting}); raise the limit to go on"
        )
        self.setting = setting
        self.spent = spent
        self.limit = limit
        self.session_id = session_id


class PartialAnswer(Protocol):
    """What had arrived before a model call broke off (an `LLMResponse`)."""

    @property
    def text(self) -> str:
        """The text received so far."""
        ...


class ProviderError(LlmgineError):
    """A model call failed.

    Attributes:
        code: the row of the error table, the same for every provider.
        retryable: whether the same call may succeed later.
        retry_after: seconds to wait first, where the provider said so.
        status: the HTTP status, where there was one.
        provider: the provider's name.
        provider_code: the provider's own code.
        request_id: the provider's id of the call, for its support.
        partial: the answer received so far, where a stream broke off.
    """

    code: ClassVar[str] = "unknown"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        status: int | None = None,
        provider_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        partial: PartialAnswer | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.provider_code = provider_code
        self.request_id = request_id
        self.retry_after = retry_after
        self.partial = partial


class InvalidRequestError(ProviderError):
    """The request is wrong: 400, 413, 422, or something this provider can't do."""

    code = "invalid_request"


class ContextLengthError(ProviderError):
    """The history is too long for the model; trim it and ask again."""

    code = "context_length"


class AuthenticationError(ProviderError):
    """The key is missing or wrong: 401."""

    code = "auth"


class PermissionDeniedError(ProviderError):
    """The key may not do this: 403."""

    code = "permission"


class NotFoundError(ProviderError):
    """No such model or endpoint: 404."""

    code = "not_found"


class QuotaExceededError(ProviderError):
    """The account has no credit left: 402, or a 429 that says so."""

    code = "quota"


class RateLimitError(ProviderError):
    """Too many calls: 429; `retry_after` says how long to wait."""

    code = "rate_limit"
    retryable = True


class OverloadedError(ProviderError):
    """The provider has no capacity: 503, 529."""

    code = "overloaded"
    retryable = True


class ProviderServerError(ProviderError):
    """The provider failed: any other 5xx."""

    code = "server"
    retryable = True


class ConflictError(ProviderError):
    """The call ran into another one: 409."""

    code = "conflict"
    retryable = True


class ProviderTimeoutError(ProviderError, TimeoutError):
    """No answer in time: 408, 504, or the client's own limit."""

    code = "timeout"
    retryable = True


class ProviderConnectionError(ProviderError, ConnectionError):
    """No connection to the provider."""

    code = "connection"
    retryable = True


class ContentFilterError(ProviderError):
    """The provider's policy refused the prompt."""

    code = "content_filter"


class BadResponseError(ProviderError):
    """The answer's body isn't what the provider promises; worth one more try."""

    code = "bad_response"
    retryable = True


class StreamInterruptedError(ProviderError):
    """A stream broke off; `partial` holds what had arrived.

    Retryable only as long as nothing of it has been shown.
    """

    code = "stream_interrupted"


class CallCancelledError(ProviderError):
    """The caller cancelled the call."""

    code = "cancelled"


_BY_CODE: Mapping[str, type[ProviderError]] = {
    error.code: error for error in ProviderError.__subclasses__()
}


def provider_error(code: str) -> type[ProviderError]:
    """Return the class for a code of the error table; `ProviderError` for an unknown one."""
    return _BY_CODE.get(code, ProviderError)

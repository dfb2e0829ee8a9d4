"""What servers that speak chat completions differ in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dialect"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What a server takes.

    Attributes:
        provider: the provider's name, in errors and on parts that only it understands.
        limit_field: the field for the longest answer; older servers know `max_tokens` alone.
        user_field: the field for the end user's id.
        description_limit: the longest description of a tool; what is longer is cut, and logged.
        stream_usage: whether usage in streams can be asked for.
        send_reasoning: whether its own reasoning goes back to it with the history.
        extras: the names in a part's `provider_data` that the server takes; `None` means all.
    """

    provider: str
    limit_field: str = "max_completion_tokens"
    user_field: str = "safety_identifier"
    description_limit: int | None = None
    stream_usage: bool = True
    send_reasoning: bool = False
    extras: frozenset[str] | None = None

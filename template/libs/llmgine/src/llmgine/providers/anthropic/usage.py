"""The tokens of a call, as Anthropic counts them."""

from __future__ import annotations

from collections.abc import Iterator

from llmgine.contracts.llm import Usage
from llmgine.providers._sdk.shape import Fields, count
from llmgine.providers._sdk.shape import fields as fields_of

__all__ = ["usage_of"]

_COUNTS = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "service_tier",
    }
)


def _details(counts: Fields) -> Iterator[tuple[str, int]]:
    for name, value in counts.items():
        if name not in _COUNTS and (tokens := count(value)) is not None:
            yield name, tokens
        for inner, each in fields_of(value).items():
            if inner != "thinking_tokens" and (tokens := count(each)) is not None:
                yield f"{name}.{inner}", tokens


def usage_of(counts: Fields) -> Usage:
    """Return the tokens; Anthropic's own input leaves out what its cache took in or gave."""
    fresh = count(counts.get("input_tokens"))
    read = count(counts.get("cache_read_input_tokens"))
    written = count(counts.get("cache_creation_input_tokens"))
    thoughts = fields_of(counts.get("output_tokens_details")).get("thinking_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count(counts.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count(thoughts),
        details=dict(_details(counts)),
    )

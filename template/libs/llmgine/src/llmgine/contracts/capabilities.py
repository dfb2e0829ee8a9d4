"""What a provider can't do, so that a caller needn't find out by an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llmgine.contracts.protocols import LLMProvider

__all__ = ["DescribesCapabilities", "ProviderCapabilities", "capabilities_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderCapabilities:
    """What requests a provider takes; it refuses others with `InvalidRequestError`.

    Attributes:
        tools: `LLMRequest.tools`, and tool calls and results in the history.
        response_format: `LLMRequest.response_format`.
        media: pictures, sound, films and documents in messages.
    """

    tools: bool = True
    response_format: bool = True
    media: bool = True


@runtime_checkable
class DescribesCapabilities(Protocol):
    """A provider that says what it can do. One that doesn't is taken to do everything."""

    @property
    def capabilities(self) -> ProviderCapabilities:
        """What this provider can do."""
        ...


def capabilities_of(provider: LLMProvider) -> ProviderCapabilities:
    """Return what a provider says that it can do; everything where it says nothing.

    Ask before offering tools: `tools = manager.get_tools() if capabilities_of(p).tools else []`.
    """
    if isinstance(provider, DescribesCapabilities):
        return provider.capabilities
    return ProviderCapabilities()

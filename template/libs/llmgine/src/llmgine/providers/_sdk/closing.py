"""Providers that hold connections, and close them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closable"]


class Closable(ABC):
    """Is entered as `async with`, and closed at the end of the block."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections."""

    async def __aenter__(self) -> Self:
        """Return the provider."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()

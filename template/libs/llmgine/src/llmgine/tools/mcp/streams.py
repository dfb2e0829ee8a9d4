"""The two streams of messages between us and an MCP server."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from mcp.shared.message import SessionMessage

__all__ = ["Reading", "Watched", "Writing"]


class _Stream(Protocol):
    """What both have in common."""

    async def aclose(self) -> None:
        """Close it."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None: ...


class Reading(_Stream, Protocol):
    """What a server says."""

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        ...

    async def __anext__(self) -> SessionMessage | Exception: ...


class Writing(_Stream, Protocol):
    """What a server is told."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        ...


class Watched:
    """What a server says; tells when nothing more will come.

    Args:
        stream: the messages.
        ended: called at their end.
        strange: called with what is told of anything else that came.
    """

    def __init__(
        self, stream: Reading, ended: Callable[[], None], strange: Callable[[Exception], None]
    ) -> None:
        self._stream = stream
        self._ended = ended
        self._strange = strange

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        return self._noted(await self._stream.receive())

    async def aclose(self) -> None:
        """Listen no more."""
        await self._stream.aclose()

    def _noted(self, message: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(message, Exception):
            self._strange(message)
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return self._noted(await self._stream.__anext__())
        except StopAsyncIteration:
            self._ended()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._stream.__aexit__(exc_type, exc_val, exc_tb)

"""Telling others of something that has happened, whether or not they can be told."""

from __future__ import annotations

import asyncio
import logging

from llmgine.contracts.messages import Event
from llmgine.contracts.protocols import Publisher

__all__ = ["tell", "tell_surely"]

_log = logging.getLogger(__name__)
# The loop keeps only weak references to tasks.
_telling: set[asyncio.Task[bool]] = set()


async def tell(publisher: Publisher | None, event: Event) -> bool:
    """Publish an event; return whether that worked.

    For parts whose own work is done and must not fail because nobody could be told: a refused
    event (a full queue, a stopped bus) is written to the log, and goes no further.
    """
    if publisher is None:
        return True
    try:
        await publisher.publish(event)
    except Exception:
        _log.warning("%s was not published", type(event).__name__, exc_info=True)
        return False
    return True


async def tell_surely(publisher: Publisher | None, event: Event) -> None:
    """Publish an event as `tell` does; a cancellation of the caller doesn't stop it."""
    if publisher is None:
        return
    telling = asyncio.create_task(tell(publisher, event))
    _telling.add(telling)
    telling.add_done_callback(_telling.discard)
    await asyncio.shield(telling)

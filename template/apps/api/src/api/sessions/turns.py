"""How a turn ends, as an event: for the watchers of its session, and for the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, fields

from assistant import TurnResult
from llmgine.contracts import Event, Usage
from llmgine.contracts.messages import Status

__all__ = ["TurnEnded", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEnded(Event):
    """A turn that was asked for over HTTP has ended.

    Attributes:
        turn_id: the id of its command.
        status: how it ended.
        error: `type` and `message` of what went wrong, if something did.
        usage: the tokens that it took, as far as the provider reports them; of a finished turn.
    """

    turn_id: str
    status: Status
    error: Mapping[str, str] | None = None
    usage: Mapping[str, int] | None = None


def ended(turn_id: str, work: asyncio.Task[TurnResult]) -> TurnEnded:
    """Return how a turn went whose task is done."""
    if work.cancelled():
        return TurnEnded(turn_id=turn_id, status="cancelled")
    error = work.exception()
    if error is not None:
        told = {"type": type(error).__name__, "message": str(error)}
        return TurnEnded(turn_id=turn_id, status="error", error=told)
    return TurnEnded(turn_id=turn_id, status="ok", usage=_counts(work.result().usage))


def _counts(usage: Usage) -> dict[str, int]:
    named = ((each.name, getattr(usage, each.name)) for each in fields(usage))
    return {name: count for name, count in named if isinstance(count, int)}

"""What became of the events: an account for each handler, which always adds up."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HandlerReport", "ObservabilityReport"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HandlerReport:
    """One handler's account: `emitted == delivered + dropped + unconfirmed + queued`, always.

    Attributes:
        handler: the handler's name: its class's, numbered where several share it.
        emitted: events observed while the handler was attached, those after `stop` included.
        delivered: events that `handle` took without raising.
        overflowed: events dropped for want of room in the buffer, the oldest first.
        failed: events dropped because `handle` raised.
        stopped: events dropped because `stop` couldn't wait for them, or had passed.
        unconfirmed: events of which nobody knows: `handle` hadn't returned when `stop` gave up.
        queued: events that wait, or are in hand.
        finished: whether the handler has stopped in good order.
    """

    handler: str
    emitted: int = 0
    delivered: int = 0
    overflowed: int = 0
    failed: int = 0
    stopped: int = 0
    unconfirmed: int = 0
    queued: int = 0
    finished: bool = False

    @property
    def dropped(self) -> int:
        """Events that are lost for certain, for whatever reason."""
        return self.overflowed + self.failed + self.stopped

    @property
    def balanced(self) -> bool:
        """Whether the account adds up."""
        return self.emitted == self.delivered + self.dropped + self.unconfirmed + self.queued

    def __str__(self) -> str:
        lost = f"{self.overflowed} overflowed, {self.failed} failed, {self.stopped} stopped"
        return (
            f"{self.handler}: {self.emitted} emitted = {self.delivered} delivered"
            f" + {self.dropped} dropped ({lost})"
            f" + {self.unconfirmed} unconfirmed + {self.queued} queued"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservabilityReport:
    """The accounts of all handlers, in the order in which they were added."""

    handlers: tuple[HandlerReport, ...] = ()

    @property
    def lost(self) -> int:
        """Deliveries that failed, or of which nobody knows, over all handlers."""
        return sum(each.dropped + each.unconfirmed for each in self.handlers)

    def __str__(self) -> str:
        return "; ".join(str(each) for each in self.handlers) or "no handlers"

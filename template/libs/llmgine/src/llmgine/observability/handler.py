"""What a handler of observed events is, and the account of what became of its events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llmgine.contracts.messages import Event

__all__ = ["HandlerReport", "ObservabilityEventHandler", "ObservabilityReport", "Reading"]

Reading: TypeAlias = Callable[[], float]
"""Returns a number as it is now, on any thread."""


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
            f"{self.handler}: {self.emitted} emitted = {self.delivered} delivered + {self.dropped}"
            f" dropped ({lost}) + {self.unconfirmed} unconfirmed + {self.queued} queued"
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


class ObservabilityEventHandler(ABC):
    """Writes events down, shows them, or sends them on: one method to write, eight more to use.

        class Counter(ObservabilityEventHandler):
            def __init__(self) -> None:
                self.seen = 0

            def handle(self, event: Event) -> None:
                self.seen += 1

    The client runs `start`, `handle`, `flush` and `stop` in one thread that is this handler's own,
    one call after the other, so a handler needs no locks for them and may block. Whatever any
    method raises, `SystemExit` included, is caught, counted and reported in the log; it never
    reaches the application.

    An event handed to `handle` is a copy, made when it was observed: what the application does
    afterwards to its metadata, or to lists and mappings among its fields, doesn't show in it.

    Attributes:
        on_terminal: whether people read along on the terminal what it writes.
    """

    on_terminal: ClassVar[bool] = False

    @abstractmethod
    def handle(self, event: Event) -> None:
        """Deal with one event; it counts as delivered once this returns.

        Raises:
            Exception: the event counts as dropped, by reason of `failed`.
        """

    def observe(self, event: Event) -> bool | None:
        """Take note of an event at once, where it happens: in the application's own task.

        Memory only: whatever time this takes, the application waits. The client calls it only
        where a handler defines it; `handle` gets the event as well, unless this returns `True`.
        """
        del event

    def carry(self) -> Mapping[str, str]:
        """Return what another process has to be told to follow what happens here; memory only.

        The client asks where something is about to be sent, in the application's own task.
        """
        return {}

    def join(self, carried: Mapping[str, str]) -> Callable[[], object]:
        """Let what happens here follow what another process `carry`s; return what ends that.

        Memory only; the client calls both in the application's own task. Names that mean nothing
        to this handler may be among them.
        """
        del carried
        return lambda: None

    def start(self) -> None:  # noqa: B027 - there to be overridden, or not
        """Get ready, before the first event; called once more in a forked process."""

    def flush(self, timeout: float) -> None:
        """Bring on its way whatever is held back, within `timeout` seconds."""
        del timeout

    def stop(self, timeout: float) -> None:
        """Let go of files and connections, within `timeout` seconds; nothing comes afterwards."""
        del timeout

    def accounts(self) -> tuple[HandlerReport, ...]:
        """Return what became of what this handler sends on to others, who have to confirm it.

        They stand in the client's report behind the account of the handler itself.
        """
        return ()

    def watch(self, name: str, unit: str, read: Reading, *, total: bool = False) -> None:
        """Report a number now and then, where this handler reports measurements.

        Args:
            name: the measurement's name.
            unit: its unit, as UCUM writes it.
            read: returns the number, on any thread.
            total: whether it only ever grows.
        """
        del name, unit, read, total

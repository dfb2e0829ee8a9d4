"""What a handler of observed events is: one method to write, eight more to use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias

from llmgine.contracts.messages import Event
from llmgine.observability.report import HandlerReport

__all__ = ["ObservabilityEventHandler", "Reading"]

Reading: TypeAlias = Callable[[], float]
"""Returns a number as it is now, on any thread."""


class ObservabilityEventHandler(ABC):
    """Writes events down, shows them, or sends them on.

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
        return _nothing

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


def _nothing() -> None:
    pass

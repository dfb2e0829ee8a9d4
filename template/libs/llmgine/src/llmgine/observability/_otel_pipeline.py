"""The way out for each signal: a bounded buffer, a thread of its own, and the account of both.

OpenTelemetry's own batch processors take no notice of limits when they flush and end: a backend
that is down holds up the process for 14 to 50 seconds. Whoever ends this one says how long to
wait, and is told what was left behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from threading import Condition, RLock, Thread, current_thread
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from llmgine.observability._guard import Caught, SparseLog, attempt
from llmgine.observability.handler import HandlerReport
from llmgine.observability.redaction import redact_text

__all__ = ["THREAD_NAME", "Link", "Pipeline", "Sent"]

THREAD_NAME = "llmgine-otlp"

# In characters. A batch stays below the 4 MiB that many receivers take at most, even where each
# character takes four bytes.
_MAX_WEIGHT = 900_000

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sent(NamedTuple):
    """What became of a batch.

    Attributes:
        delivered: how many the backend has acknowledged.
        failed: how many it has not taken.
        unconfirmed: how many it may have taken.
        trouble: why not all are delivered.
        refused: whether there is no use in trying again.
    """

    delivered: int = 0
    failed: int = 0
    unconfirmed: int = 0
    trouble: str = ""
    refused: bool = False


class Link(Protocol[T_contra]):
    """A connection to a backend, for one thread."""

    def send(self, batch: Sequence[T_contra], /) -> Sent:
        """Send a batch, and say what became of it."""
        ...

    def close(self) -> None:
        """Let go of it, and have a `send` under way on another thread give up soon."""


class Pipeline(Generic[T]):
    """Takes things on any thread and sends them on its own.

    Args:
        name: how the signal is called in reports and warnings.
        connect: makes the link.
        size: how many may wait before the oldest is dropped.
        batch: how many are sent at once.
        delay: how many seconds they wait for others.
        collect: puts in what there is to send; called every `delay` seconds, and by `hurry`.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Link[T]],
        *,
        size: float,
        batch: float,
        delay: float,
        collect: Callable[[], None] | None = None,
    ) -> None:
        self._name, self._connect = name, connect
        self._size, self._batch, self._delay = size, batch, delay
        self._collect = collect
        self._overflow_log, self._failure_log = SparseLog(), SparseLog(60.0)
        self._open = True
        self.reset()
        _pipelines.add(self)

    def reset(self) -> None:
        """Begin with nothing, as in a forked process, which has none of its parent's threads."""
        # Reentrant, since a finaliser or a signal handler may end a span in the middle of `put`.
        self._changed = Condition(RLock())
        self._buffer: deque[tuple[int, T]] = deque()
        self._thread: Thread | None = None
        self._link: Link[T] | None = None
        self._due = 0.0
        self._urgent = self._in_hand = 0
        self._refused = False
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Take things, and start the thread unless it runs."""
        with self._changed:
            self._open = True
            if self._thread is None:
                self._due = time.monotonic() + self._delay
                self._link = link = self._connect()
                name = f"{THREAD_NAME}-{self._name}"
                self._thread = Thread(target=self._work, args=(link,), name=name, daemon=True)
                self._thread.start()

    def put(self, item: T, weight: int = 0) -> None:
        """Take one thing of roughly so many characters: in memory only, without raising."""
        with self._changed:
            self._counts["emitted"] += 1
            if not self._open or self._refused:
                self._counts["failed" if self._open else "stopped"] += 1
                return
            self._buffer.append((weight, item))
            waiting = len(self._buffer)
            if waiting > self._size:
                self._buffer.popleft()
                self._counts["overflowed"] += 1
                self._overflow_log.warn_aside(f"{self._name}: the oldest are dropped, too many")
            elif waiting == 1 and self._collect is None:
                self._due = time.monotonic() + self._delay
            if waiting in (1, self._batch):
                self._changed.notify_all()
            if self._thread is None:
                attempt(self.start)  # in a forked process; at its end there are no more threads

    def hurry(self) -> int:
        """Have everything sent that is there now; return what `wait` takes."""
        with self._changed:
            if self._collect is not None and self._open:
                self._collect()
            self._urgent = self._counts["emitted"]
            self._changed.notify_all()
            return self._urgent

    def wait(self, target: int, timeout: float) -> bool:
        """Wait until so much is dealt with; return whether it was within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._settled >= target, timeout)

    def close(self) -> None:
        """End at once, and count what is left behind; what comes later is counted as well."""
        with self._changed:
            self._open = False
            self._counts.update(stopped=len(self._buffer), unconfirmed=self._in_hand)
            self._buffer.clear()
            self._in_hand = 0
            link, self._link, self._thread = self._link, None, None
            self._changed.notify_all()
        if link is not None:
            attempt(link.close)

    def account(self) -> HandlerReport:
        """Return the account as it is at this moment."""
        with self._changed:
            queued = len(self._buffer) + self._in_hand
            ended = not self._open
            return HandlerReport(handler=self._name, queued=queued, finished=ended, **self._counts)

    @property
    def _settled(self) -> int:
        return self._counts["emitted"] - len(self._buffer) - self._in_hand

    # What the pipeline's thread does

    def _work(self, link: Link[T]) -> None:
        while batch := self._next():
            sent = attempt(link.send, batch)
            if isinstance(sent, Caught):
                sent = Sent(failed=len(batch), trouble=repr(sent.error))
            self._settle(sent)
            del batch  # an idle thread keeps nothing alive

    def _next(self) -> list[T]:
        """Wait for the next batch; an empty one is the end."""
        with self._changed:
            while self._thread is current_thread():
                left = self._due - time.monotonic()
                if self._collect is not None and left <= 0:
                    self._due += self._delay - left
                    self._collect()
                waiting = len(self._buffer)
                urgent = self._urgent > self._settled
                if waiting and (left <= 0 or waiting >= self._batch or urgent):
                    return self._take()
                self._changed.wait(left if waiting or self._collect is not None else None)
            return []

    def _take(self) -> list[T]:
        batch: list[T] = []
        left = _MAX_WEIGHT
        while self._buffer and len(batch) < self._batch:
            left -= self._buffer[0][0]
            if batch and left < 0:
                break
            batch.append(self._buffer.popleft()[1])
        self._in_hand = len(batch)
        return batch

    def _settle(self, sent: Sent) -> None:
        with self._changed:
            if self._thread is not current_thread():
                return  # `close` has counted it already
            self._in_hand = 0
            self._counts.update(dict(zip(Sent._fields[:3], sent[:3], strict=True)))
            if sent.refused:
                self._refused = True
                self._counts["failed"] += len(self._buffer)
                self._buffer.clear()
            self._changed.notify_all()
        if sent.trouble:
            # What ends a signal is told even where something else has just been.
            sparse = SparseLog() if sent.refused else self._failure_log
            end = "; it is switched off" if sent.refused else ""
            sparse.warn(redact_text(f"{self._name}: {sent.trouble}{end}"))


_pipelines: WeakSet[Pipeline[Any]] = WeakSet()


def _reset_all() -> None:
    for pipeline in list(_pipelines):
        pipeline.reset()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_reset_all)

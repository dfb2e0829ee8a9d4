"""One handler's way to its events: a bounded buffer, a thread, and the account of both."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, RLock, Thread, local
from typing import TypeVar
from weakref import WeakSet

from llmgine.contracts.messages import Event
from llmgine.observability._guard import Caught, SparseLog, attempt
from llmgine.observability.handler import HandlerReport, ObservabilityEventHandler

__all__ = ["Channel"]

T = TypeVar("T")


class _Thread(local):
    """What one of the application's threads is doing."""

    observing = False


_current = _Thread()


class _Request:
    """Something that the handler's thread does once `after` events are dealt with."""

    __slots__ = ("action", "after", "done")

    def __init__(self, after: int, action: Callable[[], bool]) -> None:
        self.after = after
        self.action = action
        self.done: Future[bool] = Future()
        # Nobody who waits for it can cancel it any more.
        self.done.set_running_or_notify_cancel()


class Channel:
    """Takes events for one handler on any thread, and hands them over on the handler's own.

    Every number of the account changes under one lock, so it adds up at any moment.

    Args:
        handler: who gets the events.
        name: how the handler is called in reports and warnings.
        size: events that wait before the oldest is dropped.
    """

    def __init__(self, handler: ObservabilityEventHandler, name: str, size: int) -> None:
        self.handler = handler
        self.name = name
        self._size = size
        overridden = type(handler).observe is not ObservabilityEventHandler.observe
        self._observer = handler.observe if overridden else None
        self._overflow_log = SparseLog()
        self._failure_log = SparseLog()
        self._closed = False
        self.reset()
        _channels.add(self)

    def reset(self) -> None:
        """Begin anew, as in a forked process: the thread and what waited for it stayed behind."""
        # Reentrant, since a signal handler or a finaliser may emit in the middle of `put`.
        self._lock = RLock()
        self._ready = Condition(self._lock)
        self._buffer: deque[Event] = deque()
        self._requests: deque[_Request] = deque()
        self._ending: Future[bool] | None = None
        self._thread: Thread | None = None
        self._idle = False
        self._in_hand = 0
        self._abandoned = False
        self._emitted = self._observed = self._delivered = self._unconfirmed = 0
        self._overflowed = self._failed = self._stopped = 0

    # What the application's threads call

    def start(self) -> None:
        """Start the handler's thread, unless it runs."""
        with self._lock:
            if self._thread is not None:
                return
            self._thread = Thread(
                target=self._work, name=f"llmgine-observability-{self.name}", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is going down
                self._thread = None
                self._failure_log.warn_aside(f"{self.name} has no thread", error)

    def observe(self, event: Event) -> bool:
        """Show one event to the observer; return whether that was all there was to do."""
        if self._observer is None or self._closed or not self._observe(self._observer, event):
            return False
        with self._lock:
            self._emitted += 1
            self._observed += 1
        if self._thread is None:  # in a forked process; it flushes and ends the handler
            self.start()
        return True

    def ask(self, call: Callable[[], T], otherwise: T) -> T:
        """Return what a call of the handler's returns, here and now, or else something harmless."""
        try:
            return call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failure_log.warn_aside(f"{self.name} failed to follow a trace", error)
            return otherwise

    def put(self, kept: Event) -> None:
        """Take one event, or rather its copy, for the handler's thread."""
        with self._lock:
            self._emitted += 1
            if self._closed:
                self._stopped += 1
                return
            buffer = self._buffer
            buffer.append(kept)
            full = len(buffer) > self._size
            if full:
                buffer.popleft()
                self._overflowed += 1
            if self._idle:
                self._idle = False
                self._ready.notify()
        if full:
            self._overflow_log.warn_aside(
                f"{self.name} can't keep up: the oldest events are dropped"
            )
        if self._thread is None:
            self.start()

    def _observe(self, observer: Callable[[Event], bool | None], event: Event) -> bool:
        # What an observer emits goes to the buffers alone: an observer of its own events would
        # never come to an end.
        if _current.observing:
            return False
        _current.observing = True
        try:
            return observer(event) is True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failure_log.warn_aside(f"{self.name} failed to observe an event", error)
            return False
        finally:
            _current.observing = False

    def flush(self, deadline: float) -> Future[bool]:
        """Ask for everything emitted so far to be brought on its way."""
        with self._lock:
            if self._ending is not None:
                return self._ending
            return self._request(lambda: self._flush_handler(deadline))

    def finish(self, deadline: float) -> Future[bool]:
        """Take no more events, deal with the waiting ones, and stop the handler."""
        with self._lock:
            if self._ending is None:
                self._ending = self._request(lambda: self._stop_handler(deadline))
                self._closed = True
            return self._ending

    def abandon(self) -> None:
        """Give up on what is still waiting or in hand after `finish`."""
        with self._lock:
            if self._abandoned:
                return
            self._abandoned = True
            self._unconfirmed += self._in_hand
            self._stopped += len(self._buffer)
            self._in_hand = 0
            self._buffer.clear()
            # Nobody waits for what won't be done, now or at another `stop`.
            for request in self._requests:
                request.done.set_result(False)
            self._requests.clear()
            if self._ending is not None and not self._ending.done():
                self._ending = _given_up()
            self._ready.notify()

    def report(self) -> HandlerReport:
        """Return the account as it is at this moment."""
        with self._lock:
            return HandlerReport(
                handler=self.name,
                emitted=self._emitted,
                delivered=self._observed + self._delivered,
                overflowed=self._overflowed,
                failed=self._failed,
                stopped=self._stopped,
                unconfirmed=self._unconfirmed,
                queued=len(self._buffer) + self._in_hand,
                finished=self._ending is not None and self._ending.done() and self._ending.result(),
            )

    def _request(self, action: Callable[[], bool]) -> Future[bool]:
        with self._lock:
            request = _Request(self._emitted - self._observed, action)
            if self._thread is None or self._abandoned:
                request.done.set_result(not self._buffer)
                return request.done
            self._requests.append(request)
            self._idle = False
            self._ready.notify()
            return request.done

    # What the handler's thread does

    def _work(self) -> None:
        self._guarded(self.handler.start, "failed to start")
        handle = self.handler.handle
        failed = False
        while (item := self._take(failed=failed)) is not None:
            if isinstance(item, _Request):
                item.done.set_result(item.action())
                continue
            outcome = attempt(handle, item)
            failed = isinstance(outcome, Caught)
            if isinstance(outcome, Caught):
                self._failure_log.warn(f"{self.name} failed to handle an event", outcome.error)
            del item, outcome  # an idle thread keeps nothing alive

    def _take(self, *, failed: bool) -> Event | _Request | None:
        """Enter how the event in hand went, and wait for what comes next; None is the end."""
        with self._lock:
            if self._in_hand:
                self._in_hand = 0
                self._failed += failed
                self._delivered += not failed
            while not self._abandoned:
                if (item := self._next()) is not None or self._closed:
                    return item
                self._idle = True
                self._ready.wait()
                self._idle = False
            return None

    def _next(self) -> Event | _Request | None:
        done = self._delivered + self._failed + self._overflowed
        if self._requests and done >= self._requests[0].after:
            return self._requests.popleft()
        if not self._buffer:
            return None
        self._in_hand = 1
        return self._buffer.popleft()

    def _flush_handler(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        return self._guarded(lambda: self.handler.flush(left), "failed to flush")

    def _stop_handler(self, deadline: float) -> bool:
        flushed = self._flush_handler(deadline)
        left = max(0.0, deadline - time.monotonic())
        return self._guarded(lambda: self.handler.stop(left), "failed to stop") and flushed

    def _guarded(self, call: Callable[[], None], failure: str) -> bool:
        outcome = attempt(call)
        if isinstance(outcome, Caught):
            self._failure_log.warn(f"{self.name} {failure}", outcome.error)
            return False
        return True


def _given_up() -> Future[bool]:
    done: Future[bool] = Future()
    done.set_result(False)
    return done


_channels: WeakSet[Channel] = WeakSet()


def _rearm_all() -> None:
    for channel in list(_channels):
        channel.reset()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_rearm_all)

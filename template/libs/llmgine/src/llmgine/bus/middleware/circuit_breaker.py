"""Refusing at once what has kept failing, until a single try shows that it works again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from llmgine.bus.frames import Frame
from llmgine.bus.middleware.keys import Key, Keyed, Place, by_type, described
from llmgine.bus.middleware.outcome import (
    current_frame,
    cut_of,
    failure_of,
    is_over,
    is_within,
)
from llmgine.contracts.events import SessionEndEvent
from llmgine.contracts.messages import Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import CircuitOpenError, LlmgineError, ProviderError, StreamInterruptedError
from llmgine.settings import CircuitBreakerSettings

__all__ = ["CircuitBreaker", "CircuitState", "build"]

CircuitState = Literal["closed", "open", "half-open"]

_log = logging.getLogger(__name__)

# What a handler raises for what it was given, rather than for what it works with.
_INPUT_ERRORS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


@dataclass(eq=False, slots=True)
class _Circuit:
    """What has become of the calls of one key.

    Attributes:
        outcomes: when the last calls ended that say something, and whether they had failed.
        until: when the circuit lets a call try again; None while it is closed.
        trying: whether such a try is under way,
        tried: when it began, and its frame, should it never end.
        age: changes with the state: calls that began at another age have no say any more.
        last: what kind of error the last failure was.
    """

    outcomes: deque[tuple[float, bool]]
    until: float | None = None
    trying: bool = False
    tried: float = 0.0
    frame: Frame | None = None
    age: int = 0
    last: str = ""


@dataclass(slots=True)
class _Call:
    """One call that was let through."""

    place: Place
    circuit: _Circuit
    age: int
    frame: Frame | None = field(default_factory=current_frame)


class CircuitBreaker:
    """Middleware that refuses calls for a while after too many have failed.

    Each command type of each session has a circuit of its own, unless settings and `key` say
    otherwise. It opens once enough of the last calls have failed; from then on calls are refused
    with `CircuitOpenError`. When its time is over one call is let through, and its outcome closes
    the circuit or opens it anew; one that takes as long as that again makes way for another. What
    is cancelled by its caller says nothing, and neither does an error that doesn't count.

    Args:
        settings: when a circuit opens, and for how long.
        key: what calls are counted by; by default commands by their type, and events not at all.
        counts: whether an error is one of those that open a circuit; by default those that blame
            something else than the call itself.
    """

    def __init__(
        self,
        settings: CircuitBreakerSettings | None = None,
        *,
        key: Key = by_type,
        counts: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self._settings = settings = settings or CircuitBreakerSettings()
        self._counts = counts or is_outage
        self._circuits = Keyed(
            lambda: _Circuit(deque(maxlen=settings.calls)),
            key=key,
            scope=settings.scope,
            limit=settings.max_keys,
        )

    def __len__(self) -> int:
        """Return how many circuits are kept."""
        return len(self._circuits)

    def state(self, message: Message) -> CircuitState:
        """Return the state of the circuit that a message goes through."""
        place = self._circuits.place(message)
        circuit = None if place is None else self._circuits.peek(place)
        if circuit is None or circuit.until is None:
            return "closed"
        return "open" if _now() < circuit.until else "half-open"

    def observe(self, event: Event) -> None:
        """Forget the circuits of a session that has ended."""
        if isinstance(event, SessionEndEvent):
            self._circuits.drop_session(event.session_id)

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message, or refuse it.

        Raises:
            CircuitOpenError: the circuit is open.
        """
        place = self._circuits.place(message)
        circuit = None if place is None else self._circuits.state(place)
        if place is None or circuit is None or (circuit.trying and is_within(circuit.frame)):
            return await call_next(message)  # uncounted, or a part of the one try
        self._enter(place, circuit)
        call = _Call(place, circuit, circuit.age)
        try:
            value = await call_next(message)
        except BaseException as error:
            self._ended(call, failure_of(error, call.frame), says=False)
            raise
        # One that was cut off, and went on to its end all the same, took too long.
        self._ended(call, cut_of(call.frame), says=not is_over(call.frame))
        return value

    def _enter(self, place: Place, circuit: _Circuit) -> None:
        """Let a call through, or not."""
        if circuit.until is None:
            return
        now = _now()
        wait = circuit.until - now
        if wait <= 0 and circuit.trying and not is_over(circuit.frame):
            wait = circuit.tried + self._settings.open_for - now
        if wait > 0:
            raise CircuitOpenError(
                f"the circuit of {described(place)} is open, since too many calls have failed "
                f"(the last one: {circuit.last}); try again in {wait:.1f} s",
                key=place[1],
                retry_after=wait,
            )
        circuit.trying, circuit.tried, circuit.frame = True, now, current_frame()
        circuit.age += 1

    def _ended(self, call: _Call, failure: BaseException | None, *, says: bool) -> None:
        """Note how a call has ended.

        Args:
            call: the call.
            failure: what it failed with.
            says: whether an end without a failure that counts says that all is well.
        """
        circuit = call.circuit
        if call.age != circuit.age:
            return
        circuit.trying, circuit.frame = False, None
        failed = failure is not None and self._counts(failure)
        if failed:
            # Its text may be another user's business.
            circuit.last = type(failure).__qualname__
        if failed or (says and failure is None):
            self._judge(call.place, circuit, failed=failed)

    def _judge(self, place: Place, circuit: _Circuit, *, failed: bool) -> None:
        settings, now = self._settings, _now()
        if circuit.until is not None:
            if failed:
                self._open(place, circuit)
            else:
                circuit.until = None
                circuit.age += 1
                _log.info("the circuit of %s is closed again", described(place))
            return
        circuit.outcomes.append((now, failed))
        if failed:
            recent = [each for at, each in circuit.outcomes if at > now - settings.window]
            if sum(recent) >= max(settings.failures, settings.ratio * len(recent)):
                self._open(place, circuit)

    def _open(self, place: Place, circuit: _Circuit) -> None:
        circuit.until = _now() + self._settings.open_for
        circuit.outcomes.clear()
        circuit.age += 1
        name, seconds = described(place), self._settings.open_for
        _log.warning("the circuit of %s is open for %g s after a %s", name, seconds, circuit.last)


def is_outage(error: BaseException) -> bool:
    """Tell whether an error blames something else than the call itself.

    A model call's does if it could be tried again, or broke off; llmgine's own errors do if they
    are about time; any other does, unless it is one that Python has for wrong input.
    """
    if isinstance(error, ProviderError):
        return error.retryable or isinstance(error, StreamInterruptedError)
    if isinstance(error, LlmgineError):
        return isinstance(error, TimeoutError)
    return isinstance(error, Exception) and not isinstance(error, _INPUT_ERRORS)


def _now() -> float:
    return asyncio.get_running_loop().time()


def build(settings: CircuitBreakerSettings) -> CircuitBreaker:
    """Make one from settings, for the bootstrap."""
    return CircuitBreaker(settings)

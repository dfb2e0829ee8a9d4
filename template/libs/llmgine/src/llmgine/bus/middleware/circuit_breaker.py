"""Refusing at once what has kept failing, until a single try shows that it works again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from llmgine.bus.frames import Frame
from llmgine.bus.middleware.circuit import Circuit, CircuitState
from llmgine.bus.middleware.keys import Key, Keyed, Place, by_type, described
from llmgine.bus.middleware.outcome import current_frame, cut_of, failure_of, is_over
from llmgine.contracts.events import SessionEndEvent
from llmgine.contracts.messages import Event, Message
from llmgine.contracts.protocols import CallNext
from llmgine.errors import CircuitOpenError, LlmgineError, ProviderError, StreamInterruptedError
from llmgine.settings import CircuitBreakerSettings

__all__ = ["CircuitBreaker", "build"]

_log = logging.getLogger(__name__)

# What a handler raises for what it was given, rather than for what it works with.
_INPUT_ERRORS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


@dataclass(slots=True)
class _Call:
    """One call that was let through."""

    place: Place
    circuit: Circuit
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
            lambda: Circuit(settings),
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
        return "closed" if circuit is None else circuit.state

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
        if place is None or circuit is None or circuit.within_try:
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

    def _enter(self, place: Place, circuit: Circuit) -> None:
        """Let a call through, or not."""
        wait = circuit.admit()
        if wait > 0:
            raise CircuitOpenError(
                f"the circuit of {described(place)} is open, since too many calls have failed "
                f"(the last one: {circuit.last}); try again in {wait:.1f} s",
                key=place[1],
                retry_after=wait,
            )

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
        circuit.release()
        failed = failure is not None and self._counts(failure)
        if failed:
            # Its text may be another user's business.
            circuit.last = type(failure).__qualname__
        if failed or (says and failure is None):
            self._tell(call.place, circuit, circuit.note(failed=failed))

    def _tell(self, place: Place, circuit: Circuit, change: CircuitState | None) -> None:
        if change == "open":
            text, seconds = "the circuit of %s is open for %g s after a %s", self._settings.open_for
            _log.warning(text, described(place), seconds, circuit.last)
        elif change == "closed":
            _log.info("the circuit of %s is closed again", described(place))


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


def build(settings: CircuitBreakerSettings) -> CircuitBreaker:
    """Make one from settings, for the bootstrap."""
    return CircuitBreaker(settings)

"""Who handles what in one scope: the bus's own, or one session's over the bus's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import TypeAlias

from llmgine.bus.frames import Place
from llmgine.bus.handlers import Handler, check_message_type, qualified_name
from llmgine.contracts.events import CommandResultEvent, CommandStartedEvent
from llmgine.contracts.messages import Event
from llmgine.errors import DuplicateHandlerError

__all__ = ["NOBODY", "Audience", "Registry"]

Audience: TypeAlias = tuple[tuple[Handler, ...], tuple[Handler, ...]]
NOBODY: Audience = ((), ())

_order = count()
_NONE: Mapping[str | None, Registry] = {}


class Registry(Place):
    """The handlers of one scope.

    Attributes:
        session_id: the session's id; None for the bus's own scope.
        commands: the handler of each exact command type.
        routes: for each event type seen, everyone who hears it, in order; filled on first use.
        audience: who hears that a command starts, and that it ends; None while unknown, `NOBODY`
            itself where there is nobody.
        guarded: something is closing, so that publishers and callers have to be looked at.
        scopes: of the bus's own scope, all that there are, itself among them.
    """

    __slots__ = ("_parent", "_subscriptions", "audience", "commands", "guarded", "routes",
                 "scopes", "session_id")  # fmt: skip

    def __init__(self, owner: object, session_id: str | None, parent: Registry | None) -> None:
        self.owner = owner
        self.session_id = session_id
        self.commands: dict[type, Handler] = {}
        self.routes: dict[type, tuple[Handler, ...]] = {}
        # Until it has subscriptions of its own, whose coming and going forgets this.
        self.audience: Audience | None = None if parent is None else parent.audience
        self.guarded = False
        self._subscriptions: dict[type, list[Handler]] = {}
        self._parent = parent
        self.scopes: Mapping[str | None, Registry] = _NONE

    @property
    def has_handlers(self) -> bool:
        """Whether anything is registered in this very scope."""
        return bool(self.commands or self._subscriptions)

    def handlers(self) -> Iterator[Handler]:
        """Yield all registrations of this very scope."""
        yield from list(self.commands.values())
        for subscribed in list(self._subscriptions.values()):
            yield from list(subscribed)

    def cancel_handlers(self, *, lasting: bool = True) -> None:
        """Undo all registrations of this very scope, those that outlive `stop` only if asked."""
        for handler in self.handlers():
            if lasting or not handler.lasting:
                handler.cancel()

    def add_command(self, handler: Handler) -> None:
        """Register the one handler of a command type.

        Raises:
            DuplicateHandlerError: the type has its handler in this scope.
        """
        present = self.commands.get(handler.message_type)
        if present is not None:
            raise DuplicateHandlerError(
                f"{handler.message_type.__qualname__} already has a handler {self._scope()}: "
                f"{qualified_name(present.callback)}; cancel that registration first"
            )
        self.commands[handler.message_type] = handler
        handler.remove = self.remove

    def add_subscription(self, handler: Handler) -> None:
        """Register one more handler of an event type.

        Raises:
            DuplicateHandlerError: this very callable hears the type in this scope already.
        """
        subscribed = self._subscriptions.setdefault(handler.message_type, [])
        if any(other.callback == handler.callback for other in subscribed):
            raise DuplicateHandlerError(
                f"{qualified_name(handler.callback)} already hears "
                f"{handler.message_type.__qualname__} {self._scope()}"
            )
        handler.order = next(_order)
        handler.remove = self.remove
        subscribed.append(handler)
        self.forget_routes()

    def remove(self, handler: Handler) -> None:
        """Take a registration out, whichever kind it is."""
        if self.commands.get(handler.message_type) is handler:
            del self.commands[handler.message_type]
            return
        subscribed = self._subscriptions[handler.message_type]
        subscribed.remove(handler)
        if not subscribed:
            del self._subscriptions[handler.message_type]
        self.forget_routes()

    def forget_routes(self) -> None:
        """Have the routes worked out anew, here and in the scopes that this one serves too."""
        self.routes.clear()
        self.audience = None
        for scope in self.scopes.values():
            if scope is not self:
                scope.forget_routes()

    def route(self, event_type: type[Event]) -> tuple[Handler, ...]:
        """Return everyone who hears this type: higher priority first, then by registration.

        Raises:
            InvalidMessageError: it's no event type, or not decorated.
        """
        if not self._subscriptions and self._parent is not None:
            return self._parent.route(event_type)
        found = self.routes.get(event_type)
        if found is None:
            check_message_type(event_type, Event)
            heard = chain.from_iterable(map(self._hearing, event_type.__mro__))
            by_turn = sorted(heard, key=lambda handler: (-handler.priority, handler.order))
            found = self.routes[event_type] = tuple(by_turn)
        return found

    def listeners(self) -> Audience:
        """Return who hears of commands in this scope, and remember it unless guarded."""
        if self._parent is not None and not self._subscriptions:
            audience = self._parent.audience or self._parent.listeners()
        else:
            heard = (self.route(CommandStartedEvent), self.route(CommandResultEvent))
            audience = heard if any(heard) else NOBODY
        if not self.guarded:
            self.audience = audience
        return audience

    def guard(self) -> None:
        """Have everyone who comes from now on looked at, since something is closing."""
        self.guarded = True
        self.audience = None

    def _hearing(self, event_type: type) -> list[Handler]:
        own = self._subscriptions.get(event_type, [])
        return own if self._parent is None else own + self._parent._hearing(event_type)  # noqa: SLF001 - of its own class

    def _scope(self) -> str:
        return "on the bus" if self.session_id is None else f"in session {self.session_id!r}"

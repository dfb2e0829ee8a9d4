"""The parts that can be replaced, each as the few methods that the others rely on.

Beside the protocol of publishers stands how a part tells them of something that has happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from llmgine.contracts.chat import ChatMessage, ToolCall, ToolResult
from llmgine.contracts.events import ResolveToolApproval
from llmgine.contracts.llm import LLMChunk, LLMRequest, LLMResponse, ToolDefinition
from llmgine.contracts.messages import Command, Event, Message, ResultT

__all__ = [
    "Bus",
    "CallNext",
    "ContextStore",
    "DescribesCapabilities",
    "Handles",
    "LLMProvider",
    "ListsSessions",
    "Middleware",
    "ObservabilitySink",
    "Observer",
    "ProviderCapabilities",
    "Publisher",
    "Registration",
    "ResolvesApprovals",
    "StoredSession",
    "ToolExecutor",
    "capabilities_of",
    "tell",
    "tell_surely",
]

EventT = TypeVar("EventT", bound=Event)
HandlerT_contra = TypeVar("HandlerT_contra", contravariant=True)

CallNext = Callable[[Message], Awaitable[object]]
Observer = Callable[[Event], None]

_log = logging.getLogger(__name__)
# The loop keeps only weak references to tasks.
_telling: set[asyncio.Task[bool]] = set()


class Registration(Protocol):
    """What a `register_...` or `schedule` call returns."""

    def cancel(self) -> None:
        """Undo the registration; a second call does nothing."""
        ...


class Handles(Protocol[HandlerT_contra]):
    """A command class, seen as what its handlers must look like."""

    def check_handler(self, handler: HandlerT_contra, /) -> None:
        """Exist for type checkers; see `Command.check_handler`."""
        ...


@runtime_checkable
class Publisher(Protocol):
    """Whoever can be told of events. Rooms that must not know the bus take one of these."""

    async def publish(self, event: Event) -> None:
        """Queue an event for its handlers; return as soon as it is queued."""
        ...


@runtime_checkable
class Bus(Publisher, Protocol):
    """The bus as applications use it."""

    async def execute(self, command: Command[ResultT], *, timeout: float | None = None) -> ResultT:
        """Run a command's handler and return its result, or raise its own exception."""
        ...

    def register_command_handler(
        self,
        command_type: Handles[HandlerT_contra],
        handler: HandlerT_contra,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` answer commands of exactly this type."""
        ...

    def register_event_handler(
        self,
        event_type: type[EventT],
        handler: Callable[[EventT], object],
        *,
        session_id: str | None = None,
        priority: int = 0,
        concurrent: bool = False,
        timeout: float | None = None,
        inline: bool = False,
    ) -> Registration:
        """Make `handler` hear events of this type and its subclasses."""
        ...


@runtime_checkable
class Middleware(Protocol):
    """Code around every handler of a bus, of commands and events alike.

    It calls `call_next(message)` to go on (once, several times or not at all) and returns what
    the handler returned; what a middleware returns for an event goes nowhere. One that is an
    `ObservabilitySink` too, by a method `observe`, is shown every event: the end of a session, say.
    """

    async def __call__(self, message: Message, call_next: CallNext) -> object:
        """Handle the message, usually by way of `call_next`."""
        ...


@runtime_checkable
class LLMProvider(Protocol):
    """Whoever answers: a model behind an API, on this machine, or a script.

    Attributes:
        name: the provider's name in events, errors and settings.
    """

    name: str

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Return the whole answer.

        Raises:
            ProviderError: the call failed; `retryable` says whether another may succeed.
        """
        ...

    def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        """Return the answer piece by piece: one `StreamStart` first, one `StreamEnd` last.

        Raises:
            ProviderError: as `complete`; `StreamInterruptedError` once chunks were handed on.
        """
        ...


@runtime_checkable
class ContextStore(Protocol):
    """Conversations: complete, in order, each under a session id."""

    async def add_message(self, session_id: str, message: ChatMessage) -> None:
        """Append one message."""
        ...

    async def add_messages(
        self,
        session_id: str,
        messages: Sequence[ChatMessage],
        *,
        expected_version: int | None = None,
    ) -> int:
        """Append all messages or none; return the new version.

        A conversation's version is the number of messages ever appended since it was cleared.

        Raises:
            VersionConflictError: `expected_version` isn't the conversation's version.
        """
        ...

    async def get_context(self, session_id: str, *, last: int | None = None) -> list[ChatMessage]:
        """Return the messages, oldest first; with `last` about that many from the end.

        A tool result is never returned without the message that called for it.
        """
        ...

    async def clear_context(self, session_id: str) -> None:
        """Forget the conversation."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSession:
    """A conversation in a store, as a list shows it.

    Attributes:
        session_id: whose it is.
        messages: how many it holds.
        created_at: when the first of them was stored, in Unix seconds (UTC).
        updated_at: when the last one was.
        opening: how the user began: at most 200 characters; empty where that can't be told.
    """

    session_id: str
    messages: int
    created_at: float
    updated_at: float
    opening: str = ""


@runtime_checkable
class ListsSessions(Protocol):
    """A `ContextStore` that can tell which conversations it holds."""

    async def list_sessions(
        self, *, limit: int = 100, after: StoredSession | None = None
    ) -> list[StoredSession]:
        """Return conversations, the one that changed last first.

        Args:
            limit: how many at most.
            after: the last one of the list that this one goes on from.
        """
        ...

    async def find_session(self, session_id: str) -> StoredSession | None:
        """Return one conversation; nothing where it holds no message."""
        ...


@runtime_checkable
class ToolExecutor(Protocol):
    """Whoever runs the tools that a model calls."""

    def get_tools(self, *, strict: bool = False) -> list[ToolDefinition]:
        """Return what can be called, as `LLMRequest.tools` takes it."""
        ...

    async def execute_tool_call(self, call: ToolCall) -> ToolResult:
        """Run one call; whatever the model sent, the outcome is a result, never an exception."""
        ...


@runtime_checkable
class ResolvesApprovals(Protocol):
    """A `ToolExecutor` whose calls may wait for a person; bootstrap brings it the answers."""

    def resolve_approval(self, command: ResolveToolApproval) -> bool:
        """Answer a waiting call; return whether such a call was waiting."""
        ...


@runtime_checkable
class ObservabilitySink(Protocol):
    """Whoever writes events down."""

    def observe(self, event: Event) -> None:
        """Take note of an event: at once, in memory only, without raising."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderCapabilities:
    """What requests a provider takes; it refuses others with `InvalidRequestError`.

    Attributes:
        tools: `LLMRequest.tools`, and tool calls and results in the history.
        response_format: `LLMRequest.response_format`.
        media: pictures, sound, films and documents in messages.
    """

    tools: bool = True
    response_format: bool = True
    media: bool = True


@runtime_checkable
class DescribesCapabilities(Protocol):
    """A provider that says what it can do. One that doesn't is taken to do everything."""

    @property
    def capabilities(self) -> ProviderCapabilities:
        """What this provider can do."""
        ...


def capabilities_of(provider: LLMProvider) -> ProviderCapabilities:
    """Return what a provider says that it can do; everything where it says nothing.

    Ask before offering tools: `tools = manager.get_tools() if capabilities_of(p).tools else []`.
    """
    if isinstance(provider, DescribesCapabilities):
        return provider.capabilities
    return ProviderCapabilities()


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

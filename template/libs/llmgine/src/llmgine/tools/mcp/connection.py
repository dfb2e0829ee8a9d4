"""One MCP server: connected, its tools registered, and connected anew when it was lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Literal, NoReturn, TypeAlias, TypeGuard

from mcp import Client, MCPError, types
from mcp.client import IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from llmgine.contracts import ToolResult
from llmgine.contracts.chat import JsonValue
from llmgine.errors import ToolError
from llmgine.settings import McpServerSettings
from llmgine.tools.manager import ToolManager
from llmgine.tools.mcp.content import as_result
from llmgine.tools.mcp.offer import Offer
from llmgine.tools.mcp.transport import LastWords, opened, program

__all__ = ["McpConnection"]

_Signal: TypeAlias = Literal["look", "changed", "ended", "forgotten", "stop"]

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_MOST_DOUBLINGS = 10
# A call waits for a pause that isn't longer than this; otherwise it says so at once.
_PATIENCE = 2.0
_LISTEN_AGAIN = 1.0
_MOST_PAGES = 100

_log = logging.getLogger(__name__)


class McpConnection:
    """One MCP server and its tools in a `ToolManager`, from `start` to `stop`.

    A task of its own connects, watches and disconnects it. One that can't be reached at the start
    is tried again and again; one that was lost is connected anew when one of its tools is called.
    The pauses between tries double, from half a second to half a minute, until a call succeeds.

    Args:
        name: the server's name.
        settings: where it is, and what of it is offered.
        tools: where its tools are registered.
        folder: what its working directory is seen from.
        variables: what else there is beside the environment, for `pass_env`.

    Attributes:
        name: the server's name.
        required: whether the application may not start without it.
        connects: how often it has been connected.
    """

    def __init__(
        self,
        name: str,
        settings: McpServerSettings,
        tools: ToolManager,
        *,
        folder: Path,
        variables: Mapping[str, str],
    ) -> None:
        self.name = name
        self.required = settings.required
        self.connects = 0
        self._server = program(name, settings, folder, variables) if settings.command else settings
        self._patience = settings.connect_timeout
        self._busy = settings.timeout
        self._offer = Offer(name, settings, tools, self.call)
        self._task: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._wanted = asyncio.Event()
        self._signals: asyncio.Queue[_Signal] = asyncio.Queue()
        self._limit: asyncio.Timeout | None = None
        self._client: Client | None = None
        # What calls wait for that find no client; it becomes none where a try fails.
        self._next: asyncio.Future[Client | None] | None = None
        self._trying = False
        self._tried = 0.0
        self._failures = 0
        self._reason = ""

    @property
    def connected(self) -> bool:
        """Whether the server can be called right now."""
        return self._client is not None

    @property
    def tools(self) -> Mapping[str, str]:
        """The names that models call the server's tools by, by the server's own names."""
        return self._offer.names

    async def start(self) -> str:
        """Connect, and register the tools; return what is wrong where that fails, or nothing."""
        self._stopped.clear()
        self._trying = True
        self._task = asyncio.create_task(self._keep(), name=f"llmgine-mcp-{self.name}")
        return "" if await self._outcome() else f"can't be reached ({self._reason})"

    async def stop(self) -> None:
        """Disconnect, end the program that was started, and take the tools back."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopped.set()
        self._wanted.set()
        self._signals.put_nowait("stop")
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)
        # Not cancelled: that would cut off its clean-up, and leave the program behind.
        await asyncio.wait((task,))
        self._offer.withdraw()

    async def call(self, tool: str, arguments: dict[str, JsonValue]) -> ToolResult:
        """Call a tool by the server's own name for it.

        Raises:
            ToolError: the server refused the call, can't be reached, or was lost meanwhile.
        """
        _check_text(arguments)
        client = await self._ready()
        try:
            result = await client.call_tool(tool, arguments)
        except MCPError as error:
            if not _is_forgotten(error):
                self._refuse(client, error)
            # The server was started anew and knows nothing of us, nor has it run the call.
            self._suspect(client, "forgotten")
            result = await self._called_anew(tool, arguments)
        self._failures = 0
        return as_result(result)

    async def _called_anew(
        self, tool: str, arguments: dict[str, JsonValue]
    ) -> types.CallToolResult:
        client = await self._ready()
        try:
            return await client.call_tool(tool, arguments)
        except MCPError as error:
            self._refuse(client, error)

    def _refuse(self, client: Client, error: MCPError) -> NoReturn:
        if not _is_lost(error):
            raise ToolError(f"The MCP server refused the call: {error.message}") from None
        self._suspect(client, "look")
        text = "The MCP server was lost during the call, which may have been carried out or not."
        raise ToolError(text, code="connection_lost") from None

    # -- What calls wait for

    async def _ready(self) -> Client:
        if self._client is not None:
            return self._client
        if self._task is None or (self._left() > _PATIENCE and not self._trying):
            self._give_up()
        self._wanted.set()
        return await self._outcome() or self._give_up()

    def _give_up(self) -> NoReturn:
        again = "" if self._stopped.is_set() else f"; try again in {self._left():.0f} s"
        text = f"The MCP server {self.name!r} can't be reached{again}."
        raise ToolError(text, code="unavailable")

    async def _outcome(self) -> Client | None:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    def _settle(self, client: Client | None) -> None:
        self._client = client
        self._wanted.clear()
        waiting, self._next = self._next, None
        if waiting is not None:
            waiting.set_result(client)

    def _suspect(self, client: Client, signal: _Signal) -> None:
        """Let calls wait until the task has looked whether the server is still there."""
        if self._client is client:
            self._client = None
            self._signals.put_nowait(signal)

    # -- The task

    async def _keep(self) -> None:
        while not self._stopped.is_set():
            known = self.connects
            self._trying, self._tried, self._signals = True, monotonic(), asyncio.Queue()
            words = LastWords(self.name)
            try:
                await self._hold(words)
            except Exception as error:
                self._reason = _told(error, words)
            self._trying, self._client = False, None
            if not self._stopped.is_set():
                self._failures += 1
                self._say_what_failed(lost=self.connects > known)
                await self._rest()
        self._settle(None)

    def _say_what_failed(self, *, lost: bool) -> None:
        if lost:
            _log.warning("MCP server %r was lost (%s)", self.name, self._reason)
        else:
            self._tried = monotonic()
            text = "MCP server %r can't be reached (%s); it is tried again after %g s"
            _log.warning(text, self.name, self._reason, self._pause())
        if not lost or self._left() > _PATIENCE:
            # Otherwise the calls that wait go on waiting: the next try is theirs.
            self._settle(None)

    def _left(self) -> float:
        """How long it is until the next try."""
        return max(0, self._tried + self._pause() - monotonic())

    def _pause(self) -> float:
        doublings = min(max(self._failures - 1, 0), _MOST_DOUBLINGS)
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**doublings)

    async def _rest(self) -> None:
        """Wait for the next try; one that was there before isn't tried until somebody calls."""
        if self.connects:
            await self._wanted.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), self._left())

    async def _hold(self, words: LastWords) -> None:
        """Connect, and stay connected until the server is lost or somebody says stop."""
        async with AsyncExitStack() as stack:
            way = opened(self._server, words, partial(self._signal, "ended"))
            streams = await stack.enter_async_context(way)
            async with self._limited(self._patience):
                client = Client(
                    nullcontext(streams),
                    cache=None,
                    client_info=types.Implementation(name="llmgine", version=version("llmgine")),
                    message_handler=self._hear,
                )
                await stack.enter_async_context(client)
                self._offer.update(await _listed(client))
            self.connects += 1
            _log.info("MCP server %r is connected (time %d)", self.name, self.connects)
            self._settle(client)
            listening = asyncio.create_task(self._listen(client))
            stack.push_async_callback(_ended, listening)
            stack.callback(self._forget)
            await self._watch(client)

    async def _watch(self, client: Client) -> None:
        while (signal := await self._signals.get()) in {"look", "changed"}:
            # What tells of a change may be busy with a call, and answer after that.
            busy = self._busy if signal == "changed" else 0
            async with self._limited(self._patience + busy):
                self._offer.update(await _listed(client))
            self._settle(client)
        if signal != "stop":
            raise ConnectionError(_REASONS[signal])

    @asynccontextmanager
    async def _limited(self, seconds: float) -> AsyncGenerator[None, None]:
        left = 0 if self._stopped.is_set() else seconds
        try:
            async with asyncio.timeout(left) as self._limit:
                yield
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds:g} s") from None
        finally:
            self._limit = None

    def _forget(self) -> None:
        self._client = None

    # -- What the server tells by itself

    def _signal(self, signal: _Signal) -> None:
        self._signals.put_nowait(signal)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._changed()

    def _changed(self) -> None:
        if self._signals.empty():
            self._signal("changed")

    async def _listen(self, client: Client) -> None:
        """Ask to be told of changes, where the protocol wants to be asked."""
        tools = client.server_capabilities.tools
        while tools and tools.list_changed:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._changed()
            except (ListenNotSupportedError, MCPError):
                return
            except SubscriptionLost as error:
                _log.debug("MCP server %r: %s", self.name, error)
            await asyncio.sleep(_LISTEN_AGAIN)
            # Something may have changed meanwhile, or the server be gone.
            self._signal("look")


async def _listed(client: Client) -> list[types.Tool]:
    found: list[types.Tool] = []
    if client.server_capabilities.tools is None:
        return found
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    else:
        _log.warning("an MCP server lists its tools on more than %d pages", _MOST_PAGES)
    return found


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


_REASONS: Mapping[str, str] = {
    "ended": "the connection was closed",
    "forgotten": "it was started anew",
}


def _is_group(error: Exception) -> TypeGuard[ExceptionGroup[Exception]]:
    return isinstance(error, ExceptionGroup)


def _told(error: Exception, words: LastWords) -> str:
    """Return what went wrong, in a line, with what the server itself said about it."""
    if _is_group(error):
        return _told(error.exceptions[0], words)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        text = f"there is no {error.filename!r}"
    return f"{text}; it said: {words}" if str(words) else text


def _is_lost(error: MCPError) -> bool:
    # Servers have errors of their own under this code, so that only the SDK's text tells.
    ours = error.message == "Connection closed" or error.message.startswith("SSE stream")
    return ours and error.code == types.CONNECTION_CLOSED


def _is_forgotten(error: MCPError) -> bool:
    return error.code == types.INVALID_REQUEST and error.message == "Session terminated"


def _check_text(arguments: dict[str, JsonValue]) -> None:
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = "The arguments hold half of a surrogate pair, which has no UTF-8 form."
        raise ToolError(text, code="invalid_arguments") from None

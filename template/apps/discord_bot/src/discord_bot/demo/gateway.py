"""The gateway: a websocket over which the client hears what happens."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

from aiohttp import WSMsgType, web

from discord_bot.demo.world import Payload, as_payload

__all__ = ["BAD_TOKEN", "NO_INTENT", "Gateway"]

BAD_TOKEN, NO_INTENT = 4004, 4014
"""Codes of closing a connection for good."""

_DISPATCH, _HEARTBEAT, _IDENTIFY, _RESUME, _INVALID, _HELLO, _ACK = 0, 1, 2, 6, 9, 10, 11
_MESSAGE_CONTENT = 1 << 15
_INTERVAL = 41_250
_RESTART = 1012


class Gateway:
    """Tells one client what happens; what it misses while it's away comes when it resumes.

    Args:
        token: the token that is right.
        beginning: gives what a new session hears first: names of events, and what they say.
        changed: called when a connection begins or ends.

    Attributes:
        url: where it is.
        token: the token that is right.
        identified: how many sessions were begun.
        resumed: how many were gone on with.
        resumable: whether sessions can be gone on with.
        message_content: whether the client may ask for the content of messages.
        closed: the codes with which the client has closed its connections.
    """

    def __init__(
        self,
        token: str,
        beginning: Callable[[str], list[tuple[str, Payload]]],
        changed: Callable[[], None],
    ) -> None:
        self.token = token
        self._beginning = beginning
        self._changed = changed
        self.url = ""
        self._socket: web.WebSocketResponse | None = None
        self._session_id = ""
        self._said: list[Payload] = []
        self.identified = 0
        self.resumed = 0
        self.resumable = True
        self.message_content = True
        self.closed: list[int | None] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve a connection until it ends."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": _HELLO, "d": {"heartbeat_interval": _INTERVAL}})
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await self._hear(socket, as_payload(message.json()))
        if self._socket is socket:
            self._socket = None
        self.closed.append(socket.close_code)
        self._changed()
        return socket

    async def tell(self, event: str, data: Payload) -> None:
        """Let the client know that something has happened."""
        number = len(self._said) + 1
        message: Payload = {"op": _DISPATCH, "t": event, "s": number, "d": data}
        self._said.append(message)
        if self._socket is not None:
            await self._socket.send_json(message)

    async def drop(self, code: int = _RESTART) -> None:
        """Break the connection off, for one of Discord's reasons."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close(code=code)

    async def _hear(self, socket: web.WebSocketResponse, message: Payload) -> None:
        operation, data = message.get("op"), as_payload(message.get("d"))
        if operation == _HEARTBEAT:
            await socket.send_json({"op": _ACK})
        elif operation == _IDENTIFY:
            await self._identify(socket, data)
        elif operation == _RESUME:
            await self._resume(socket, data)

    async def _identify(self, socket: web.WebSocketResponse, data: Payload) -> None:
        intents = data.get("intents")
        asked = isinstance(intents, int) and bool(intents & _MESSAGE_CONTENT)
        if data.get("token") != self.token:
            await socket.close(code=BAD_TOKEN)
        elif asked and not self.message_content:
            await socket.close(code=NO_INTENT)
        else:
            self._socket, self._session_id, self._said = socket, token_hex(8), []
            for event, said in self._beginning(self._session_id):
                await self.tell(event, said)
            self.identified += 1
            self._changed()

    async def _resume(self, socket: web.WebSocketResponse, data: Payload) -> None:
        heard = data.get("seq")
        if not self.resumable or data.get("session_id") != self._session_id:
            await socket.send_json({"op": _INVALID, "d": False})
            return
        for message in self._said[heard if isinstance(heard, int) else 0 :]:
            await socket.send_json(message)
        self._socket = socket
        await self.tell("RESUMED", {})
        self.resumed += 1
        self._changed()

"""The REST interface: what the bot does."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from discord_bot.demo.state import Interaction, Refused, State
from discord_bot.demo.world import THREAD, Channel, Payload, Posted, as_list, as_payload, new_id

__all__ = ["Rest"]

_MESSAGE, _DEFERRED_MESSAGE, _DEFERRED_UPDATE, _UPDATE = 4, 5, 6, 7
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rest:
    """Answers the requests of one bot.

    Args:
        state: what has happened so far.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def application(self) -> web.Application:
        """Return the web application, the gateway included."""

        @web.middleware
        async def guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
            return await self._guarded(request, handler)

        application = web.Application(middlewares=[guarded])
        base = "/api/v10"
        hooks = f"{base}/webhooks/{{application}}/{{token}}"
        channel = f"{base}/channels/{{channel}}"
        application.add_routes([
            web.get("/gateway/", self._state.gateway.serve),
            web.get(f"{base}/users/@me", self._me),
            web.get(f"{base}/oauth2/applications/@me", self._application),
            web.put(f"{base}/applications/{{application}}/commands", self._commands),
            web.post(f"{channel}/messages", self._post),
            web.patch(f"{channel}/messages/{{message}}", self._edit),
            web.post(f"{channel}/messages/{{message}}/threads", self._open_thread),
            web.post(f"{base}/interactions/{{interaction}}/{{token}}/callback", self._callback),
            web.post(hooks, self._follow_up),
            web.patch(f"{hooks}/messages/{{message}}", self._edit),
        ])  # fmt: skip
        return application

    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Keep what was asked for; refuse it where it's to fail, or where the token is wrong."""
        state, path = self._state, request.path
        if path.startswith("/gateway"):
            return await handler(request)
        state.requests.append((request.method, path))
        for fault in state.faults:
            if fault.times and fault.method == request.method and re.search(fault.path, path):
                fault.times -= 1
                state.change()
                return _json(fault.body, status=fault.status, **fault.headers)
        secret = "/webhooks/" in path or "/interactions/" in path  # the path holds one
        if not secret and request.headers.get("Authorization") != f"Bot {state.token}":
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        try:
            return await handler(request)
        except Refused as refused:
            body: Payload = {"message": refused.text, "code": refused.code}
            return _json(body, status=refused.status)

    async def _me(self, request: web.Request) -> web.Response:
        del request
        return _json(self._state.bot.user())

    async def _application(self, request: web.Request) -> web.Response:
        del request
        bot = self._state.bot
        about: Payload = {
            "id": str(bot.id),
            "name": bot.name,
            "icon": None,
            "description": "",
            "bot_public": False,
            "bot_require_code_grant": False,
            "verify_key": "",
            "owner": self._state.ada.user(),
            "flags": 0,
        }
        return _json(about)

    async def _commands(self, request: web.Request) -> web.Response:
        commands = [as_payload(each) for each in as_list(await _body(request))]
        owner = str(self._state.bot.id)
        named = [{**each, "id": str(new_id()), "application_id": owner} for each in commands]
        self._state.commands = [*named]
        self._state.change()
        return _json(named)

    async def _post(self, request: web.Request) -> web.Response:
        return await self._posted(self._channel(request), await _body(request))

    async def _posted(self, channel: Channel, body: object) -> web.Response:
        message = self._state.post(channel, self._state.bot, as_payload(body))
        if not message.ephemeral:
            await self._state.gateway.tell("MESSAGE_CREATE", message.payload())
        return _json(message.payload())

    async def _edit(self, request: web.Request) -> web.Response:
        message = self._message(request)
        self._state.edit(message, as_payload(await _body(request)))
        return _json(message.payload())

    async def _open_thread(self, request: web.Request) -> web.Response:
        parent, body = self._channel(request), as_payload(await _body(request))
        thread = Channel(
            id=int(request.match_info["message"]),
            name=str(body.get("name")),
            kind=THREAD,
            guild_id=parent.guild_id,
            parent_id=parent.id,
            owner_id=self._state.bot.id,
        )
        if thread.id in self._state.channels:
            raise Refused(400, 160004, "A thread has already been created for this message")
        self._state.channels[thread.id] = thread
        await self._state.gateway.tell("THREAD_CREATE", {**thread.payload(), "newly_created": True})
        return _json(thread.payload(), status=201)

    async def _callback(self, request: web.Request) -> web.Response:
        interaction, body = self._interaction(request), as_payload(await _body(request))
        if interaction.acknowledged:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        interaction.acknowledged = True
        kind, data = body.get("type"), as_payload(body.get("data"))
        about: Payload = {"interaction": {"id": str(interaction.id), "type": 2}}
        message: Posted | None = None
        if kind == _MESSAGE:
            message = self._state.post(interaction.channel, self._state.bot, data)
            interaction.answers.append(message)
        elif kind == _UPDATE and interaction.message is not None:
            message = interaction.message
            self._state.edit(message, data)
        elif kind not in {_DEFERRED_MESSAGE, _DEFERRED_UPDATE}:
            raise Refused(400, 50035, "Invalid Form Body")
        if message is not None:
            about["resource"] = {"type": kind, "message": message.payload()}
        self._state.change()
        return _json(about)

    async def _follow_up(self, request: web.Request) -> web.Response:
        interaction = self._interaction(request)
        if not interaction.acknowledged:
            raise Refused(404, 10015, "Unknown Webhook")
        response = await self._posted(interaction.channel, await _body(request))
        interaction.answers.append(self._state.posted[-1])
        return response

    def _channel(self, request: web.Request) -> Channel:
        channel = self._state.channels.get(int(request.match_info["channel"]))
        if channel is None:
            raise Refused(404, 10003, "Unknown Channel")
        return channel

    def _message(self, request: web.Request) -> Posted:
        wanted = int(request.match_info["message"])
        for message in self._state.posted:
            if message.id == wanted and message.author is self._state.bot:
                return message
        raise Refused(404, 10008, "Unknown Message")

    def _interaction(self, request: web.Request) -> Interaction:
        interaction = self._state.interactions.get(request.match_info["token"])
        if interaction is None:
            raise Refused(404, 10062, "Unknown interaction")
        return interaction


async def _body(request: web.Request) -> object:
    return await request.json()


def _json(value: object, *, status: int = 200, **headers: str) -> web.Response:
    # The client takes an answer for JSON only where its type says so and nothing else.
    about = {"Content-Type": "application/json", **headers}
    return web.Response(body=json.dumps(value).encode(), status=status, headers=about)

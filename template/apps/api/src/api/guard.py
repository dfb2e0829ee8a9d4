"""What every request passes before its route sees it: who asks, how much, for how long, and why.

Each is plain ASGI, so that streams pass through it piece by piece.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from llmgine.bootstrap import ApplicationBootstrap
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem
from api.settings import ApiSettings

__all__ = ["BodyLimit", "CallerTrace", "Gate"]

_OPEN = frozenset({"/", "/docs", "/healthz", "/openapi.json", "/readyz"})
_OPEN_BELOW = "/page/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_TRACE = ("traceparent", "tracestate")


class Gate:
    """Lets requests in.

    With a key, those that carry it: `Authorization: Bearer <key>`. Without one, those that no web
    page of somebody else can have sent. A page could have its own name point at this machine, so
    requests must call us by an address, by `localhost` or by a name in the settings; and what it
    sends by itself carries its `Origin`, which must be ours where the request changes something.
    The page, the probes and the documentation are for everyone: nothing in them is secret.

    Args:
        app: what comes next.
        settings: the key, and the names that we are called by.
    """

    def __init__(self, app: ASGIApp, *, settings: ApiSettings) -> None:
        self._app = app
        self._key = settings.key.encode()
        self._names = frozenset(name.lower() for name in settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            problem = self._problem(scope, Headers(scope=scope))
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> Problem | None:
        changes = scope["method"] not in _SAFE
        problem = None
        if not self._key:
            problem = self._stranger(headers, changes=changes)
        elif changes or not _is_open(scope["path"]):
            problem = self._unknown(headers)
        return _unreadable(headers) if problem is None and changes else problem

    def _unknown(self, headers: Headers) -> Problem | None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self._key):
            return None
        found = "another key" if given else "no key"
        return Problem(
            status=401,
            message=f"Authorization: expected `Bearer` and the key of this server, found {found}",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _stranger(self, headers: Headers, *, changes: bool) -> Problem | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            expected = "an address, `localhost` or a name in the setting `api.hosts`"
            return Problem(status=421, message=f"Host: expected {expected}, found {host!r}")
        origin = headers.get("origin")
        if changes and origin is not None:
            place = _netloc(origin)
            if place != host.lower() and _name(place) not in self._names:
                text = f"Origin: expected none but this server's own page, found {origin!r}"
                return Problem(status=403, message=text)
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name == "localhost" or name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(netloc: str) -> str:
    """Return the host of `host:port` or `[address]:port`, in small letters, or nothing."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _unreadable(headers: Headers) -> Problem | None:
    """Refuse a body that isn't called JSON: a foreign page can send those without asking first."""
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not has_body or kind == "application/json":
        return None
    text = f"Content-Type: expected application/json, found {kind or 'none'}"
    return Problem(message=text, code="unsupported_media_type")


class BodyLimit:
    """Refuses requests that are too long, by what they say of themselves or as they come in.

    Args:
        app: what comes next.
        most: how many bytes a request may have.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said) > self._most:
            problem = Problem(message=self._text(), code="body_too_long")
            await problem.response()(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                # What reads bodies lets this one class through.
                raise HTTPException(400, self._text())
            return message

        await self._app(scope, counted, send)

    def _text(self) -> str:
        return f"the body is too long: at most {self._most:,} bytes, by the setting `api.max_body`"


class CallerTrace:
    """Lets what a request brings about belong to its caller's trace, where it tells of one.

    Args:
        app: what comes next.
        application: whose handlers follow traces.
    """

    def __init__(self, app: ASGIApp, *, application: ApplicationBootstrap) -> None:
        self._app = app
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, within the trace that W3C's headers tell of."""
        carried = dict(_carried(Headers(scope=scope))) if scope["type"] == "http" else {}
        if not carried:
            await self._app(scope, receive, send)
            return
        with self._application.observability.joined(carried):
            await self._app(scope, receive, send)


def _carried(headers: Headers) -> Iterable[tuple[str, str]]:
    return ((name, headers[name]) for name in _TRACE if name in headers)

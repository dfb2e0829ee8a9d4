"""What the browser loads: the page, its files, and its Markdown."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.page.markdown import LONGEST, tree
from api.problems import Problem

__all__ = ["HEADERS", "router"]

HEADERS: Final = {
    # Nothing but our own files runs or styles the page, and nothing leaves it for elsewhere.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Files have no versions in their names: the browser asks each time whether they changed.
    "Cache-Control": "no-cache",
}
"""What every file of the page is sent with."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX = "index.html"

router = APIRouter(include_in_schema=False)


class _File:
    """A file of the page."""

    def __init__(self, name: str, data: bytes) -> None:
        self._data = data
        self._type = _TYPES[name.rpartition(".")[2]]
        self._tag = f'"{sha256(data).hexdigest()[:32]}"'

    def response(self, request: Request) -> Response:
        """Return the answer: the file, unless the browser has it."""
        headers = {**HEADERS, "ETag": self._tag}
        if self._tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self._data, media_type=self._type, headers=headers)


_FILES: Final = {
    each.name: _File(each.name, each.read_bytes())
    for each in (files("api.page") / "static").iterdir()
    if each.name.rpartition(".")[2] in _TYPES
}


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    """Return the page."""
    return _FILES[_INDEX].response(request)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
def file(name: str, request: Request) -> Response:
    """Return one of its files."""
    found = _FILES.get(name)
    if found is None:
        raise Problem(message=f"the page has no file {name!r}", status=404)
    return found.response(request)


class Markdown(BaseModel):
    """A text to be shown.

    Attributes:
        text: the text.
    """

    text: Annotated[str, Field(max_length=LONGEST)]


@router.post("/markdown")
def markdown(body: Markdown) -> JSONResponse:
    """Return what a Markdown text says, as nodes.

    Not below `/page`, which is open to everybody: it costs time.
    """
    return JSONResponse({"nodes": tree(body.text)})

"""Errors as OpenAI words them, so that its SDKs raise the classes that their users catch."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

__all__ = ["DESCRIPTION", "Problem", "install", "unexpected"]


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error as OpenAI words it."""

    error: ErrorDetail


DESCRIPTION = {"model": ErrorBody}
"""What OpenAPI says of every error."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_SERVER = 500


@dataclass(kw_only=True)
class Problem(Exception):  # noqa: N818 - what callers see is a status, not this class
    """A request that gets an error for an answer.

    Attributes:
        status: the HTTP status.
        message: what was wrong, what was expected, and how to mend it.
        param: the field of the request that it is about.
        code: a short name for programs.
        headers: further headers of the answer.
    """

    message: str
    status: int = 400
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] | None = None

    def body(self) -> dict[str, object]:
        """Return the error in OpenAI's shape."""
        usual = "server_error" if self.status >= _SERVER else "invalid_request_error"
        kind = _KINDS.get(self.status, usual)
        named = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": named}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def unexpected() -> Problem:
    """Return what the caller is told of an error that nobody foresaw."""
    text = "The server failed; its log says why."
    return Problem(status=_SERVER, message=text, code="internal_error")


def install(web: FastAPI) -> None:
    """Have every error of the application answered in this shape."""
    web.add_exception_handler(Problem, _problem)
    web.add_exception_handler(RequestValidationError, _invalid)
    web.add_exception_handler(HTTPException, _http)
    web.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, Problem)  # noqa: S101 - what it is registered for
    return error.response()


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    first = error.errors()[0]
    where = ".".join(str(each) for each in first["loc"] if each != "body")
    message = f"{where or 'body'}: {first['msg']}"
    return Problem(message=message, param=where or None).response()


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    return Problem(message=message, status=error.status_code, headers=headers).response()


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer; the server writes the error to the log, with its traceback."""
    del request, error
    return unexpected().response()

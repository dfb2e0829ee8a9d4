"""The way from a pipeline to a backend, and what the ends of its requests say of a batch.

An exporter of OpenTelemetry's tries again by itself for up to ten seconds, and then tells no more
than whether a batch was taken. What became of it is seen by looking on as it makes its requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from opentelemetry import context
from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage] - there is no other
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests import PreparedRequest, RequestException, Response, Session
from requests.exceptions import ConnectTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from llmgine.observability._otel_pipeline import THREAD_NAME, Sent

__all__ = ["End", "ExporterLink", "Witness", "watch_calls"]

_SUCCESS, _REDIRECT, _BAD_REQUEST = 200, 300, 400
# What doesn't change by trying again.
_REFUSALS = frozenset({401, 403, 404, 405, 415, 501})
_REFUSED_CALLS = frozenset({"NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"})
# What gRPC also says where a connection breaks off, or time runs out, after the batch has left.
_DOUBTFUL_CALLS = frozenset(
    {"ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"}
)
_NEVER_CONNECTED = "failed to connect"


class End(NamedTuple):
    """How one request ended.

    Attributes:
        taken: whether the backend has the batch; None where nobody knows.
        rejected: how much of a batch that it took it has rejected.
        trouble: what went wrong.
        refused: whether there is no use in trying again.
    """

    taken: bool | None
    rejected: int = 0
    trouble: str = ""
    refused: bool = False


class ExporterLink:
    """One exporter, and what its requests' ends say of the batch.

    Args:
        exporter: one of the SDK's; it blocks.
        ends: where the end of each request is noted; None where nobody looks on.
    """

    def __init__(self, exporter: Any, ends: list[End] | None) -> None:  # noqa: ANN401 - no common class
        self._exporter, self._ends = exporter, ends
        self._one_by_one = "metric" in type(exporter).__module__
        # Its complaints would be one for each attempt; the pipeline's own are sparse.
        for kind in type(exporter).__mro__:
            logging.getLogger(kind.__module__).addFilter(_not_ours)

    def close(self) -> None:
        """Have an export under way try no more."""
        self._exporter.shutdown()

    def send(self, batch: Sequence[object]) -> Sent:
        """Send a batch, and say what became of it."""
        ends, count = self._ends, len(batch)
        if ends is not None:
            ends.clear()
        # Whoever traces requests leaves ours alone.
        token = context.attach(context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: FBT003
        try:
            result = self._exporter.export(batch[0] if self._one_by_one else batch)
        finally:
            context.detach(token)
        if ends is not None:
            return _concluded(ends, count)
        if result.name == "SUCCESS":
            return Sent(delivered=count)
        return Sent(unconfirmed=count, trouble="the backend didn't confirm a batch")


def _concluded(ends: Sequence[End], count: int) -> Sent:
    if not ends:
        return Sent(failed=count, trouble="a batch could not be encoded")
    last = ends[-1]
    if last.taken:
        rejected = min(count, last.rejected)
        trouble = f"the backend rejected {rejected} of {count}" if rejected else ""
        return Sent(delivered=count - rejected, failed=rejected, trouble=trouble)
    doubtful = any(each.taken is None for each in ends)  # an earlier attempt may have arrived
    failed, unconfirmed = (0, count) if doubtful else (count, 0)
    return Sent(0, failed, unconfirmed, last.trouble, last.refused)


def _not_ours(record: logging.LogRecord) -> bool:
    return not str(record.threadName).startswith(THREAD_NAME)


def _rejected(response: bytes) -> int:
    # The answers for logs and metrics are of the same shape under other names.
    return ExportTraceServiceResponse.FromString(response).partial_success.rejected_spans


# -- HTTP


class Witness(Session):
    """Makes the requests of an exporter, and notes how they end."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[End] = []

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:  # noqa: ANN401 - as its base
        """Send a request."""
        try:
            response = super().send(request, **kwargs)
        except RequestException as error:
            taken = False if _never_arrived(error) else None
            self.ends.append(End(taken, trouble=f"the backend can't be reached: {error}"))
            raise
        self.ends.append(_end_of_request(response))
        return response


def _end_of_request(response: Response) -> End:
    status = response.status_code
    if _SUCCESS <= status < _REDIRECT:
        told = response.headers.get("content-type", "").startswith("application/x-protobuf")
        return End(taken=True, rejected=_rejected(response.content) if told else 0)
    trouble = f"the backend at {response.url} answered {status} {response.reason}"
    refused = status in _REFUSALS or status < _BAD_REQUEST
    return End(taken=False, trouble=trouble, refused=refused)


def _never_arrived(error: RequestException) -> bool:
    cause: object = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        return isinstance(cause.reason, NewConnectionError)
    return isinstance(error, ConnectTimeout)


# -- gRPC


@runtime_checkable
class _FailedCall(Protocol):
    """What gRPC raises; its package is there where it is used alone."""

    def code(self) -> Any:  # noqa: ANN401 - an enumeration of gRPC's
        """Return the status."""

    def details(self) -> str | None:
        """Return what is said about it."""


def watch_calls(exporter: Any) -> list[End] | None:  # noqa: ANN401 - no common class
    """Return where the ends of a gRPC exporter's calls will be noted.

    It offers no way in, so its stub, which it makes anew with each connection, is wrapped; where
    a release of the SDK has none under that name, the answer is None.
    """
    inside: dict[str, Any] = exporter.__dict__
    if not {"_stub", "_client", "_channel"} <= inside.keys():
        return None
    ends: list[End] = []
    make: Callable[[object], Any] = inside["_stub"]

    def watched(channel: object) -> object:
        client = make(channel)
        client.Export = _noting(client.Export, ends)
        return client

    inside["_stub"], inside["_client"] = watched, watched(inside["_channel"])
    return ends


def _noting(export: Callable[..., Any], ends: list[End]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        try:
            response = export(*arguments, **options)
        except Exception as error:
            if isinstance(error, _FailedCall):
                ends.append(_end_of_call(error))
            raise
        ends.append(End(taken=True, rejected=_rejected(response.SerializeToString())))
        return response

    return call


def _end_of_call(error: _FailedCall) -> End:
    code, details = error.code().name, error.details() or ""
    doubtful = code in _DOUBTFUL_CALLS and not details.startswith(_NEVER_CONNECTED)
    trouble = f"the backend answered {code}: {details}"
    return End(None if doubtful else False, trouble=trouble, refused=code in _REFUSED_CALLS)

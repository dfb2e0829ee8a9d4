"""What the headers of an answer say of an error: its id, and whether and when to try again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import time

from llmgine.errors import ProviderError

__all__ = ["add_headers"]


def add_headers(error: ProviderError, headers: Mapping[str, str]) -> None:
    """Note on an error what the answer's headers say of it."""
    error.request_id = headers.get("x-request-id") or headers.get("request-id")
    error.retry_after = _retry_after(headers)
    wish = headers.get("x-should-retry")
    if wish in {"true", "false"}:
        error.retryable = wish == "true"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: given so, in milliseconds, or as a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        date: datetime = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(date.timestamp() - time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None

"""The settings of this application: `[api]` in settings.toml."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import isinf
from pathlib import Path
from types import EllipsisType

from assistant import AssistantConfig
from llmgine.errors import ConfigurationError

__all__ = ["ApiConfig", "ApiSettings", "is_name"]

# What can stand in a header, and in the page's field, as it is.
_KEY = re.compile(r"[\x21-\x7e]{16,}")
_NAME = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """What the API takes, and from whom.

    Attributes:
        key: what callers must send as `Authorization: Bearer <key>`; empty means that whoever
            reaches the address may call. A secret: set it as `LLMGINE_API__KEY` in `.env`.
        hosts: further names that requests may call the server by, and that pages may have come
            from; without a key others than addresses and `localhost` are refused.
        max_body: the longest request, in bytes.
        request_timeout: seconds that a request may take, streams included.
        grace: seconds that requests under way have once the server is told to end.
        session_idle: seconds after which a session that nobody uses or watches is let go; its
            conversation stays in the store.
        events_kept: events a session keeps for whoever reconnects.
    """

    key: str = field(default="", repr=False)
    hosts: list[str] = field(default_factory=list[str])
    max_body: int = 8 * 1024 * 1024
    request_timeout: float = 600.0
    grace: float = 5.0
    session_idle: float = 900.0
    events_kept: int = 4000

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if self.key and not _KEY.fullmatch(self.key):
            text = "key: expected at least 16 ASCII characters without spaces, or none at all"
            raise ConfigurationError(text)
        for host in self.hosts:
            if not (is_name(host) or _is_address(host)):
                text = f"hosts: expected names without scheme and port, found {host!r}"
                raise ConfigurationError(text)
        if isinf(self.grace):
            raise ConfigurationError("grace: expected seconds that come to an end")
        for name in ("max_body", "request_timeout", "grace", "session_idle", "events_kept"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name}: expected a number above 0")


def is_name(host: str) -> bool:
    """Tell whether a host is a name as requests say it, and no address."""
    return _NAME.fullmatch(host) is not None and not host.rpartition(".")[2].isdecimal()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class ApiConfig(AssistantConfig):
    """The settings of the spine, of the example, and `[api]`.

    Attributes:
        api: what the API takes, and from whom.
    """

    api: ApiSettings = ApiSettings()

    def __init__(
        self, *, settings_file: str | Path | EllipsisType | None = ..., **values: object
    ) -> None:
        """Read the settings; for type checkers, which would expect a parameter for each group."""
        super().__init__(settings_file=settings_file, **values)

"""The settings of this application: `[api]` in settings.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType

from assistant import AssistantConfig
from llmgine.errors import ConfigurationError

__all__ = ["ApiConfig", "ApiSettings"]

_LEAST_KEY = 16


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
        if self.key and (len(self.key) < _LEAST_KEY or not self.key.isascii()):
            text = f"key: expected at least {_LEAST_KEY} ASCII characters, or none at all"
            raise ConfigurationError(text)
        for name in ("max_body", "request_timeout", "grace", "session_idle", "events_kept"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name}: expected a number above 0")


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

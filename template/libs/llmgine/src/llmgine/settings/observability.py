"""Limits and switches of the observability client and its handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llmgine.errors import ConfigurationError
from llmgine.settings.bus import check

__all__ = [
    "ConsoleSettings",
    "FileSettings",
    "ObservabilitySettings",
    "OtelSettings",
]


@dataclass(frozen=True, kw_only=True)
class ConsoleSettings:
    """What the console handler prints.

    Attributes:
        enabled: whether it is attached at all.
        fold: join a start and its result into one line.
        content: show prompts, completions, tool arguments and results.
        colour: `auto` colours on a terminal only and honours `NO_COLOR`.
    """

    enabled: bool = True
    fold: bool = True
    content: bool = False
    colour: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Where and how the JSON Lines handler writes.

    Attributes:
        enabled: whether it is attached at all.
        path: the event file; its folder is made on first use.
        content: write prompts, completions, tool arguments and results.
        max_bytes: size at which the file is rotated; 0 never.
        backups: rotated files that are kept.
    """

    enabled: bool = True
    path: Path = Path(".llmgine/events.jsonl")
    content: bool = True
    max_bytes: int = 50 * 1024 * 1024
    backups: int = 5

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "max_bytes", "backups", least=0)


@dataclass(frozen=True, kw_only=True)
class OtelSettings:
    """What is sent to an OpenTelemetry backend, and where it is; `OTEL_*` variables win.

    Attributes:
        enabled: whether the handler is attached at all.
        endpoint: where OTLP is taken; for HTTP without the signal's path.
        headers: sent with every request; kept out of `repr`, since a key may be among them.
        protocol: `grpc` needs the extra `otlp`.
        traces: send spans.
        metrics: send measurements.
        logs: send the events that are no span's as log records.
        content: send prompts, completions, tool arguments and results.
        service_name: the application's name.
        queue_size: spans or log records that wait before the oldest is dropped and counted.
        batch_size: how many of them go in one request.
        delay: seconds that they wait for others at most.
        metric_interval: seconds between two reports of the measurements.
    """

    enabled: bool = False
    endpoint: str = "http://localhost:4318"
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    traces: bool = True
    metrics: bool = True
    logs: bool = True
    content: bool = False
    service_name: str = ""
    queue_size: int = 2048
    batch_size: int = 256
    delay: float = 1.0
    metric_interval: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"endpoint: expected http://host:port or https://..., found {self.endpoint!r}"
            )
        check(self, "queue_size", "batch_size", least=1)
        check(self, "delay", least=0)
        check(self, "metric_interval", least=0.01)


@dataclass(frozen=True, kw_only=True)
class ObservabilitySettings:
    """Limits of the `ObservabilityClient`, the same for each handler.

    Attributes:
        buffer_size: events that wait for one handler before the oldest is dropped and counted.
        flush_timeout: the default limit of `flush`.
        stop_timeout: the default limit of `stop`.
        logging: the least level of what standard `logging` is given to reach the handlers as well.
    """

    buffer_size: int = 10_000
    flush_timeout: float = 2.0
    stop_timeout: float = 5.0
    logging: Literal["off", "debug", "info", "warning", "error", "critical"] = "off"

    def __post_init__(self) -> None:
        """Refuse numbers that can't be meant."""
        check(self, "buffer_size", least=1)
        check(self, "flush_timeout", "stop_timeout", least=0)

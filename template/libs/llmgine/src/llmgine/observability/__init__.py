"""Who writes it down: the client, and what its handlers are and report.

The handlers themselves are optional files and are imported by name, as in
`from llmgine.observability.console import ConsoleEventHandler`.
"""

from llmgine.observability.client import ObservabilityClient
from llmgine.observability.handler import (
    HandlerReport,
    ObservabilityEventHandler,
    ObservabilityReport,
)

__all__ = [
    "HandlerReport",
    "ObservabilityClient",
    "ObservabilityEventHandler",
    "ObservabilityReport",
]

"""Every limit and switch of the spine: one plain dataclass for each room.

Nothing here reads a file or the environment; `bootstrap` fills these from settings.
All durations are seconds, all sizes bytes unless the name says otherwise. A number that can't
be meant raises `ConfigurationError`, wherever the settings are made.
"""

from llmgine.settings.bus import (
    BusSettings,
    CircuitBreakerSettings,
    CommandRetrySettings,
    DeadLetterSettings,
    RateLimitSettings,
)
from llmgine.settings.models import (
    BudgetSettings,
    ContextSettings,
    McpServerSettings,
    McpSettings,
    PriceSettings,
    ProviderSettings,
    RetrySettings,
    ToolSettings,
)
from llmgine.settings.observability import (
    ConsoleSettings,
    FileSettings,
    ObservabilitySettings,
    OtelSettings,
)

__all__ = [
    "BudgetSettings",
    "BusSettings",
    "CircuitBreakerSettings",
    "CommandRetrySettings",
    "ConsoleSettings",
    "ContextSettings",
    "DeadLetterSettings",
    "FileSettings",
    "McpServerSettings",
    "McpSettings",
    "ObservabilitySettings",
    "OtelSettings",
    "PriceSettings",
    "ProviderSettings",
    "RateLimitSettings",
    "RetrySettings",
    "ToolSettings",
]

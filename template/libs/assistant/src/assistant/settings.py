"""The example's own settings, beside those of the spine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

from llmgine.bootstrap import ApplicationConfig

__all__ = ["AssistantConfig", "AssistantSettings"]


@dataclass(frozen=True, kw_only=True)
class AssistantSettings:
    """What the assistant may do.

    Attributes:
        folder: where its tool `read_file` may read; by default the folder of settings.toml.
    """

    folder: Path = Path()


class AssistantConfig(ApplicationConfig):
    """The application's settings and the example's own: `[assistant]` in settings.toml.

    Attributes:
        assistant: what the assistant may do.
    """

    assistant: AssistantSettings = AssistantSettings()

    def __init__(
        self, *, settings_file: str | Path | EllipsisType | None = ..., **values: object
    ) -> None:
        """Read the settings; for type checkers, which would expect a parameter for each group."""
        super().__init__(settings_file=settings_file, **values)

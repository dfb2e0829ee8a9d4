"""What all settings have in common: how a number is checked."""

from __future__ import annotations

from decimal import Decimal

from llmgine.errors import ConfigurationError

__all__ = ["check"]


def check(room: object, *names: str, least: float) -> None:
    """Refuse settings of a room that are less than they may be.

    Raises:
        ConfigurationError: one of these is too small, or is not a number.
    """
    for name in names:
        value: float | Decimal = vars(room)[name]
        # Written this way round, the comparison refuses "not a number" as well.
        if not value >= least:
            raise ConfigurationError(f"{name}: expected a number from {least:g} up, found {value}")

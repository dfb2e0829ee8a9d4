"""How a program says that its settings are wrong: in a line, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from llmgine.errors import ConfigurationError

__all__ = ["exit_on_wrong_settings"]

_USAGE = 2


@contextmanager
def exit_on_wrong_settings() -> Generator[None, None, None]:
    """Turn a `ConfigurationError` into its text on stderr and the exit status 2."""
    try:
        yield
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(_USAGE) from None

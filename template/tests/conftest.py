"""How many of the project's tests run at once."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Run twice as many as there are cores: for much of their time tests wait."""
    return 2 * (yield)

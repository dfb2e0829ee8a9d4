"""Fixtures of this folder's tests: a bus and applications on it, and the server's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from llmgine.testing.fixtures import bus, start_app

__all__ = ["bus", "environment", "start_app"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the server: nothing in it that changes what it does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMGINE_")}
    # Without bytecode each start takes seconds more, to compile whatever it imports.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "HOME": str(tmp_path)}

"""Fixtures of this folder's tests: a bus and applications on it."""

from __future__ import annotations

from llmgine.testing.fixtures import bus, start_app

__all__ = ["bus", "start_app"]

"""Fixtures of this folder's tests."""

from llmgine.testing.fixtures import bus, start_app

__all__ = ["bus", "start_app"]

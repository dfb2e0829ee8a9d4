"""Fixtures of this folder's tests, and how its properties are checked."""

from hypothesis import HealthCheck, settings
from llmgine.testing.fixtures import bus, start_app

__all__ = ["bus", "start_app"]

# An example takes as long as it takes: on a busy machine that is no failure.
settings.register_profile(
    "patient", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

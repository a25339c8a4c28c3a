"""Hypothesis never judges by the clock: a busy machine is not a failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("atcp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("atcp")

"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast a machine is today is not what a property says: benchmarks measure, tests do not.
settings.register_profile(
    "fabric", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fabric")

"""Settings of all tests of the workspace."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no failure of what is tested.
settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")

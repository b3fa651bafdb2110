"""Settings of all tests of the workspace."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no failure of what is tested.
settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep a class in one process of ``--dist loadgroup``; other tests go wherever there is room.

    The tests of a conformance suite share a large space, and the last one looks at what all left.
    """
    owner = getattr(item, "cls", None)
    if owner is not None and item.config.pluginmanager.hasplugin("xdist"):
        item.add_marker(pytest.mark.xdist_group(f"{owner.__module__}.{owner.__qualname__}"))

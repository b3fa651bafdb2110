"""Settings of all tests of the workspace, and how they are spread over several processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no failure of what is tested.
settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadscope`` keep classes in one process, and nothing else.

    The tests of a conformance suite share a large space, and the last one looks at what all left.
    Modules are not kept together, since the longest would be waited for at the end.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByClass(LoadScopeScheduling):  # type: ignore[misc] # xdist is not always installed
        def _split_scope(self, nodeid: str) -> str:
            _, *owners, _ = nodeid.partition("[")[0].split("::")
            return "::".join([*nodeid.split("::")[:1], *owners]) if owners else nodeid

    return ByClass(config, log)

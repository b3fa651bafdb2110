"""The conformance kit: proves that a backend behaves as the contract says.

Subclass `ConformanceSuite` in a test module, or run the command ``agent-memory-conformance``. This
package's other modules hold what the suite is made of; authors of backends may use the embedders
and the strategies in tests of their own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_memory_testkit.embedders import ExactEmbeddings, Fault, ScatteredEmbeddings
    from agent_memory_testkit.journal import ConformanceFailure
    from agent_memory_testkit.profile import Network, Profile, Unsupported
    from agent_memory_testkit.rules import RULES, Rule
    from agent_memory_testkit.second_process import Task
    from agent_memory_testkit.suite import ConformanceSuite

__version__ = "0.1.0"

__all__ = [
    "RULES",
    "ConformanceFailure",
    "ConformanceSuite",
    "ExactEmbeddings",
    "Fault",
    "Network",
    "Profile",
    "Rule",
    "ScatteredEmbeddings",
    "Task",
    "Unsupported",
]

_HOMES = {
    "embedders": ("ExactEmbeddings", "Fault", "ScatteredEmbeddings"),
    "journal": ("ConformanceFailure",),
    "profile": ("Network", "Profile", "Unsupported"),
    "rules": ("RULES", "Rule"),
    "second_process": ("Task",),
    "suite": ("ConformanceSuite",),
}


if not TYPE_CHECKING:  # or every name would exist for type checkers

    def __getattr__(name: str) -> object:
        # Imported when first asked for: every pytest run imports this package for its plugin.
        for module, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

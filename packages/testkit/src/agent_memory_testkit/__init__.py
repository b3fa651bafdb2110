"""The conformance kit: proves that a backend behaves as the contract says.

Subclass `ConformanceSuite` in a test module. This package's other modules hold what the suite is
made of; authors of backends may use the embedders and the strategies in tests of their own.
"""

from agent_memory_testkit.embedders import ExactEmbeddings, Fault, ScatteredEmbeddings
from agent_memory_testkit.journal import ConformanceFailure
from agent_memory_testkit.profile import Profile, Unsupported
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
    "Profile",
    "Rule",
    "ScatteredEmbeddings",
    "Task",
    "Unsupported",
]

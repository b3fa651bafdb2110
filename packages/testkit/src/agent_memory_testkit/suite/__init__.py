"""`ConformanceSuite`: a test for every rule of the contract."""

from __future__ import annotations

from agent_memory_testkit.suite.faults import FaultRules
from agent_memory_testkit.suite.filtering import FilteringRules
from agent_memory_testkit.suite.isolation import IsolationRules
from agent_memory_testkit.suite.leftovers import LeftoverRules
from agent_memory_testkit.suite.life import LifeRules
from agent_memory_testkit.suite.machine import ModelRules
from agent_memory_testkit.suite.reading import ReadingRules
from agent_memory_testkit.suite.records import RecordRules
from agent_memory_testkit.suite.searching import SearchingRules
from agent_memory_testkit.suite.writing import WritingRules


# pytest collects the tests of the last base first, so this is the contract's order from below.
class ConformanceSuite(
    LeftoverRules,
    ModelRules,
    FaultRules,
    LifeRules,
    IsolationRules,
    FilteringRules,
    SearchingRules,
    ReadingRules,
    WritingRules,
    RecordRules,
):
    """Subclass it in a test module, and pytest runs every rule against your backend.

    For example:

        class TestConformance(ConformanceSuite):
            profile = Profile("my_backend", off={"hybrid_search": Unsupported("no words index")})

            async def open(self, space, embeddings):
                return MyBackend(space=space, embeddings=embeddings)
    """

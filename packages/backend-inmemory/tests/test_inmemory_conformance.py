"""The conformance suite on the embedded backend: in memory, on a path, by each metric, hooked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agent_memory import MemoryVectorDatabase, create_memory_vector_db
from agent_memory.hooks import HookSpecification, hookimpl
from agent_memory_inmemory import create
from agent_memory_testkit import ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.suite.isolation import IsolationRules
from agent_memory_testkit.suite.machine import ModelRules
from agent_memory_testkit.suite.searching import SearchingRules

ALONE = Unsupported("a space is one handle's own")
GONE = Unsupported("without a path the memories live as long as the handle")


class TestInMemory(ConformanceSuite):
    profile = Profile("inmemory", off={"persistent": GONE, "shared": ALONE})

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space)


class TestOnAPath(ConformanceSuite):
    profile = Profile("inmemory with a path", off={"shared": ALONE})

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, path=self.directory)


class BySearches(SearchingRules, ModelRules):
    """What depends on the metric."""

    # No rule of these needs more; those that do are tried above.
    _records_of_large_space = 12_000


class TestL2(BySearches):
    profile = Profile("inmemory by L2", off=TestInMemory.profile.off, metric="l2")

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, metric="l2")


class TestIP(BySearches):
    profile = Profile("inmemory by IP", off=TestInMemory.profile.off, metric="ip")

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create(embeddings, space=space, metric="ip")


class EveryHook:
    """A plug-in that implements every hook, and changes nothing."""

    @hookimpl
    @asynccontextmanager
    async def around_call(self) -> AsyncIterator[None]:
        yield


async def _nothing() -> None: ...


for _name in vars(HookSpecification):
    if _name.startswith(("before_", "after_")):
        setattr(EveryHook, _name, staticmethod(hookimpl(_nothing)))


class TestHooked(IsolationRules, ModelRules):
    profile = Profile("inmemory with hooks", off=TestInMemory.profile.off)

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return create_memory_vector_db(
            "inmemory", embeddings=embeddings, hooks=[EveryHook()], space=space
        )

"""The reference backend must pass the whole suite."""

from typing import Any

from agent_memory_testkit import ConformanceSuite, Profile
from agent_memory_testkit.reference import ReferenceDatabase


class TestReference(ConformanceSuite):
    profile = Profile("reference")

    async def open(self, space: str, embeddings: Any) -> ReferenceDatabase:
        return ReferenceDatabase(embeddings, space=space, directory=self.directory)

    async def clean_up(self, space: str, embeddings: Any) -> None:
        (await self.open(space, embeddings)).drop()

"""A space of many records, filled once and read by several rules, with its exact answers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from agent_memory import MemoryRecord, MemoryVectorDatabase
from agent_memory_testkit.embedders import ScatteredEmbeddings
from agent_memory_testkit.samples import NOW, memory

_BATCH = 10_000
_STEP = 7_919
"""A prime: steps through all numbers below any size that it does not divide."""

_TEMPLATE = memory("template")

Open = Callable[[str, Any], Awaitable[MemoryVectorDatabase]]
CleanUp = Callable[[str, Any], Coroutine[Any, Any, None]]


class LargeSpace:
    """Record number ``n`` has the id, tags and times that the methods below tell.

    The handle belongs to one event loop, so whatever uses it goes through `run`.
    """

    USERS = 100
    """Each of them has 1 % of the records."""

    def __init__(self, open_space: Open, clean_up: CleanUp, name: str, size: int) -> None:
        self.size = size
        self.embeddings = ScatteredEmbeddings()
        self.name = name
        self._clean_up = clean_up
        self._runner = asyncio.Runner()
        try:
            self.db = self.run(self._filled(open_space))
        except BaseException:
            self._runner.close()
            raise
        # A backend may hold all this in memory, where the collector would walk it over and over.
        gc.freeze()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run ``work`` in the event loop of this space."""
        return self._runner.run(work)

    def close(self) -> None:
        """Close the handle and clean up."""
        gc.unfreeze()
        with self._runner:
            self.run(self.db.aclose())
            self.run(self._clean_up(self.name, self.embeddings))

    async def _filled(self, open_space: Open) -> MemoryVectorDatabase:
        db = await open_space(self.name, self.embeddings)
        for start in range(0, self.size, _BATCH):
            numbers = range(start, min(start + _BATCH, self.size))
            await db.add_memories([self.record(number) for number in numbers])
        return db

    # --- what is in it -----------------------------------------------------------------------

    def id_of(self, number: int) -> str:
        return f"memory-{number:06d}"

    def text_of(self, number: int) -> str:
        return f"turn {number}"

    def user_of(self, number: int) -> str:
        return f"user-{number % self.USERS}"

    def seconds_of(self, number: int) -> int:
        """When it was created, in seconds; two records share each moment."""
        return number * _STEP % self.size // 2

    def record(self, number: int) -> MemoryRecord:
        # Copied, since validating so many records would take longer than storing them.
        return _TEMPLATE.model_copy(
            update={
                "id": self.id_of(number),
                "text": self.text_of(number),
                "user_id": self.user_of(number),
                "topics": ["even" if number % 2 == 0 else "odd"],
                "created_at": NOW + timedelta(seconds=self.seconds_of(number)),
            }
        )

    def listed(self) -> list[str]:
        """Return all ids in the order of ``list_memories``."""
        numbers = sorted(range(self.size), key=lambda number: (-self.seconds_of(number), number))
        return [self.id_of(number) for number in numbers]

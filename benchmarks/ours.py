"""The in-memory backend of this workspace as a `Store`, with everything that it can do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from material import DIMENSIONS, NEAREST, NEWEST, USERS, Floats, Material, Memory, query_texts
from store import KnownVectors, Store

from agent_memory import (
    CreatedAt,
    Embeddings,
    MemoryRecord,
    MemoryTypeEnum,
    MemoryVectorDatabase,
    RecencyParams,
    UserId,
)
from agent_memory_inmemory import create

_T = TypeVar("_T")

Batch = tuple[list[MemoryRecord], KnownVectors]

FEW = 100
"""How many memories a listing, get or delete is about."""


class GivenEmbeddings:
    """Embeddings that look vectors up."""

    model = "given"
    dimensions = DIMENSIONS

    def __init__(self, queries: KnownVectors) -> None:
        self.queries = queries
        self.documents = queries

    async def aembed_documents(self, texts: list[str]) -> Any:
        return self.documents.of(texts)

    async def aembed_query(self, text: str) -> Any:
        return self.queries.one(text)


def records_of(memories: Sequence[Memory]) -> list[MemoryRecord]:
    """Return memories as the records that our backends take."""
    return [
        MemoryRecord(
            id=each.id,
            text=each.text,
            user_id=each.user_id,
            session_id=each.session_id,
            topics=each.topics,
            memory_type=MemoryTypeEnum.SEMANTIC,
            created_at=each.created_at,
            last_accessed=each.created_at,
            updated_at=each.created_at,
        )
        for each in memories
    ]


class Ours(Store):
    """The backend with exact search, given vectors as arrays."""

    index: Any = "exact"

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._texts = query_texts()
        self._embeddings = GivenEmbeddings(KnownVectors(self._texts, material.queries()))
        self._db = self.opened(self._embeddings)
        self._loop = asyncio.new_event_loop()

    def opened(self, embeddings: Embeddings) -> MemoryVectorDatabase:
        """Return the database to measure."""
        return create(embeddings, index=self.index)

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> Batch:
        # The last batch's go now: to free a million floats is no part of adding the next.
        self._embeddings.documents = self._embeddings.queries
        return records_of(memories), KnownVectors(
            [each.text for each in memories], self.given(vectors)
        )

    def given(self, vectors: Floats) -> Floats | list[list[float]]:
        """Return vectors in the form that the embeddings return them in."""
        return vectors

    def add(self, batch: Batch) -> None:
        records, self._embeddings.documents = batch
        self._run(self._db.add_memories(records))

    # --- searches ------------------------------------------------------------------------------

    def search(self, query: int) -> list[int]:
        return self._search(query)

    def search_without_total(self, query: int) -> list[int]:
        return self._search(query, with_total=False)

    def search_filtered(self, query: int) -> list[int]:
        return self._search(query, user_id=_user(query))

    def search_threshold(self, query: int) -> list[int]:
        return self._search(query, distance_threshold=0.5)

    def search_recency(self, query: int) -> list[int]:
        return self._search(query, recency=RecencyParams(now=NEWEST))

    def search_keyword(self, query: int) -> list[int]:
        return self._search(query, search_mode="keyword")

    def search_hybrid(self, query: int) -> list[int]:
        return self._search(query, search_mode="hybrid")

    # --- reading and writing without a query ---------------------------------------------------

    def list_first(self, _: int) -> None:
        self._run(self._db.list_memories(limit=FEW))

    def list_deep(self, _: int) -> None:
        self._run(self._db.list_memories(limit=FEW, offset=self.material.records - FEW))

    def count(self, _: int) -> None:
        self._run(self._db.count_memories())

    def count_filtered(self, query: int) -> None:
        month = CreatedAt(gte=NEWEST - timedelta(days=30))
        self._run(self._db.count_memories(user_id=_user(query), created_at=month))

    def get(self, query: int) -> None:
        self._run(self._db.get_memories(self._some_ids(query)))

    def delete(self, query: int) -> None:
        self._run(self._db.delete_memories(self._some_ids(query)))

    @contextmanager
    def undoing(self, operation: str, query: int) -> Iterator[None]:
        if operation != "delete":
            yield
            return
        ids = self._some_ids(query)
        records = self._run(self._db.get_memories(ids))
        vectors = self.material.vectors(0, self.material.records)[_numbers(records)]
        yield
        self.add((records, KnownVectors([each.text for each in records], vectors)))

    def _some_ids(self, query: int) -> list[str]:
        """Return ids that lie all over the space, others for each query."""
        step = self.material.records // FEW
        return [f"memory-{each * step + query % step:07d}" for each in range(FEW)]

    def _search(self, query: int, **arguments: Any) -> list[int]:
        page = self._run(self._db.search_memories(self._texts[query], limit=NEAREST, **arguments))
        return _numbers(page.memories)

    def _run_together(self, calls: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
        async def together() -> list[_T]:
            return await asyncio.gather(*calls)

        return self._loop.run_until_complete(together())

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(call)


class OursFromLists(Ours):
    """The same, given vectors as lists of floats that exist beforehand."""

    def given(self, vectors: Floats) -> Floats | list[list[float]]:
        lists: list[list[float]] = vectors.tolist()
        return lists


class OursWithGraph(Ours):
    """The backend with its approximate index."""

    index = "hnsw"


def _user(query: int) -> UserId:
    return UserId(eq=f"user-{query % USERS:02d}")


def _numbers(records: Sequence[MemoryRecord]) -> list[int]:
    return [int(each.id.removeprefix("memory-")) for each in records]

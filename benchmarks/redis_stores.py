"""The Redis backend as a `Store`, and the bare commands of redis-py on the same index.

Both use the server at the URL in `URL_VARIABLE`, which `redis_measures` starts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from material import NEAREST, Floats, Material, Memory
from ours import Ours, records_of
from redis.asyncio import BlockingConnectionPool, Redis
from store import Store

from agent_memory import Embeddings, MemoryVectorDatabase
from agent_memory.intake import stored_form
from agent_memory_redis import create
from agent_memory_redis.backend import DEFAULT_EF_RUNTIME
from agent_memory_redis.records import PAYLOAD, VECTOR, to_fields
from agent_memory_redis.schema import Layout

_T = TypeVar("_T")

URL_VARIABLE = "BENCHMARK_REDIS_URL"
SPACE = "benchmark"
TOGETHER = 32
"""How many searches run at once."""


class OursOnRedis(Ours):
    """The backend with its default index, an HNSW graph."""

    options: ClassVar[dict[str, Any]] = {}

    def opened(self, embeddings: Embeddings) -> MemoryVectorDatabase:
        return create(embeddings, space=SPACE, url=os.environ[URL_VARIABLE], **self.options)

    def search_together(self, query: int) -> None:
        """Search `TOGETHER` times at once."""
        self._run_together(
            [
                self._db.search_memories(
                    self._texts[(query + each) % len(self._texts)], limit=NEAREST, with_total=False
                )
                for each in range(TOGETHER)
            ]
        )


class BareRedis(Store):
    """What redis-py does without us: the same commands on the same index, replies left as they are.

    Its records have keys of their own, in the index all the same.
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._queries = material.queries()
        self._loop = asyncio.new_event_loop()
        pool = BlockingConnectionPool.from_url(
            os.environ[URL_VARIABLE], max_connections=TOGETHER, timeout=30
        )
        self._client: Any = Redis(connection_pool=pool)
        self._layout = Layout.of(SPACE, SPACE)

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> list[tuple[Any, ...]]:
        return [
            (
                "HSET",
                self._layout.key(f"bare-{record.id}"),
                *to_fields(stored_form(record), memoryview(vector)),
            )
            for record, vector in zip(records_of(memories), vectors, strict=True)
        ]

    def add(self, batch: list[tuple[Any, ...]]) -> None:
        async def add() -> None:
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in batch:
                    pipeline.execute_command(*command)
                await pipeline.execute()

        self._run(add())

    def search(self, query: int) -> list[int]:
        self._run(self._search(query))
        return []

    def search_together(self, query: int) -> None:
        """Search `TOGETHER` times at once."""

        async def together() -> None:
            await asyncio.gather(*(self._search(query + each) for each in range(TOGETHER)))

        self._run(together())

    def count(self, _: int) -> None:
        self._run(
            self._client.execute_command(
                "FT.SEARCH", self._layout.index, "*", "LIMIT", 0, 0, "DIALECT", 2
            )
        )

    async def _search(self, query: int) -> Any:
        vector = self._queries[query % len(self._queries)].tobytes()
        return await self._client.execute_command(
            *("FT.SEARCH", self._layout.index),
            f"*=>[KNN {NEAREST} @{VECTOR} $vector EF_RUNTIME {DEFAULT_EF_RUNTIME} AS distance]",
            *("SORTBY", "distance", "RETURN", 2, "distance", PAYLOAD, "LIMIT", 0, NEAREST),
            *("PARAMS", 2, "vector", vector, "DIALECT", 2),
        )

    def _run(self, call: Coroutine[Any, Any, _T] | Awaitable[_T]) -> _T:
        async def run() -> _T:
            return await call

        return self._loop.run_until_complete(run())

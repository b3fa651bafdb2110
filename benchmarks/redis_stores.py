"""The Redis backend as a `Store`, and the bare commands of redis-py on the same index.

Both use the server at the URL in `URL_VARIABLE`, which `redis_measures` starts. The bare commands
are those of redis-py's asyncio client with hiredis and its own blocking pool, with as many
connections as ours and the same protocol (RESP2; RESP3, redis-py's default, takes longer to read),
and their replies are left as they are: no record is made of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from material import NEAREST, Floats, Material, Memory
from ours import FEW, Ours, records_of
from redis.asyncio import BlockingConnectionPool, Redis
from store import Store

from agent_memory import Embeddings, MemoryVectorDatabase
from agent_memory.intake import stored_columns
from agent_memory_redis import create
from agent_memory_redis.backend import DEFAULT_EF_RUNTIME
from agent_memory_redis.records import ORDER, PAYLOAD, VECTOR, to_fields
from agent_memory_redis.schema import Layout

_T = TypeVar("_T")

URL_VARIABLE = "BENCHMARK_REDIS_URL"
SPACE = "benchmark"
TOGETHER = 32
"""How many searches run at once."""
IN_A_ROW = 8
"""How many each of these does, one after the other, so that the start and the end weigh little."""
_CURSOR_ROWS = 1_000


class OursOnRedis(Ours):
    """The backend with its default index, an HNSW graph."""

    options: ClassVar[dict[str, Any]] = {}
    space = SPACE

    def opened(self, embeddings: Embeddings) -> MemoryVectorDatabase:
        return create(embeddings, space=self.space, url=os.environ[URL_VARIABLE], **self.options)

    def search_together(self, query: int) -> None:
        """Search with `TOGETHER` tasks at once."""
        self._loop.run_until_complete(
            together(
                lambda number: self._db.search_memories(
                    self._texts[(query + number) % len(self._texts)],
                    limit=NEAREST,
                    with_total=False,
                )
            )
        )

    def list_near_end(self, _: int) -> None:
        self._run(self._db.list_memories(limit=FEW, offset=_near_end(self.material)))

    def iterate(self, _: int) -> None:
        async def iterate() -> int:
            return sum([1 async for _ in self._db.iter_memories()])

        assert self._run(iterate()) == self.material.records

    def delete_half(self, half: int) -> None:
        """Delete one half of all memories in one call."""
        size = self.material.records // 2
        ids = [f"memory-{number:07d}" for number in range(half * size, (half + 1) * size)]
        assert self._run(self._db.delete_memories(ids)) == size


class OursOnRedisCompared(OursOnRedis):
    """The backend with the index that compares all, which is made faster."""

    options: ClassVar[dict[str, Any]] = {"algorithm": "flat"}


async def together(search: Callable[[int], Awaitable[Any]]) -> None:
    """Run `TOGETHER` tasks, each of which searches `IN_A_ROW` times."""

    async def some(task: int) -> None:
        for number in range(task, TOGETHER * IN_A_ROW, TOGETHER):
            await search(number)

    await asyncio.gather(*map(some, range(TOGETHER)))


def _near_end(material: Material) -> int:
    return material.records * 9 // 10


class BareRedis(Store):
    """What redis-py does without us: the same commands on the same index, replies left as they are.

    Its records have keys of their own, in the index all the same.
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._queries = material.queries()
        self._loop = asyncio.new_event_loop()
        pool = BlockingConnectionPool.from_url(
            os.environ[URL_VARIABLE],
            max_connections=TOGETHER,
            timeout=30,
            protocol=2,
            socket_timeout=60,
        )
        self._client: Any = Redis(connection_pool=pool)
        self._layout = Layout.of(SPACE, SPACE)

    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> list[tuple[Any, ...]]:
        stored = stored_columns(records_of(memories)).to_records()
        return [
            (
                "HSET",
                self._layout.key(f"bare-{record.id}"),
                *to_fields(record, memoryview(vector)),
            )
            for record, vector in zip(stored, vectors, strict=True)
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
        """Search with `TOGETHER` tasks at once."""
        self._run(together(lambda number: self._search(query + number)))

    def count(self, _: int) -> None:
        self._run(
            self._client.execute_command(
                "FT.SEARCH", self._layout.index, "*", "LIMIT", 0, 0, "DIALECT", 2
            )
        )

    def list_near_end(self, _: int) -> None:
        self._run(
            self._client.execute_command(
                *("FT.SEARCH", self._layout.index, "*", "SORTBY", ORDER, "ASC"),
                *("LIMIT", _near_end(self.material), FEW, "RETURN", 1, PAYLOAD, "DIALECT", 2),
            )
        )

    def iterate(self, _: int) -> None:
        """Read the same fields of all by a cursor, in the same order."""
        sorting = ("SORTBY", 2, f"@{ORDER}", "ASC", "MAX", self.material.records)
        self._run(self._cursor(*sorting))

    def iterate_unsorted(self, _: int) -> None:
        """The same in whatever order the server has them."""
        self._run(self._cursor())

    def get(self, query: int) -> None:
        """Read `FEW` records in one pipeline."""
        step = self.material.records // FEW
        numbers = [each * step + query % step for each in range(FEW)]

        async def get() -> None:
            async with self._client.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.hget(self._layout.key(f"memory-{number:07d}"), PAYLOAD)
                assert None not in await pipeline.execute()

        self._run(get())

    def delete_half(self, half: int) -> None:
        """Delete one half of the records that `add` made, in one pipeline."""
        size = self.material.records // 2

        async def delete() -> None:
            async with self._client.pipeline(transaction=False) as pipeline:
                for number in range(half * size, (half + 1) * size):
                    pipeline.unlink(self._layout.key(f"bare-memory-{number:07d}"))
                assert sum(await pipeline.execute()) == size

        self._run(delete())

    async def _cursor(self, *sorting: str | int) -> None:
        execute = self._client.execute_command
        index = self._layout.index
        reply, cursor = await execute(
            *("FT.AGGREGATE", index, "*", "LOAD", 1, f"@{PAYLOAD}", *sorting),
            *("WITHCURSOR", "COUNT", _CURSOR_ROWS, "DIALECT", 2),
        )
        rows = len(reply) - 1
        while cursor:
            reply, cursor = await execute("FT.CURSOR", "READ", index, cursor, "COUNT", _CURSOR_ROWS)
            rows += len(reply) - 1
        assert rows == self.material.records

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

"""A server that has restarted makes its index anew: till it is whole, nobody gets a part of it."""

from __future__ import annotations

import asyncio
import time

from redis_server import RedisServer

from agent_memory import BackendUnavailableError
from agent_memory_redis import create
from redis_support import DrawnEmbeddings, numbered

_RECORDS = 6_000


def _wait_until_it_has_the_data(replica: RedisServer) -> None:
    while "master_link_status:up" not in replica.run("INFO", "replication"):
        time.sleep(0.005)


def test_an_open_handle_counts_all_or_says_that_it_cannot() -> None:
    async def scenario() -> None:
        with RedisServer(appendonly=True) as server:
            async with create(DrawnEmbeddings(), space="rebuilt", url=server.url) as db:
                await db.add_memories(numbered(0, _RECORDS))
                for _ in range(3):
                    server.kill()
                    server.restart()
                    answers: set[int | None] = set()
                    for _ in range(200):
                        try:
                            answers.add(await db.count_memories())
                            answers.add((await db.list_memories(limit=1)).total)
                        except BackendUnavailableError:
                            await asyncio.sleep(0.01)
                    assert answers == {_RECORDS}

    asyncio.run(scenario())


def test_a_replica_that_is_promoted_as_soon_as_it_has_the_data() -> None:
    async def scenario() -> None:
        with RedisServer() as primary, RedisServer() as other:
            async with (
                create(DrawnEmbeddings(), space="rebuilt", url=primary.url) as db,
                create(DrawnEmbeddings(), space="rebuilt", url=other.url) as promoted,
            ):
                await db.add_memories(numbered(0, _RECORDS))
                await promoted.add_memories(numbered(0, 10))
                for _ in range(3):
                    other.run("REPLICAOF", "127.0.0.1", str(primary.port))
                    _wait_until_it_has_the_data(other)
                    other.run("REPLICAOF", "NO", "ONE")
                    answers: set[int | None] = set()
                    for _ in range(200):
                        try:
                            answers.add(await promoted.count_memories())
                            answers.add((await promoted.list_memories(limit=1)).total)
                        except BackendUnavailableError:
                            await asyncio.sleep(0.01)
                    assert answers == {_RECORDS}
                    await promoted.delete_memories([f"m{n}" for n in range(_RECORDS - 10)])

    asyncio.run(scenario())

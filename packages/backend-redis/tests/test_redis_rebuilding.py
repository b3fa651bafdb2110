"""An index that is made of records which are there already, in the background, is given to nobody
before it is whole. A server that restarts makes one so if its AOF holds the records and then the
index: as after the index alone was dropped, and made anew.
"""

from __future__ import annotations

import asyncio
import time

from redis_server import RedisServer

from agent_memory import BackendUnavailableError, MemoryVectorDatabase
from agent_memory_redis import create
from agent_memory_redis.schema import Layout, create_counting_command
from redis_support import DrawnEmbeddings, numbered

_RECORDS = 3_000


def opened(server: RedisServer) -> MemoryVectorDatabase:
    return create(DrawnEmbeddings(), space="rebuilt", url=server.url)


async def fill_and_make_the_index_anew(server: RedisServer) -> None:
    async with opened(server) as db:
        await db.add_memories(numbered(0, _RECORDS))
    server.run("FT.DROPINDEX", "rebuilt")
    async with opened(server) as db:
        assert await db.count_memories() == _RECORDS


async def all_answers(db: MemoryVectorDatabase) -> set[int | None]:
    """Return every count and every total that a handle gives within some time."""
    answers: set[int | None] = set()
    for _ in range(200):
        try:
            answers.add(await db.count_memories())
            answers.add((await db.list_memories(limit=1)).total)
        except BackendUnavailableError:
            await asyncio.sleep(0.01)
    return answers


def test_a_server_that_has_restarted() -> None:
    async def scenario(server: RedisServer) -> None:
        await fill_and_make_the_index_anew(server)
        async with opened(server) as db:
            assert await db.count_memories() == _RECORDS
            server.kill()
            server.restart()
            assert float(progress(server)) < 1
            assert await all_answers(db) == {_RECORDS}

    with RedisServer(appendonly=True) as server:
        asyncio.run(scenario(server))


def test_a_counting_index_that_others_make_anew() -> None:
    async def scenario(server: RedisServer) -> None:
        layout = Layout.of("rebuilt", "rebuilt")
        async with opened(server) as db:
            await db.add_memories(numbered(0, _RECORDS))
            partly = 0
            for _ in range(20):
                server.run("FT.DROPINDEX", layout.counting_index)
                server.run(*map(str, create_counting_command(layout, scan=True)))
                assert await db.count_memories() == _RECORDS
                partly += float(progress(server, layout.counting_index)) < 1
            assert partly  # otherwise this has shown nothing

    with RedisServer() as server:
        asyncio.run(scenario(server))


def wait_for_the_data(replica: RedisServer) -> None:
    while "master_link_status:up" not in replica.run("INFO", "replication"):
        time.sleep(0.005)


def progress(server: RedisServer, index: str = "rebuilt") -> str:
    said = server.run("FT.INFO", index).splitlines()
    return said[said.index("percent_indexed") + 1]


def test_a_replica_that_has_just_received_everything() -> None:
    async def scenario(primary: RedisServer, other: RedisServer) -> None:
        async with opened(primary) as db, opened(other) as promoted:
            await db.add_memories(numbered(0, _RECORDS))
            await promoted.add_memories(numbered(0, 10))
            other.run("REPLICAOF", "127.0.0.1", str(primary.port))
            await asyncio.to_thread(wait_for_the_data, other)
            other.run("REPLICAOF", "NO", "ONE")
            assert await all_answers(promoted) == {_RECORDS}

    with RedisServer() as primary, RedisServer() as other:
        asyncio.run(scenario(primary, other))

"""Iterating: which ids there are, and reading them ahead of whoever uses the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import cast
from unittest.mock import patch

import pytest
from redis_server import RedisServer

from agent_memory import BackendUnavailableError, MemoryRecord
from agent_memory_redis import RedisBackend, create, search
from agent_memory_redis.schema import as_mapping
from agent_memory_redis.search import Searches
from redis_support import DrawnEmbeddings, numbered

_RECORDS = 1_350
"""Read in three round trips at least."""


def opened(url: str, space: str) -> RedisBackend:
    return create(DrawnEmbeddings(), space=space, url=url)


def test_what_is_deleted_meanwhile_is_left_out_and_the_rest_comes_once_in_order(
    redis_url: str,
) -> None:
    async def scenario() -> None:
        async with opened(redis_url, "iterated") as db:
            await db.add_memories(numbered(0, _RECORDS))
            whole = [each.id async for each in db.iter_memories()]
            assert sorted(whole) == sorted(each.id for each in numbered(0, _RECORDS))
            gone = whole[-40:]  # what comes sooner may have been read ahead
            seen: list[str] = []
            async for each in db.iter_memories():
                if not seen:
                    await db.delete_memories(gone)
                seen.append(each.id)
            assert seen == [each for each in whole if each not in gone]

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [1, 120])
def test_an_iteration_that_is_left_early_leaves_nothing_behind(redis_url: str, after: int) -> None:
    async def scenario() -> None:
        async with opened(redis_url, "left early") as db:
            await db.add_memories(numbered(0, _RECORDS))
            async with aclosing(
                cast(AsyncGenerator[MemoryRecord, None], db.iter_memories())
            ) as records:
                for _ in range(after):
                    await anext(records)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert await db.count_memories() == _RECORDS

    asyncio.run(scenario())


@pytest.mark.parametrize("at_once", [10_000, 0])
def test_an_iteration_that_is_cancelled_leaves_nothing_behind(at_once: int) -> None:
    """With 0, the ids come by a cursor."""

    async def scenario(server: RedisServer) -> None:
        async with opened(server.url, "cancelled") as db:
            await db.add_memories(numbered(0, _RECORDS))

            async def iterate() -> int:
                return len([each async for each in db.iter_memories()])

            for steps in range(60):
                task = asyncio.create_task(iterate())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                # On Python 3.11 `wait_for` loses one that comes as what it waits for is done;
                # redis-py waits so while it connects.
                with suppress(asyncio.CancelledError):
                    assert await task == _RECORDS
                assert asyncio.all_tasks() == {asyncio.current_task()}
            assert await iterate() == _RECORDS

    with RedisServer() as server, patch.object(search, "_DEEPEST", at_once):
        asyncio.run(scenario(server))


@pytest.mark.parametrize("sent", [True, False])
def test_a_cursor_that_nobody_reads_on_is_deleted(redis_url: str, sent: bool) -> None:
    async def scenario() -> None:
        async with opened(redis_url, "cursors") as db:
            await db.add_memories(numbered(0, _RECORDS))
            execute, asked = db._client.execute_command, asyncio.Event()

            async def never_read(*command: object, **options: object) -> object:
                if command[:2] == ("FT.CURSOR", "READ"):
                    asked.set()
                    if not sent:
                        task.cancel()
                    await asyncio.Event().wait()
                return await execute(*command, **options)

            async def cursors() -> int:
                info = as_mapping(await db._commands.one("FT.INFO", db._layout.index))
                return int(as_mapping(info["cursor_stats"])["index_total"])

            async def iterate() -> None:
                async for _ in db.iter_memories():
                    pass

            with (
                patch.object(search, "_DEEPEST", 0),
                patch.object(db._client, "execute_command", never_read),
            ):
                task = asyncio.create_task(iterate())
                await asked.wait()
                if sent:
                    assert await cursors() == 1
                    task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await cursors() == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_server_that_dies_under_an_iteration_ends_it_with_an_error() -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(server.url, "dying") as db:
            await db.add_memories(numbered(0, _RECORDS))
            records = db.iter_memories()
            await anext(records)
            server.kill()
            with pytest.raises(BackendUnavailableError):
                assert len([each async for each in records]) < _RECORDS

    with RedisServer() as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize("counted", [0, 5, 100])
def test_more_ids_than_a_server_may_return_at_once(redis_url: str, counted: int) -> None:
    async def count(self: Searches, where: None) -> int:
        return counted  # others add and delete between counting and listing

    async def scenario() -> None:
        async with opened(redis_url, "many ids") as db:
            await db.add_memories(numbered(0, 30))
            whole = [each.id async for each in db.iter_memories()]
            with patch.object(Searches, "count", count), patch.object(search, "_DEEPEST", 20):
                assert [each.id async for each in db.iter_memories()] == whole
            assert len(whole) == 30

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sizes", "following"),
    [
        ([], 1_000),
        ([10] * 100, 1_000),
        ([4_000] * 100, 262),
        ([100_000] * 100, 50),
        ([0], 1_000),
    ],
)
def test_how_many_are_read_at_once_depends_on_their_size(sizes: list[int], following: int) -> None:
    assert search._next_read([b" " * size for size in sizes]) == following

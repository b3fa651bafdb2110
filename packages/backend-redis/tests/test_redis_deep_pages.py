"""Pages far down a list, which are read from whichever end is nearer."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from agent_memory_redis import create
from agent_memory_redis.search import Searches
from redis_support import DrawnEmbeddings, numbered

_RECORDS = 2_600


def test_deep_pages_are_those_of_the_whole_list_while_others_write(redis_url: str) -> None:
    async def scenario() -> None:
        async with create(DrawnEmbeddings(), space="deep", url=redis_url) as db:
            await db.add_memories(numbered(0, _RECORDS))
            whole = [each.id async for each in db.iter_memories()]
            assert len(whole) == _RECORDS
            for offset in (999, 1_000, 1_299, 1_300, 1_301, 2_590, 2_599, 2_600, 9_000):
                for limit in (1, 7, 1_301, 9_000):
                    page = await db.list_memories(offset=offset, limit=limit)
                    assert [each.id for each in page.memories] == whole[offset : offset + limit]
                    assert page.total == _RECORDS
            last = await db.list_memories(offset=2_595, limit=100)
            assert (len(last.memories), last.next_offset) == (5, None)

            count = Searches.count

            async def counted_before_others_deleted(self: Searches, where: None) -> int:
                found = await count(self, where)
                await db.delete_memories(whole[:3])
                return found

            with patch.object(Searches, "count", counted_before_others_deleted):
                page = await db.list_memories(offset=2_000, limit=5)
            assert [each.id for each in page.memories] == whole[2_003:2_008]
            assert page.total == _RECORDS - 3

    asyncio.run(scenario())


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
def test_the_shorter_way_is_taken(redis_url: str, direction: str) -> None:
    offset = 1_200 if direction == "ASC" else 1_500
    taken: list[str] = []
    listed = Searches._listed

    async def noted(self: Searches, where: None, way: str, offset: int, limit: int) -> object:
        taken.append(way)
        return await listed(self, where, way, offset, limit)

    async def scenario() -> None:
        async with create(DrawnEmbeddings(), space="shorter", url=redis_url) as db:
            await db.add_memories(numbered(0, _RECORDS))
            with patch.object(Searches, "_listed", noted):
                await db.list_memories(offset=offset, limit=10)

    asyncio.run(scenario())
    assert taken == [direction]

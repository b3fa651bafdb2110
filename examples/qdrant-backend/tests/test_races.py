"""Writers that come between the look and the write of another one, on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from agent_memory import BackendError, MemoryRecord, ScopeError

from agent_memory_qdrant import QdrantBackend, create, points


def between(db: QdrantBackend, act: Callable[[], Awaitable[Any]]) -> None:
    """Let ``act`` happen just before the next write of ``db``."""
    upsert = db._collection.upsert

    async def late(*arguments: Any) -> None:
        db._collection.upsert = upsert  # type: ignore[method-assign]
        await act()
        await upsert(*arguments)

    db._collection.upsert = late  # type: ignore[method-assign, assignment]


def test_another_tenant_takes_the_id_in_between(server_url: str, embeddings: Any) -> None:
    async def main() -> None:
        bob = create(embeddings, space="taken", url=server_url, timeout=60.0)
        ada = create(embeddings, space="taken", url=server_url, timeout=60.0)
        async with bob, ada:
            theirs = MemoryRecord(id="1", text="aisle seats", user_id="bob")
            between(ada, lambda: bob.add_memories([theirs]))
            with pytest.raises(ScopeError):
                await ada.scoped(user_id="ada").add_memories([MemoryRecord(id="1", text="mine")])
            [kept] = await bob.get_memories(["1"])
            assert kept.text == "aisle seats"

    asyncio.run(main())


def test_an_update_meets_another_text(server_url: str, embeddings: Any) -> None:
    async def main() -> None:
        one = create(embeddings, space="update", url=server_url, timeout=60.0)
        two = create(embeddings, space="update", url=server_url, timeout=60.0)
        async with one, two:
            await one.add_memories([MemoryRecord(id="1", text="old")])
            between(one, lambda: two.update_memories([MemoryRecord(id="1", text="new")]))
            assert await one.update_memories([MemoryRecord(id="1", text="old", topics=["t"])]) == 1
            [found] = (await one.search_memories("old")).memories
            # Embedded anew: the vector belongs to the text that is stored beside it.
            assert found.text == "old"
            assert found.topics == ["t"]
            assert found.dist == pytest.approx(0, abs=1e-6)

    asyncio.run(main())


def test_an_update_of_what_is_deleted_in_between(server_url: str, embeddings: Any) -> None:
    async def main() -> None:
        one = create(embeddings, space="gone", url=server_url, timeout=60.0)
        two = create(embeddings, space="gone", url=server_url, timeout=60.0)
        async with one, two:
            await one.add_memories([MemoryRecord(id="1", text="old")])
            between(one, lambda: two.delete_memories(["1"]))
            assert await one.update_memories([MemoryRecord(id="1", text="old")]) == 0
            assert await one.count_memories() == 0

    asyncio.run(main())


def test_an_update_of_what_another_tenant_takes_in_between(
    server_url: str, embeddings: Any
) -> None:
    async def main() -> None:
        one = create(embeddings, space="moved", url=server_url, timeout=60.0)
        two = create(embeddings, space="moved", url=server_url, timeout=60.0)
        async with one, two:
            ada = MemoryRecord(id="1", text="old", user_id="ada")
            bob = MemoryRecord(id="1", text="theirs", user_id="bob")
            await one.add_memories([ada])
            between(one, lambda: two.update_memories([bob]))
            assert await one.scoped(user_id="ada").update_memories([ada]) == 0
            [kept] = await two.get_memories(["1"])
            assert kept.text == "theirs"

    asyncio.run(main())


@pytest.mark.parametrize("place", [":memory:", "server"])
def test_two_ids_with_one_number(
    server_url: str, embeddings: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "point_id", lambda _: "00000000-0000-0000-0000-000000000001")

    async def main() -> None:
        url = server_url if place == "server" else place
        async with create(embeddings, space="number", url=url, timeout=60.0) as db:
            await db.add_memories([MemoryRecord(id="1", text="window seats")])
            assert await db.get_memories(["2"]) == []
            other = MemoryRecord(id="2", text="aisle seats")
            assert await db.update_memories([other]) == 0
            assert await db.delete_memories(["2"]) == 0
            with pytest.raises(BackendError, match="use another id"):
                await db.add_memories([other])
            with pytest.raises(BackendError, match="use another id"):
                await db.add_memories([other, MemoryRecord(id="1", text="aisle seats")])
            assert [each.id for each in (await db.list_memories()).memories] == ["1"]

    asyncio.run(main())

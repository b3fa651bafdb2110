"""What a backend of six methods gets for nothing.

`SeedDatabase` is written the way the first description of the interface shows it: six methods,
everything beyond a query and a page in ``**kwargs``, no base class but the interface itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    Capability,
    CreatedAt,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    MemoryVectorDatabase,
    Topics,
    UserId,
)
from agent_memory.filters import combined
from agent_memory.predicates import matches, predicate_of

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


class SeedDatabase(MemoryVectorDatabase):
    def __init__(self) -> None:
        self.records: dict[str, MemoryRecord] = {}
        self.calls: list[dict[str, Any]] = []
        self.before_list: Callable[[], None] = lambda: None

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        for each in memories:
            self.records[each.id] = each.model_copy(deep=True)
        return [each.id for each in memories]

    async def search_memories(
        self, query: str, limit: int = 10, with_total: bool = True, **kwargs: Any
    ) -> MemoryRecordResults:
        self.calls.append({"query": query, "limit": limit, "with_total": with_total, **kwargs})
        words = query.lower().split()
        found = [
            MemoryRecordResult(**each.model_dump(), score=1.0)
            for each in self._chosen(kwargs)
            if any(word in each.text.lower() for word in words)
        ]
        return MemoryRecordResults(memories=found[:limit], total=len(found))

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return sum(self.records.pop(each, None) is not None for each in memory_ids)

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        existing = [each for each in memories if each.id in self.records]
        await self.add_memories(existing)
        return len({each.id for each in existing})

    async def count_memories(self, **filter_kwargs: Any) -> int:
        self.calls.append(filter_kwargs)
        return len(self._chosen(filter_kwargs))

    async def list_memories(
        self, offset: int = 0, limit: int = 100, **filter_kwargs: Any
    ) -> MemoryRecordResults:
        self.before_list()
        self.calls.append({"offset": offset, "limit": limit, **filter_kwargs})
        found = self._chosen(filter_kwargs)
        found.sort(key=lambda each: each.id)
        found.sort(key=lambda each: each.created_at, reverse=True)
        page = [MemoryRecordResult(**each.model_dump()) for each in found[offset : offset + limit]]
        return MemoryRecordResults(memories=page, total=len(found))

    def _chosen(self, filter_kwargs: dict[str, Any]) -> list[MemoryRecord]:
        given = dict(filter_kwargs)
        wanted = combined(given.pop("where", None), given)
        if wanted is None:
            return list(self.records.values())
        predicate = predicate_of(wanted)
        return [each for each in self.records.values() if matches(predicate, each)]


class OldDatabase(SeedDatabase):
    """One that has never heard of ``where``, and overlooks it."""

    def _chosen(self, filter_kwargs: dict[str, Any]) -> list[MemoryRecord]:
        return super()._chosen({k: v for k, v in filter_kwargs.items() if k != "where"})


def record(number: int, **fields: Any) -> MemoryRecord:
    return MemoryRecord.model_validate(
        {"id": f"{number:05}", "text": f"memory {number}", "created_at": NOON, **fields}
    )


def filled(count: int, **fields: Any) -> SeedDatabase:
    db = SeedDatabase()
    asyncio.run(db.add_memories([record(number, **fields) for number in range(count)]))
    return db


async def ids_of(memories: AsyncIterator[MemoryRecord]) -> list[str]:
    return [each.id async for each in memories]


def test_six_methods_are_enough_and_five_are_not() -> None:
    assert MemoryVectorDatabase.__abstractmethods__ == {
        "add_memories",
        "search_memories",
        "delete_memories",
        "update_memories",
        "count_memories",
        "list_memories",
    }
    SeedDatabase()
    for name in MemoryVectorDatabase.__abstractmethods__:
        incomplete = type(
            "Incomplete", (SeedDatabase,), {name: getattr(MemoryVectorDatabase, name)}
        )
        with pytest.raises(TypeError, match=name):
            incomplete()


def test_nothing_is_declared_that_was_not_declared() -> None:
    assert SeedDatabase().capabilities == frozenset()
    assert set(Capability) == {
        "keyword_search",
        "hybrid_search",
        "persistent",
        "shared",
        "approximate",
    }


def test_the_main_job() -> None:
    async def main() -> None:
        async with SeedDatabase() as db:
            await db.ping()
            assert await db.add_memories([record(1, text="Likes tea"), record(2)]) == [
                "00001",
                "00002",
            ]
            found = await db.search_memories("tea")
            assert [each.id for each in found.memories] == ["00001"]
            assert await db.count_memories(user_id="ada") == 0
            await db.aclose()
            await db.aclose()

    asyncio.run(main())


def test_async_with_closes_also_after_an_error() -> None:
    class Closing(SeedDatabase):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    db = Closing()

    async def main() -> None:
        async with db as same:
            assert same is db
            raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        asyncio.run(main())
    assert db.closed == 1


def test_ping_raises_what_a_call_would_raise() -> None:
    db = SeedDatabase()

    def fail() -> None:
        raise ConnectionError("down")

    db.before_list = fail
    with pytest.raises(ConnectionError, match="down"):
        asyncio.run(db.ping())


# --- get_memories ----------------------------------------------------------------------------


def test_get_1_in_the_order_of_the_ids_without_the_missing() -> None:
    db = filled(3)

    async def main() -> None:
        asked = ["00002", "missing", "00000", "00002"]
        found = await db.get_memories(asked)
        assert [each.id for each in found] == ["00002", "00000", "00002"]
        assert all(type(each) is MemoryRecord for each in found)
        assert found[1] == db.records["00000"]
        assert await db.get_memories([]) == []
        assert await db.get_memories(["missing"]) == []
        assert await db.get_memories(["", "00001"]) == [db.records["00001"]]

    asyncio.run(main())


def test_get_of_many_ids_asks_for_batches() -> None:
    db = filled(1_234)
    ids = [f"{number:05}" for number in reversed(range(1_300))]
    found = asyncio.run(db.get_memories(ids))
    assert [each.id for each in found] == [each for each in ids if each in db.records]
    assert len(db.calls) == 3
    assert asyncio.run(db.get_memories(["", ""])) == []


# --- iter_memories (LST-5) -------------------------------------------------------------------


@settings(patient, max_examples=25)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 7))
def test_iter_yields_every_record_once_in_the_order_of_a_listing(
    moments: list[int], batch: int
) -> None:
    db = SeedDatabase()
    records = [record(n, created_at=NOON - each * TICK) for n, each in enumerate(moments)]

    async def main() -> None:
        await db.add_memories(records)
        listed = (await db.list_memories(limit=1_000)).memories
        assert await ids_of(db.iter_memories()) == [each.id for each in listed]
        assert {each.id: each async for each in db.iter_memories()} == db.records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_memory.database._BATCH", batch)
        asyncio.run(main())


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1_000, 1_700])
def test_iter_when_all_share_one_moment(count: int) -> None:
    db = filled(count)
    assert asyncio.run(ids_of(db.iter_memories())) == sorted(db.records)


@settings(patient, max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(0, 2))
def test_lst_5_what_exists_throughout_is_yielded_once_while_others_come_and_go(
    random: Any, spread: int
) -> None:
    db = SeedDatabase()
    stays = [record(n, created_at=NOON - (n % 7) * spread * TICK) for n in range(40)]
    comes_and_goes = [record(n, created_at=NOON - n % 9 * TICK) for n in range(100, 160)]

    async def main() -> list[str]:
        await db.add_memories([*stays, *random.sample(comes_and_goes, 30)])

        def disturb() -> None:
            for each in random.sample(comes_and_goes, 20):
                if db.records.pop(each.id, None) is None:
                    db.records[each.id] = each

        db.before_list = disturb
        return await ids_of(db.iter_memories())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_memory.database._BATCH", 8)
        yielded = asyncio.run(main())
    assert len(yielded) == len(set(yielded))
    assert {each.id for each in stays} <= set(yielded)


def test_iter_takes_filters_and_where() -> None:
    db = filled(1_100, user_id="ada", topics=["tea"])
    others = [record(number, user_id="bob") for number in range(2_000, 2_700)]

    async def main() -> None:
        await db.add_memories(others)
        assert len(await ids_of(db.iter_memories(user_id="ada"))) == 1_100
        assert len(await ids_of(db.iter_memories(where=~UserId(eq="ada")))) == 700
        assert await ids_of(db.iter_memories(user_id="bob", where=Topics(eq="tea"))) == []
        assert len(await ids_of(db.iter_memories(created_at=CreatedAt(gte=NOON)))) == 1_800
        assert await ids_of(db.iter_memories(created_at=CreatedAt(gt=NOON))) == []
        older = record(9_999, created_at=NOON - TICK, user_id="bob")
        await db.add_memories([older])
        bounded = db.iter_memories(created_at=CreatedAt(lt=NOON), user_id=["bob", "eve"])
        assert await ids_of(bounded) == ["09999"]

    asyncio.run(main())


def test_iter_refuses_a_filter_that_cannot_be_honoured() -> None:
    for wrong in ({"usr_id": "ada"}, {"user_id": None}, {"where": "user_id"}):
        with pytest.raises(InvalidArgumentError):
            asyncio.run(ids_of(filled(1).iter_memories(**wrong)))


def test_iter_may_be_left_early() -> None:
    db = filled(1_100)

    async def main() -> None:
        memories = db.iter_memories()
        assert (await anext(memories)).id == "00000"
        await memories.aclose()  # type: ignore[attr-defined]
        assert len(db.calls) == 1

    asyncio.run(main())


# --- only what was set is passed on ----------------------------------------------------------


def test_iter_passes_only_what_was_set() -> None:
    db = filled(501)
    asyncio.run(ids_of(db.iter_memories()))
    first, second = db.calls[0], db.calls[1]
    assert first == {"offset": 0, "limit": 500}
    assert second == {"offset": 0, "limit": 500, "created_at": CreatedAt(lte=NOON)}
    db.calls.clear()
    asyncio.run(ids_of(db.iter_memories(user_id="ada", where=Topics(eq="tea"))))
    assert db.calls == [
        {"offset": 0, "limit": 500, "user_id": UserId(eq="ada"), "where": Topics(eq="tea")}
    ]


def test_scoped_passes_only_what_was_set() -> None:
    db = filled(3)
    ada = db.scoped(user_id="ada")
    only = {"user_id": UserId(eq="ada")}

    async def main() -> None:
        await ada.search_memories("tea")
        await ada.search_memories("tea", limit=3, with_total=False)
        await ada.list_memories()
        await ada.list_memories(offset=5, topics=["a"])
        await ada.count_memories()

    asyncio.run(main())
    assert db.calls == [
        {"query": "tea", "limit": 10, "with_total": True, **only},
        {"query": "tea", "limit": 3, "with_total": False, **only},
        {"offset": 0, "limit": 100, **only},
        {"offset": 5, "limit": 100, "topics": ["a"], **only},
        only,
    ]


@pytest.mark.parametrize("kind", [SeedDatabase, OldDatabase])
def test_iso_2_a_scope_holds_also_on_a_backend_that_overlooks_where(
    kind: type[SeedDatabase],
) -> None:
    db = kind()
    ours = [record(number, user_id="ada") for number in range(700)]
    theirs = [record(number, user_id="bob") for number in range(1_000, 1_700)]

    async def main() -> None:
        await db.add_memories([*ours, *theirs])
        ada = db.scoped(user_id="ada")
        expected = {each.id for each in ours}
        assert set(await ids_of(ada.iter_memories())) == expected
        for asked in ("bob", UserId(ne="ada"), UserId(exists=True)):
            for found in (
                (await ada.list_memories(limit=10_000, user_id=asked)).memories,
                (await ada.search_memories("memory", limit=10_000, user_id=asked)).memories,
                [each async for each in ada.iter_memories(user_id=asked)],
            ):
                assert {each.id for each in found} <= expected
            assert await ada.count_memories(user_id=asked) <= len(expected)

    asyncio.run(main())


# --- a scope on six methods: look first, act then --------------------------------------------


def test_a_scope_on_six_methods_confines_every_method() -> None:
    db = SeedDatabase()

    async def main() -> None:
        await db.add_memories([record(1, user_id="ada"), record(2, user_id="bob"), record(3)])
        ada = db.scoped(user_id="ada")
        assert await ada.add_memories([record(4)]) == ["00004"]
        assert db.records["00004"].user_id == "ada"
        everyone = ["00001", "00002", "00003", "00004"]
        assert [each.id for each in await ada.get_memories(everyone)] == ["00001", "00004"]
        assert await ada.count_memories() == 2
        updates = [record(number, text="new") for number in (1, 2, 3, 5)]
        assert await ada.update_memories(updates) == 1
        assert db.records["00001"].text == "new"
        assert db.records["00001"].user_id == "ada"
        assert db.records["00002"].text == "memory 2"
        assert await ada.delete_memories([*everyone, "00004"]) == 2
        assert sorted(db.records) == ["00002", "00003"]

    asyncio.run(main())

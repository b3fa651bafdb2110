"""Rules GET-1, CNT-1, CNT-2 and LST-1 to LST-5: reading without a query."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from agent_memory import (
    BackendClosedError,
    CreatedAt,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    UserId,
)
from agent_memory_testkit import strategies
from agent_memory_testkit.large import LargeSpace
from agent_memory_testkit.model import page_of
from agent_memory_testkit.samples import DAY, MICROSECOND, NOW, TROUBLE, memory
from agent_memory_testkit.suite.base import (
    Case,
    SuiteBase,
    checked,
    checked_on_large_space,
    checked_with,
)

_ATTEMPTS = 3


class ReadingRules(SuiteBase):
    """GET-1, CNT-1, CNT-2, LST-1 to LST-5."""

    @checked
    async def test_get_1_missing_ids_leave_no_gap(self, case: Case) -> None:
        """The order is that of the ids, however the records were added; a gap ends nothing.

        Usual causes: the engine's order, a missing record that ends the loop or gives ``None``.
        """
        records = {each: memory(each, created_at=NOW + n * DAY) for n, each in enumerate("abcde")}
        db = await case.filled(list(records.values()))
        for ids in ("dab", "abcde", "edcba", "xcxax", "xyz", "caca"):
            wanted = [records[each] for each in ids if each in records]
            got = await db.get_memories(list(ids))
            case.equal_records(got, wanted, f"get_memories({list(ids)})")

    @checked_with(
        examples=20,
        memories=st.lists(strategies.colliding_records(), max_size=6),
        ids=st.lists(st.sampled_from(strategies.FEW_IDS), max_size=8),
    )
    async def test_get_1_records_follow_the_order_of_the_ids(
        self, case: Case, memories: list[MemoryRecord], ids: list[str]
    ) -> None:
        """In the order asked for, missing ones left out, a repeated id repeated.

        Usual causes: the engine's order, a missing record that ends the loop or gives ``None``.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        case.equal_records(await db.get_memories(ids), model.get(ids), "get_memories")

    @checked
    async def test_get_1_similar_ids_are_not_given(self, case: Case) -> None:
        """Asking for an id gives this record and no similar one.

        Usual cause: an id put into a query without escaping.
        """
        db = await case.filled([memory(value) for value in TROUBLE])
        for value in TROUBLE:
            got = [each.id for each in await db.get_memories([value])]
            case.equal(got, [value], f"get_memories([{value!r}])")
        case.equal(await db.get_memories([]), [], "get_memories([])")
        case.equal(await db.get_memories(["ad*", "AdA", "a?a"]), [], "ids that are patterns")

    # --- count_memories ----------------------------------------------------------------------

    @checked_with(
        examples=25,
        memories=st.lists(strategies.colliding_records(), max_size=8),
        where=strategies.expressions(),
    )
    async def test_cnt_1_the_count_is_exact_for_every_filter(
        self, case: Case, memories: list[MemoryRecord], where: Expression
    ) -> None:
        """The count is the number of records that match.

        Usual causes: the length of one page, an estimate, a filter that count ignores.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        case.equal(await db.count_memories(), len(model.matching()), "count_memories()")
        case.equal(
            await db.count_memories(where=where),
            len(model.matching(where)),
            f"count_memories(where={where!r})",
        )

    @checked_on_large_space
    async def test_cnt_1_the_count_is_exact_above_ten_thousand(
        self, case: Case, large: LargeSpace
    ) -> None:
        """No cap of the engine (1,000, 10,000) ends up in a count.

        Usual cause: a count taken from a search that stops at a maximum.
        """
        db = case.watched(large.db)
        half = len(range(0, large.size, 2))
        case.equal(await db.count_memories(), large.size, "count_memories()")
        case.equal(await db.count_memories(topics="even"), half, "count_memories(topics='even')")

    @checked_on_large_space
    async def test_cnt_1_counting_transfers_no_records(self, case: Case, large: LargeSpace) -> None:
        """A count of very many records takes less than half the time of reading half of them.

        Usual cause: ``len`` of everything that the filter accepts.
        """
        db = case.watched(large.db)
        counting = await _fastest(lambda: db.count_memories(topics="even"))
        # Twice: whatever delays a single reading would let a slow count pass.
        half = large.size // 4
        reading = min(
            [await _seconds(db.list_memories(limit=half, topics="even")) for _ in range(2)]
        )
        case.check(
            counting < reading / 2,
            "the time of count_memories against that of list_memories of half of the records",
            got=f"{counting * 1e3:.1f} ms against {reading * 1e3:.1f} ms",
            should="less than half of it",
        )

    @checked
    async def test_cnt_2_a_failure_is_not_a_zero(self, case: Case) -> None:
        """What cannot be counted raises.

        Usual cause: ``except Exception: return 0``.
        """
        db = await case.filled([memory("m")])
        anything: Any = db
        impossible: list[dict[str, Any]] = [
            {"usr_id": "ada"},
            {"user_id": ""},
            {"where": "user_id"},
            {"topics": []},
        ]
        for arguments in impossible:
            await case.raises(
                InvalidArgumentError,
                anything.count_memories(**arguments),
                f"count_memories(**{arguments})",
            )
        await db.aclose()
        await case.raises(BackendClosedError, db.count_memories(), "count of a closed handle")

    # --- list_memories -----------------------------------------------------------------------

    @checked_with(
        examples=25,
        memories=st.lists(strategies.colliding_records(), max_size=10),
        where=st.none() | strategies.expressions(),
    )
    async def test_lst_1_newest_first_then_by_id(
        self, case: Case, memories: list[MemoryRecord], where: Expression | None
    ) -> None:
        """Created last comes first; equal times go by id, by code point.

        Usual causes: seconds compared instead of microseconds, a locale's order of ids, ties in
        the order of insertion.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        case.embeddings.forget_calls()
        page = await db.list_memories(limit=50, where=where)
        case.equal_records(page.memories, model.listed(where), "list_memories")
        iterated = [each async for each in db.iter_memories(where=where)]
        case.equal_records(iterated, model.listed(where), "iter_memories")
        for each in page.memories:
            case.equal((each.dist, each.score, each.score_type), (None, None, None), "no score")
        calls = case.embeddings.query_calls + len(case.embeddings.document_batches)
        case.equal(calls, 0, "calls of the embeddings by list_memories")

    @checked
    async def test_lst_1_ties_go_by_id(self, case: Case) -> None:
        """Records created at one moment are listed by id, whatever order they came in.

        Usual cause: an order by time alone.
        """
        ids = ["b", "a", "\u00e9", "e", "Z", "_", "10", "9", "\U0001f600", "\uffee", "a ", "A"]
        db = await case.filled([memory(each) for each in ids])
        page = await db.list_memories()
        case.equal([each.id for each in page.memories], sorted(ids), "ids of one moment")

    @checked_with(
        examples=30,
        memories=st.lists(strategies.colliding_records(), max_size=10),
        where=st.none() | strategies.filters(),
        limit=st.integers(1, 12),
        offset=st.integers(0, 12),
    )
    async def test_lst_2_a_page_is_a_part_of_the_whole(
        self,
        case: Case,
        memories: list[MemoryRecord],
        where: Expression | None,
        limit: int,
        offset: int,
    ) -> None:
        """Any page holds what its offset and limit say, with the exact total.

        Usual causes: the length of the page as total, ``next_offset`` one off or on the last page.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        wanted = page_of(model.listed(where), limit=limit, offset=offset)
        page = await db.list_memories(limit=limit, offset=offset, where=where)
        said = f"limit={limit}, offset={offset}"
        case.equal_records(page.memories, wanted.items, f"list_memories({said})")
        case.equal(page.total, wanted.total, f"total of list_memories({said})")
        case.equal(page.next_offset, wanted.next_offset, f"next_offset of list_memories({said})")

    @checked
    async def test_lst_2_pages_neither_overlap_nor_miss(self, case: Case) -> None:
        """Following ``next_offset`` gives every record once, for every size of page.

        Usual causes: ``next_offset`` that is never set, an order that changes between pages.
        """
        memories = [memory(f"m{n:02d}", created_at=NOW + (n // 5) * MICROSECOND) for n in range(31)]
        model = case.model()
        model.add(memories)
        wanted = [each.id for each in model.listed()]
        db = await case.filled(memories)
        for limit in (1, 2, 5, 7, 10, 30, 31, 32, 1_000):
            ids: list[str] = []
            offset: int | None = 0
            while offset is not None:
                page = await db.list_memories(limit=limit, offset=offset)
                ids += [each.id for each in page.memories]
                case.equal(page.total, 31, f"total at offset {offset}, limit {limit}")
                case.check(
                    page.next_offset is None or page.next_offset > offset,
                    f"next_offset at offset {offset}, limit {limit}",
                    got=page.next_offset,
                    should="beyond the offset, or None",
                )
                offset = page.next_offset
            case.equal(ids, wanted, f"all pages of {limit}, one after the other")
        for offset in (31, 32, 10_000, 2**40):
            page = await db.list_memories(offset=offset)
            case.equal(
                ([each.id for each in page.memories], page.total, page.next_offset),
                ([], 31, None),
                f"ids, total and next_offset at offset {offset}, past the end",
            )

    @checked_on_large_space
    async def test_lst_2_the_total_is_exact_above_ten_thousand(
        self, case: Case, large: LargeSpace
    ) -> None:
        """No cap of the engine (1,000, 10,000) ends up in a total.

        Usual cause: a window that the engine limits.
        """
        half = len(range(0, large.size, 2))
        listed = await case.watched(large.db).list_memories(limit=1, topics="even")
        case.equal(listed.total, half, "total of list_memories(limit=1, topics='even')")

    @checked_on_large_space
    async def test_lst_3_an_offset_of_fifty_thousand_works(
        self, case: Case, large: LargeSpace
    ) -> None:
        """A page far down holds the right records and costs a page, not all that lies before it.

        Usual causes: a window that the engine limits (10,000), records read and thrown away.
        """
        db = case.watched(large.db)
        wanted = large.listed()
        for offset in (9_990, 50_000, large.size - 5):
            page = await db.list_memories(limit=10, offset=offset)
            ids = [each.id for each in page.memories]
            case.equal(ids, wanted[offset : offset + 10], f"ids at offset {offset}")
            case.equal(page.total, large.size, f"total at offset {offset}")
        deep = await _fastest(lambda: db.list_memories(limit=10, offset=50_000))
        # Some engines order all records for each page, and may; to hand them over costs far more.
        whole = await _seconds(db.list_memories(limit=large.size))
        case.check(
            deep < whole / 2,
            "the time of a page at offset 50,000 against that of reading all records",
            got=f"{deep * 1e3:.1f} ms against {whole * 1e3:.1f} ms",
            should="less than half of it",
        )

    @checked
    async def test_lst_4_impossible_limits_and_offsets_are_refused(self, case: Case) -> None:
        """A limit below 1 and an offset below 0 raise, in list and in search.

        Usual cause: the value goes to the engine, which reads it as "no limit".
        """
        db = await case.filled([memory("m")])
        impossible: list[dict[str, int]] = [{"limit": 0}, {"limit": -1}, {"offset": -1}]
        for arguments in impossible:
            await case.raises(
                InvalidArgumentError,
                db.list_memories(**arguments),  # type: ignore[arg-type]
                f"list_memories(**{arguments})",
            )
            await case.raises(
                InvalidArgumentError,
                db.search_memories("<0>", **arguments),  # type: ignore[arg-type]
                f"search_memories('<0>', **{arguments})",
            )

    @checked
    async def test_lst_5_iteration_survives_others_writes(self, case: Case) -> None:
        """While others add, update and delete, each record that stays is given exactly once.

        Usual causes: pages by offset, which shift when a record before them goes or comes; pages
        that go on from a time, which an update can change.
        """
        staying = [
            memory(f"stay{n:04d}", created_at=NOW + n * timedelta(seconds=1)) for n in range(1_200)
        ]
        going = [
            memory(f"go{n:04d}", created_at=NOW + n * timedelta(seconds=1)) for n in range(1_200)
        ]
        db = await case.filled([*staying, *going])
        seen: list[str] = []
        async for each in db.iter_memories():
            seen.append(each.id)
            if len(seen) % 240 == 1:
                number = len(seen) // 2
                # Some of them lie before the place reached, some after it.
                gone = [m.id for m in going if int(m.id[2:]) % 10 == number // 120]
                await db.delete_memories(gone)
                await db.add_memories(
                    [
                        memory(f"new{number}", created_at=NOW + DAY),
                        memory(f"old{number}", created_at=NOW - DAY),
                    ]
                )
                await db.update_memories(
                    [
                        # Some are moved to the other end of the order, where they are met again.
                        m.model_copy(update={"user_id": "ada", "created_at": NOW - n * DAY})
                        for n, m in enumerate(staying[::100])
                    ]
                )
        stayed = sorted(each for each in seen if each.startswith("stay"))
        case.equal(stayed, [each.id for each in staying], "records that existed throughout")
        case.equal(len(seen), len(set(seen)), "number of records given, and of different ones")

    @checked
    async def test_lst_5_more_records_of_one_moment_than_fit_a_batch(self, case: Case) -> None:
        """Very many records created at one moment are all given, and once.

        Usual cause: batches that go on from a time, which skip or repeat its other records.
        """
        memories = [memory(f"m{n:04d}", user_id="ada") for n in range(1_300)]
        memories += [memory("first", created_at=NOW + DAY), memory("last", created_at=NOW - DAY)]
        db = await case.filled(memories)
        wanted = ["first", *(f"m{n:04d}" for n in range(1_300)), "last"]
        case.equal([each.id async for each in db.iter_memories()], wanted, "iter_memories()")
        some = UserId(eq="ada") & CreatedAt(lte=NOW)
        ids = [each.id async for each in db.iter_memories(where=some)]
        case.equal(ids, wanted[1:-1], f"iter_memories(where={some!r})")


async def _fastest(call: Callable[[], Awaitable[Any]]) -> float:
    """Return the least time in seconds of a few calls: what else the machine does only adds."""
    return min([await _seconds(call()) for _ in range(_ATTEMPTS)])


async def _seconds(call: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started

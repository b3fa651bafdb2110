"""Predicates in the engine's language: true for exactly the records that meet them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from unittest.mock import patch
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_memory import (
    CreatedAt,
    Expression,
    ExtractedFrom,
    Id,
    MemoryHash,
    MemoryRecord,
    Namespace,
    Topics,
    UserId,
)
from agent_memory.backend import HybridQuery, Ranking, SemanticQuery, Window
from agent_memory.filters import LIST_TAG_FIELDS, TAG_FIELDS, TIME_FIELDS
from agent_memory.keywords import parse_keywords
from agent_memory.predicates import (
    AllOf,
    AnyOf,
    HasPrefix,
    InTimeRange,
    IsPresent,
    NotThat,
    OneOf,
    Predicate,
    matches,
    predicate_of,
)
from agent_memory_redis import RedisBackend, create, search
from agent_memory_redis.search import EXACT_BELOW
from agent_memory_testkit import strategies
from agent_memory_testkit.embedders import ExactEmbeddings
from redis_support import drop_space

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_ZERO = datetime(2024, 1, 1, tzinfo=UTC)


class Space:
    """A space that tests fill anew again and again, through one handle."""

    def __init__(self, url: str, algorithm: Literal["hnsw", "flat"]) -> None:
        self._runner = asyncio.Runner()
        name = f"query tests {algorithm}"
        self.db = create(ExactEmbeddings(), space=name, url=url, algorithm=algorithm)

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self._runner.run(awaited())

    def holds(self, records: Sequence[MemoryRecord]) -> None:
        self.run(self._hold(records))

    async def _hold(self, records: Sequence[MemoryRecord]) -> None:
        ids = [each.id async for each in self.db.iter_memories()]
        await self.db.delete_memories(ids)
        await self.db.add_memories(list(records))

    def finds(self, predicate: Predicate) -> list[str]:
        """Return the ids that a predicate accepts, after counting, listing and searching agree."""
        listing = self.run(self.db._list(predicate, offset=0, limit=1_000))
        ids = [each.id for each in listing.records]
        assert listing.total == len(ids)
        assert self.run(self.db._count(predicate)) == len(ids)
        assert self.run(self.db._list_ids(predicate)) == ids
        wanted = sorted(ids)
        vector = self.run(self.db._embed_query("<0>"))
        for limit, max_distance in ((20, None), (1_001, None), (20, 9.0)):
            query = SemanticQuery(vector, predicate, max_distance, Window(0, limit, True))
            # How many lie within a distance, a graph of equal vectors does not know.
            graph = max_distance is not None and not search.EXACT_BELOW
            found = self._found(self.db._rank_semantic(query), len(ids), approximate=graph)
            assert found == wanted[:limit]
        window = Window(0, 20, True)
        for words in ("<0>", "nobody's"):
            both = HybridQuery(vector, parse_keywords(words), 0.5, predicate, window)
            found = self._found(self.db._rank_hybrid(both), len(ids), approximate=False)
            assert found == wanted[:20]
        return wanted

    def _found(self, ranking: Awaitable[Ranking], total: int, *, approximate: bool) -> list[str]:
        hits, counted, _ = self.run(ranking)
        assert counted == total or (approximate and len(hits) <= counted < total)
        return sorted(each.record.id for each in hits)

    def close(self) -> None:
        with self._runner:
            self.run(drop_space(self.db._client, self.db._layout))
            self.run(self.db.aclose())


@pytest.fixture(scope="module", params=["flat", "hnsw", "hnsw as if it were large"])
def space(redis_url: str, request: pytest.FixtureRequest) -> Iterator[Space]:
    small = 0 if "large" in request.param else EXACT_BELOW
    opened = Space(redis_url, request.param[:4])
    with patch.object(search, "EXACT_BELOW", small):
        try:
            yield opened
        finally:
            opened.close()


def record(memory_id: str, **fields: Any) -> MemoryRecord:
    return MemoryRecord(**{"id": memory_id, "text": "<0>", "created_at": DAY_ZERO, **fields})


def accepted(space: Space, where: Expression) -> list[str]:
    return space.finds(predicate_of(where))


# --- any predicate over any records -----------------------------------------------------------


@st.composite
def predicates_about(draw: st.DrawFn, records: Sequence[MemoryRecord]) -> Predicate:
    """Trees whose values are those of ``records``, parts of them, or near them."""
    held = {name: [v for each in records for v in values(each, name)] for name in TAG_FIELDS}
    times = [getattr(each, name) for each in records for name in TIME_FIELDS]
    moments = [each for each in times if each is not None]

    def tag(name: str) -> st.SearchStrategy[str]:
        return st.sampled_from(held[name]) if held[name] else st.just("nobody's")

    def start(name: str) -> st.SearchStrategy[str]:
        return st.builds(lambda v, n: v[: 1 + n % len(v)], tag(name), st.integers(0, 2**16))

    near = st.builds(
        lambda moment, ticks: (
            min(max(moment, FIRST + 70 * MICROSECOND), LAST - 70 * MICROSECOND)
            + ticks * MICROSECOND
        ),
        st.sampled_from(moments),
        st.sampled_from([0, 0, 1, -1, 31, 32, 63, 64, -64]),
    )
    bound = st.none() | st.sampled_from(moments) | near
    leaves = st.one_of(
        *(
            st.builds(OneOf, st.just(n), st.lists(tag(n), max_size=3).map(tuple))
            for n in TAG_FIELDS
        ),
        *(st.builds(HasPrefix, st.just(n), start(n)) for n in TAG_FIELDS),
        st.builds(IsPresent, st.sampled_from((*TAG_FIELDS, *TIME_FIELDS))),
        st.builds(InTimeRange, st.sampled_from(TIME_FIELDS), bound, bound),
    )
    several = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(NotThat, inner),
        ),
        max_leaves=8,
    )
    return draw(several)


def values(each: MemoryRecord, name: str) -> list[str]:
    value = getattr(each, name)
    if value is None:
        return []
    return value if isinstance(value, list) else [str(value)]


def with_hash(each: MemoryRecord) -> MemoryRecord:
    return each.model_copy(update={"memory_hash": each.compute_hash()})


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_predicate_over_any_records_is_true_of_what_meets_it(
    space: Space, data: st.DataObject
) -> None:
    kinds = st.one_of(strategies.records(), strategies.colliding_records())
    drawn = data.draw(st.lists(kinds, min_size=1, max_size=6))
    records = [with_hash(each) for each in {each.id: each for each in drawn}.values()]
    space.holds(records)
    for _ in range(12):
        predicate = data.draw(predicates_about(records))
        wanted = sorted(each.id for each in records if matches(predicate, each))
        assert space.finds(predicate) == wanted, predicate


# --- what the engine itself gets wrong ---------------------------------------------------------


def test_a_prefix_finds_more_than_two_hundred_values(space: Space) -> None:
    # The engine's own prefixes silently find the first 200.
    space.holds(
        [record(f"id-{n}", user_id=f"u{n}", topics=["x", f"t{n}"]) for n in range(300)]
        + [record("other", user_id="v", topics=["y"])]
    )
    everybody = sorted(f"id-{n}" for n in range(300))
    for where in (Id(startswith="id-"), UserId(startswith="u"), Topics(startswith="t")):
        assert accepted(space, where) == everybody
        assert accepted(space, ~where) == ["other"]
    assert len(accepted(space, Id(startswith="id-1"))) == 111


def test_what_is_not_so_within_a_distance_after_records_were_written_anew(space: Space) -> None:
    """The engine left the distance out of its answer then."""
    records = [record(f"m{n}", topics=[f"t{n}"]) for n in range(300)] + [record("other")]
    for _ in range(2):
        space.holds(records)
        assert accepted(space, ~Topics(startswith="t")) == ["other"]


def test_a_prefix_belongs_to_one_element_of_a_list(space: Space) -> None:
    many = [f"e{n}" for n in range(20)]
    space.holds(
        [
            record("apart", topics=["ab", "xc"]),
            record("together", topics=["xc", "abc"]),
            record("many", topics=[*many, "abcd"], extracted_from=[*many, "é" * 100]),
        ]
    )
    assert accepted(space, Topics(startswith="abc")) == ["many", "together"]
    assert accepted(space, Topics(startswith="xc")) == ["apart", "together"]
    assert accepted(space, Topics(startswith="e19")) == ["many"]
    assert accepted(space, ExtractedFrom(startswith="é" * 99)) == ["many"]


def test_long_values_stay_apart(space: Space) -> None:
    # The engine cuts tags at 4 KiB without a word.
    long = "x" * 5_000
    space.holds([record(each, user_id=each) for each in (long, long + "a", long + "b")])
    assert accepted(space, UserId(eq=long)) == [long]
    assert accepted(space, UserId(any=[long + "a", long + "b"])) == [long + "a", long + "b"]
    assert accepted(space, UserId(startswith=long)) == [long, long + "a", long + "b"]
    assert accepted(space, UserId(startswith=long + "b")) == [long + "b"]


def test_negations_inside_each_other(space: Space) -> None:
    # Of a "not" inside a "not", the engine forgets records.
    def no(inner: Predicate) -> Predicate:
        return NotThat(inner)

    space.holds(
        [record("t", topics=["t"]), record("a"), record("b", event_date=DAY_ZERO), record("c")]
    )
    topics, dated = IsPresent("topics"), IsPresent("event_date")
    nobody, ever = OneOf("user_id", ("nobody",)), InTimeRange("created_at", None, None)
    everybody = ["a", "b", "c", "t"]
    for also in (no(nobody), no(OneOf("topics", ("u",))), no(OneOf("memory_type", ("semantic",)))):
        assert space.finds(AllOf((no(topics), also))) == ["a", "b", "c"]
        assert space.finds(AllOf((also, no(no(no(topics)))))) == ["a", "b", "c"]
        assert space.finds(AllOf((no(no(dated)), also))) == ["b"]
        assert space.finds(AllOf((no(no(ever)), also))) == everybody
        assert space.finds(no(AnyOf((no(ever), no(also))))) == everybody
        assert space.finds(no(AnyOf((topics, no(also))))) == ["a", "b", "c"]


@pytest.mark.parametrize("others", [[], ["nobody's", "nobody else's"]])
def test_alternatives_that_no_record_meets(space: Space, others: list[str]) -> None:
    """A search by vector found nothing at all then."""
    space.holds([record("a", user_id="ada", namespace="n"), record("b", user_id="bob")])
    nobodys = [UserId(eq=f"nobody {n}") & Namespace(eq=f"nowhere {n}") for n in range(3)]
    here = UserId(any=["ada", *others])
    assert accepted(space, (nobodys[0] | here) & (nobodys[1] | Namespace(eq="n"))) == ["a"]
    assert accepted(space, (nobodys[0] | ~UserId(eq="x")) & (nobodys[1] | ~Id(eq="b"))) == ["a"]
    assert accepted(space, nobodys[2] | ((nobodys[0] | here) & (nobodys[1] | here))) == ["a"]


def test_more_than_twenty_alternatives_with_negations(space: Space) -> None:
    # The engine merges more than twenty alternatives in another way, in which a "not" is wrong,
    # or keeps it busy for ever.
    letters = "abcdefghijklmnopqrstuvwxyz"
    held = [letters, letters[:20], letters[::2], "az", "", letters[1:]]
    records = [record(f"m{n}", topics=list(each)) for n, each in enumerate(held)]
    space.holds([*records, *records[:2]])
    lacks = [NotThat(OneOf("topics", (each,))) for each in letters]
    pairs = [AllOf((one, other)) for one, other in itertools.pairwise(lacks)]
    mixed = [AllOf((one, NotThat(other))) for one, other in itertools.pairwise(lacks)]
    nested = [AnyOf((one, other)) for one, other in itertools.pairwise(lacks)]
    for number in (19, 20, 21, 25):
        for parts in (lacks, pairs, mixed, nested):
            for predicate in (AnyOf(tuple(parts[:number])), AllOf(tuple(parts[:number]))):
                wanted = [each.id for each in records if matches(predicate, each)]
                assert space.finds(predicate) == wanted
    several = AnyOf(tuple(NotThat(OneOf("id", (f"m{n}",))) for n in range(1_000)))
    assert space.finds(AllOf((several, NotThat(OneOf("topics", ("a",)))))) == ["m4", "m5"]


@pytest.mark.parametrize(
    "moment",
    [
        FIRST,
        datetime(1684, 7, 28, 0, 12, 25, 259_008 - 70, UTC),  # 2**53 microseconds before 1970
        DAY_ZERO,
        datetime(2255, 6, 5, 23, 47, 34, 740_992 - 70, UTC),
        LAST - 200 * MICROSECOND,
    ],
)
def test_every_microsecond_counts_in_every_century(space: Space, moment: datetime) -> None:
    moments = [moment + n * MICROSECOND for n in range(0, 140, 7)]
    space.holds([record(f"{n:02d}", created_at=each) for n, each in enumerate(moments)])
    names = [f"{n:02d}" for n in range(len(moments))]
    for n, each in enumerate(moments):
        assert accepted(space, CreatedAt(eq=each)) == [names[n]]
        assert accepted(space, CreatedAt(gt=each)) == names[n + 1 :]
        assert accepted(space, CreatedAt(lte=each)) == names[: n + 1]
        assert accepted(space, CreatedAt(ne=each)) == names[:n] + names[n + 1 :]
    page = space.run(space.db.list_memories())
    assert [each.id for each in page.memories] == names[::-1]


def test_prefixes_of_a_hash(space: Space) -> None:
    records = [with_hash(record(f"{n:03d}", text=f"<0> {n}")) for n in range(300)]
    space.holds(records)
    for length in (1, 2, 11, 12, 13, 40, 64):
        start = (records[7].memory_hash or "")[:length]
        wanted = [each.id for each in records if (each.memory_hash or "").startswith(start)]
        assert accepted(space, MemoryHash(startswith=start)) == wanted
        assert len(accepted(space, ~MemoryHash(startswith=start))) == 300 - len(wanted)
    for nobodys in ("A", "g", "0" * 65, "*", "é"):
        assert accepted(space, MemoryHash(startswith=nobodys)) == []
        assert accepted(space, MemoryHash(eq=nobodys)) == []


# --- how much one query may hold ---------------------------------------------------------------


def test_ten_thousand_values_and_ten_thousand_conditions(space: Space) -> None:
    space.holds([record(f"m{n}") for n in range(0, 20_000, 1_000)])
    half = [f"m{n}" for n in range(10_000)]
    wanted = sorted(f"m{n}" for n in range(0, 10_000, 1_000))
    assert accepted(space, Id(any=half)) == wanted
    assert len(accepted(space, Id(none=half))) == 10
    assert space.finds(AnyOf(tuple(OneOf("id", (each,)) for each in half))) == wanted


@pytest.mark.parametrize("shape", ["and-or", "not-and", "not-or", "or-not-and"])
def test_a_hundred_levels(space: Space, shape: str) -> None:
    space.holds(
        [record("a", user_id="ada"), record("b", user_id="bob", namespace="n"), record("c")]
    )
    ada, bob = UserId(eq="ada"), Namespace(startswith="n")
    where: Expression = ada
    wrap: dict[str, Callable[[Expression, int], Expression]] = {
        "and-or": lambda inner, n: (bob | inner) if n % 2 else (~bob & inner),
        "not-and": lambda inner, n: ~(~bob & inner) if n % 2 else (ada & inner),
        "not-or": lambda inner, n: ~(bob | inner),
        "or-not-and": lambda inner, n: [bob | inner, ~bob & inner, ada | inner][n % 3],
    }
    for number in range(100):
        wrapped = wrap[shape](where, number)
        if wrapped.depth > 98:
            break
        where = wrapped
    assert where.depth >= 60
    predicate = predicate_of(where)
    wanted = [each.id for each in (record("a", user_id="ada"),
                                   record("b", user_id="bob", namespace="n"), record("c"))
              if matches(predicate, each)]  # fmt: skip
    assert space.finds(predicate) == wanted


# --- words -------------------------------------------------------------------------------------


@contextmanager
def texts(space: Space, **by_id: str) -> Iterator[RedisBackend]:
    space.holds([record(memory_id, text=text) for memory_id, text in by_id.items()])
    yield space.db


def said(space: Space, query: str) -> list[str]:
    page = space.run(space.db.search_memories(query, search_mode="keyword"))
    assert page.total == len(page.memories)
    return sorted(each.id for each in page.memories)


def test_a_phrase_may_repeat_a_word(space: Space) -> None:
    # The engine takes one "the" for both of a phrase.
    with texts(space, a="the more the better", b="the more better", c="more the the more"):
        assert said(space, '"the more the better"') == ["a"]
        assert said(space, '"the the"') == ["c"]
        assert said(space, '"more the"') == ["a", "c"]


def test_any_script_is_found_by_its_words(space: Space) -> None:
    with texts(
        space, de="Die Straße", el="Οδός", zh="窗边 座位", em="a 🌊 wave", no="10e5 and 0x1f"
    ):
        assert said(space, "STRASSE") == []
        assert said(space, "straße") == ["de"]
        assert said(space, "οδός οδόσ") == ["el"]
        assert said(space, "座位") == ["zh"]
        assert said(space, "🌊") == []
        assert said(space, "10e5") == ["no"]
        assert said(space, "0X1F inf") == ["no"]


def test_words_are_not_taken_for_their_stems(space: Space) -> None:
    with texts(space, one="window", many="windows", room="windowless"):
        for query, found in (("window", "one"), ("windows", "many"), ("WINDOWLESS", "room")):
            assert said(space, query) == [found]
            assert said(space, f'"{query}"') == [found]


def test_very_long_words_stay_apart(space: Space) -> None:
    with texts(space, a="x" * 5_000, b="x" * 5_000 + "y"):
        assert said(space, "x" * 5_000) == ["a"]
        assert said(space, "x" * 5_000 + "Y") == ["b"]


def test_a_filter_does_not_change_the_words_scores(redis_url: str) -> None:
    # The engine would count a tag that matches as a word that does.
    async def scores() -> None:
        texts = ("window seat", "window", "the seat by the window", "aisle")
        memories = [
            record(f"m{n}", text=text, topics=["t", text[0]]) for n, text in enumerate(texts)
        ]
        # A new space: for a while, the engine counts words of deleted records as well.
        async with create(ExactEmbeddings(), space=f"scores {uuid4()}", url=redis_url) as db:
            await db.add_memories(memories)
            everything = await db.search_memories("window seat", search_mode="keyword")
            wanted = [(each.id, each.score) for each in everything.memories]
            assert [memory_id for memory_id, _ in wanted] == ["m0", "m2", "m1"]
            conditions: list[Expression] = [
                Topics(eq="t"),
                Topics(any=["t", "nobody's"]),
                UserId(exists=False),
                Topics(eq="t") & ~UserId(eq="ada"),
                Topics(startswith="t") | UserId(eq="ada"),
                CreatedAt(eq=DAY_ZERO) & Topics(all=["t", "w"]) | Topics(eq="t"),
            ]
            for where in conditions:
                page = await db.search_memories("window seat", search_mode="keyword", where=where)
                assert [(each.id, each.score) for each in page.memories] == wanted, where
            await drop_space(db._client, db._layout)

    asyncio.run(scores())


def test_lists_have_no_other_fields(space: Space) -> None:
    # A value of one field is not found in another, whatever the letters that tokens begin with.
    space.holds([record("a", user_id="ada", topics=["ada"]), record("b", namespace="ada")])
    for name in LIST_TAG_FIELDS:
        wanted = ["a"] if name == "topics" else []
        assert space.finds(OneOf(name, ("ada",))) == wanted
    assert space.finds(OneOf("namespace", ("ada",))) == ["b"]

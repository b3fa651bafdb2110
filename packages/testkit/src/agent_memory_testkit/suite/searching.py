"""Rules SRCH-1 to SRCH-8, RCY-1 and RCY-2: reading with a query."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from agent_memory import (
    Capability,
    Expression,
    Id,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    ScoreType,
    SearchMode,
    Topics,
    UnsupportedCapabilityError,
)
from agent_memory_testkit import strategies
from agent_memory_testkit.embedders import VECTORS, ScatteredEmbeddings
from agent_memory_testkit.large import LargeSpace
from agent_memory_testkit.model import Found, boosted, page_of, ranked_by_recency, score
from agent_memory_testkit.samples import DAY, NOW, memory
from agent_memory_testkit.suite.base import (
    Case,
    SuiteBase,
    checked,
    checked_on_large_space,
    checked_with,
    is_thorough,
)

_NEAR = 1e-6
"""Boosted scores this near to each other may come in any order: engines round differently."""


def check_ranking(
    case: Case,
    results: MemoryRecordResults,
    ranked: Sequence[Found],
    *,
    limit: int,
    offset: int = 0,
    what: str,
) -> None:
    """Fail unless ``results`` is this page of ``ranked``, with the right distances and scores."""
    wanted = page_of(ranked, limit=limit, offset=offset)
    case.equal(
        [each.id for each in results.memories],
        [each.id for each in wanted.items],
        f"{what}: the ids in order",
    )
    for got, found in zip(results.memories, wanted.items, strict=True):
        case.equal_records([got], [found.record], what)
        case.close_to(got.dist, found.dist, f"{what}: dist of {got.id!r}")
        case.close_to(
            got.score, score(case.profile.metric, found.dist), f"{what}: score of {got.id!r}"
        )
        case.equal(got.score_type, ScoreType.SEMANTIC, f"{what}: score_type")
    case.equal(results.total, wanted.total, f"{what}: total")
    case.equal(results.next_offset, wanted.next_offset, f"{what}: next_offset")


async def all_pages(
    case: Case, db: MemoryVectorDatabase, query: str, *, limit: int, **arguments: Any
) -> list[MemoryRecordResult]:
    """Return the results of all pages of a query, following ``next_offset``."""
    memories: list[MemoryRecordResult] = []
    offset: int | None = 0
    while offset is not None:
        page = await db.search_memories(query, limit=limit, offset=offset, **arguments)
        case.check(
            page.next_offset is None or page.next_offset == offset + len(page.memories) > offset,
            f"next_offset at offset {offset}, limit {limit}",
            got=page.next_offset,
            should=f"{offset + len(page.memories)}, or None on the last page",
        )
        memories += page.memories
        offset = page.next_offset
    return memories


class SearchingRules(SuiteBase):
    """SRCH-1 to SRCH-8, RCY-1, RCY-2."""

    # --- semantic search ---------------------------------------------------------------------

    @checked_with(
        examples=40,
        memories=st.lists(strategies.colliding_records(), max_size=8),
        query=strategies.queries(),
        where=st.none() | strategies.filters(),
        limit=st.integers(1, 10),
        offset=st.integers(0, 10),
    )
    async def test_srch_1_nearest_first_by_the_metric_and_ties_by_id(
        self,
        case: Case,
        memories: list[MemoryRecord],
        query: str,
        where: Expression | None,
        limit: int,
        offset: int,
    ) -> None:
        """The nearest come first, equally near ones by id; dist and score are those of the metric.

        Usual causes: a similarity taken for a distance (or 1 - dist/2), vectors not normalised for
        cosine, a squared L2, ties in the engine's order.
        """
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        results = await db.search_memories(query, limit=limit, offset=offset, where=where)
        check_ranking(
            case,
            results,
            model.ranked(query, where),
            limit=limit,
            offset=offset,
            what=f"search_memories({query!r}, limit={limit}, offset={offset})",
        )

    @checked
    async def test_srch_1_vectors_need_not_have_length_one(self, case: Case) -> None:
        """Vectors of any length are ranked by the metric; opposite ones are the furthest by cosine.

        Usual cause: the inner product taken for the cosine.
        """
        memories = [memory(f"m{number:04d}", f"<{number}>") for number in range(0, VECTORS, 23)]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        for query in ("<0>", "<5>", "<9>"):
            check_ranking(
                case,
                await db.search_memories(query, limit=200),
                model.ranked(query),
                limit=200,
                what=f"search_memories({query!r})",
            )

    @checked
    async def test_srch_1_ties_go_by_id(self, case: Case) -> None:
        """Records at one distance are ranked by id, by code point, whatever order they came in.

        Usual causes: ties in the order of insertion, or of a sort that ignores case.
        """
        ids = ["b", "a", "\u00e9", "e", "Z", "_", "10", "9", "\U0001f600", "\uffee", "a ", "A"]
        memories = [memory(each, "<24> the same") for each in ids]
        memories += [memory("other", "<0>"), memory("another", "<8>")]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        found = await db.search_memories("<0>", limit=20)
        wanted = [each.id for each in model.ranked("<0>")]
        case.equal([each.id for each in found.memories], wanted, "the ids in order")

    @checked
    async def test_srch_1_similar_texts_have_vectors_of_their_own(self, case: Case) -> None:
        """Texts that differ in a capital, a blank or an accent alone are embedded as they are.

        Usual cause: texts that are normalised before they are embedded, or before equal ones are
        embedded once.
        """
        texts = ["window seat", "Window Seat", "window  seat", " window seat", "window seat\n"]
        texts += ["caf\u00e9", "cafe\u0301", "CAF\u00c9", "stra\u00dfe", "strasse"]
        memories = [memory(f"m{number}", text) for number, text in enumerate(texts)]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        for query in ("<0>", "<3>", "<9>"):
            check_ranking(
                case,
                await db.search_memories(query, limit=20),
                model.ranked(query),
                limit=20,
                what=f"search_memories({query!r})",
            )

    @checked
    async def test_srch_2_filters_select_before_ranking(self, case: Case) -> None:
        """Matches are found however rare they are and however many other records are nearer.

        Usual cause: the nearest few are fetched and filtered afterwards.
        """
        crowd = [memory(f"near{n}", "<0>", user_id="many") for n in range(1_500)]
        rare = [memory(f"far{n}", "<8>", user_id="rare", topics=["t"]) for n in range(5)]
        db = await case.filled([*crowd, *rare])
        wanted = [each.id for each in rare]
        for limit in (5, 6, 50):
            found = await db.search_memories("<0>", limit=limit, user_id="rare")
            case.equal([each.id for each in found.memories], wanted, f"5 matches, limit={limit}")
            case.equal(found.total, 5, f"total of 5 matches, limit={limit}")
        found = await db.search_memories("<0>", limit=2, offset=3, topics="t")
        case.equal([each.id for each in found.memories], wanted[3:], "their second page")

    @checked
    async def test_srch_3_pages_follow_one_order_through_ties(self, case: Case) -> None:
        """Equal texts lie at one distance; the pages through them neither overlap nor miss.

        Usual causes: an engine that breaks ties as it likes for each limit, a total of the page.
        """
        memories = [
            memory(f"m{n * 37 % 60:02d}", "<24> the same", user_id=f"u{n}") for n in range(60)
        ]
        memories += [memory(f"x{n}", "<0> nearer") for n in range(3)]
        memories += [memory(f"y{n}", "<8> further") for n in range(3)]
        model = case.model()
        model.add(memories)
        ranked = model.ranked("<0>")
        db = await case.filled(memories)
        for limit in (1, 4, 7, 32, 65, 66, 67):
            ids = [each.id for each in await all_pages(case, db, "<0>", limit=limit)]
            case.equal(ids, [each.id for each in ranked], f"all pages of {limit}")
        for offset in (0, 2, 3, 30, 62, 65, 66, 500, 2**40):
            check_ranking(
                case,
                await db.search_memories("<0>", limit=5, offset=offset),
                ranked,
                limit=5,
                offset=offset,
                what=f"search_memories('<0>', limit=5, offset={offset})",
            )

    @checked
    async def test_srch_3_without_a_total_pages_still_end(self, case: Case) -> None:
        """``with_total=False`` leaves the total out; ``next_offset`` is as right as with it.

        Usual cause: ``next_offset`` worked out from the total.
        """
        memories = [memory(f"m{n}", f"<{n}>") for n in range(10)]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        for limit, offset in [(3, 0), (3, 7), (4, 6), (4, 7), (10, 0), (11, 0), (9, 0), (5, 10)]:
            page = await db.search_memories("<0>", limit=limit, offset=offset, with_total=False)
            wanted = page_of(model.ranked("<0>"), limit=limit, offset=offset)
            said = f"with_total=False, limit={limit}, offset={offset}"
            case.equal(page.total, None, f"total, {said}")
            case.equal(page.next_offset, wanted.next_offset, f"next_offset, {said}")
            ids = [each.id for each in page.memories]
            case.equal(ids, [each.id for each in wanted.items], f"ids, {said}")
        words = [memory(f"w{n}", f"<{n}> window seat") for n in range(4)]
        await db.add_memories(words)
        for mode, count in ((SearchMode.KEYWORD, 4), (SearchMode.HYBRID, 14)):
            if not case.has(Capability(f"{mode.value}_search")):
                continue
            for limit in (3, count):
                page = await db.search_memories(
                    "window", search_mode=mode, limit=limit, with_total=False
                )
                case.equal(
                    (page.total, page.next_offset),
                    (None, limit if limit < count else None),
                    f"total and next_offset, {mode.value} search, with_total=False, limit={limit}",
                )

    @checked_on_large_space
    async def test_srch_3_the_total_is_exact_above_ten_thousand(
        self, case: Case, large: LargeSpace
    ) -> None:
        """No cap of the engine (1,000, 10,000) ends up in the total of a search.

        Usual cause: the number of candidates that a nearest-neighbour search was asked for.
        """
        half = len(range(0, large.size, 2))
        found = await case.watched(large.db).search_memories("anything", limit=1, topics="even")
        case.equal(found.total, half, "total of search_memories(limit=1, topics='even')")

    @checked
    async def test_srch_4_the_threshold_is_inclusive(self, case: Case) -> None:
        """A record at exactly the threshold is found; whatever ``dist`` says can be a threshold.

        Usual causes: ``<`` for ``<=``, a distance rounded on one side of the comparison alone.
        """
        memories = [
            memory(f"m{n}", f"<{n}>") for n in (0, 1, 8, 16, 17, 20, 24, 31, 32, 80, 87, 248)
        ]
        model = case.model()
        model.add(memories)
        ranked = model.ranked("<0>")
        dists = sorted({each.dist for each in ranked})
        exact = [each for each in dists if (each * 4).is_integer()]
        between = [(low + high) / 2 for low, high in itertools.pairwise(dists)]
        db = await case.filled(memories)
        for threshold in (*exact, *between, dists[0] - 1, dists[-1] + 1):
            check_ranking(
                case,
                await db.search_memories("<0>", limit=50, distance_threshold=threshold),
                [each for each in ranked if each.dist <= threshold],
                limit=50,
                what=f"search_memories('<0>', distance_threshold={threshold})",
            )
        for each in (await db.search_memories("<0>", limit=50)).memories:
            found = await db.search_memories("<0>", limit=50, distance_threshold=each.dist)
            case.check(
                each.id in [one.id for one in found.memories],
                f"distance_threshold={each.dist!r}, the dist that {each.id!r} was given with",
                got=[one.id for one in found.memories],
                should=f"{each.id!r} among them",
            )

    @checked
    async def test_srch_4_the_threshold_needs_no_limit(self, case: Case) -> None:
        """All within the threshold count, whatever the limit, and pages end where it ends.

        Usual cause: the threshold applied to the page instead of the search.
        """
        memories = [memory(f"near{n:03d}", "<0>", topics=[str(n % 2)]) for n in range(300)]
        memories += [memory(f"far{n:03d}", "<1>") for n in range(300)]
        db = await case.filled(memories)
        model = case.model()
        model.add(memories)
        dists = [each.dist for each in model.ranked("<0>")]
        threshold = (dists[0] + dists[-1]) / 2
        for limit in (1, 10, 300, 301, 1_000):
            page = await db.search_memories("<0>", limit=limit, distance_threshold=threshold)
            case.equal(len(page.memories), min(limit, 300), f"records with limit={limit}")
            case.equal(page.total, 300, f"total with limit={limit}")
        pages = await all_pages(case, db, "<0>", limit=77, distance_threshold=threshold)
        case.equal([m.id for m in pages], [f"near{n:03d}" for n in range(300)], "all pages")
        page = await db.search_memories("<0>", topics="1", distance_threshold=threshold)
        case.equal(page.total, 150, "total with a filter")

    @checked
    async def test_srch_5_a_blank_query_is_refused(self, case: Case) -> None:
        """Blank queries raise; they do not stand for "everything".

        Usual cause: an empty query that falls back to a listing.
        """
        db = await case.filled([memory("m")])
        case.embeddings.forget_calls()
        for query in ("", " ", "\n\t", "\u3000", "\u00a0 "):
            await case.raises(
                InvalidArgumentError, db.search_memories(query), f"search_memories({query!r})"
            )
        case.equal(case.embeddings.query_calls, 0, "queries embedded")

    @checked
    async def test_srch_5_one_query_embeds_once(self, case: Case) -> None:
        """Each search embeds its query once, and nothing else.

        Usual causes: the query embedded for each page or for the count, texts embedded again.
        """
        db = await case.filled([memory(f"m{n}", f"<{n}>", user_id="ada") for n in range(9)])
        searches: list[dict[str, Any]] = [
            {},
            {"user_id": "ada", "limit": 2},
            {"offset": 4, "limit": 2},
            {"distance_threshold": 0.5},
            {"with_total": False},
            {"recency": RecencyParams(candidates=2), "limit": 5},
        ]
        if case.has(Capability.HYBRID_SEARCH):
            searches.append({"search_mode": "hybrid"})
        for arguments in searches:
            case.embeddings.forget_calls()
            await db.search_memories("window seat", **arguments)
            case.equal(
                (case.embeddings.query_calls, case.embeddings.texts_embedded),
                (1, 0),
                f"queries and texts embedded by search_memories('window seat', **{arguments})",
            )

    @checked
    async def test_srch_6_recall_on_scattered_vectors(self, case: Case) -> None:
        """Of the ten nearest of thousands, all are found (0.95 where ``approximate`` is declared).

        Usual causes: an index with too little effort, normalisation of the one side alone.
        """
        embeddings = ScatteredEmbeddings()
        size = 20_000 if is_thorough() else 3_000
        texts = [f"text {n}" for n in range(size)]
        db = await case.open(embeddings=embeddings)
        await db.add_memories([memory(f"m{n}", text) for n, text in enumerate(texts)])
        recalls = []
        for number in range(20):
            query = f"query {number}"
            found = await db.search_memories(query)
            recalls.append(_recall(case, embeddings, query, found, texts))
        self._check_recall(case, recalls)

    @checked_on_large_space
    async def test_srch_6_recall_under_a_filter_that_keeps_one_percent(
        self, case: Case, large: LargeSpace
    ) -> None:
        """The same for the records of one user out of a hundred.

        Usual cause: a filter applied to the few nearest that an approximate index gives.
        """
        recalls = []
        for number in range(10):
            query = f"query {number}"
            found = await case.watched(large.db).search_memories(
                query, user_id=large.user_of(number)
            )
            texts = [large.text_of(n) for n in range(number, large.size, large.USERS)]
            recalls.append(_recall(case, large.embeddings, query, found, texts))
        self._check_recall(case, recalls)

    def _check_recall(self, case: Case, recalls: list[float]) -> None:
        least = 0.95 if case.has(Capability.APPROXIMATE) else 1.0
        recall = sum(recalls) / len(recalls)
        case.check(
            recall >= least,
            f"recall@10 over {len(recalls)} queries",
            got=recall,
            should=f"{least} or more",
        )

    # --- keyword search ----------------------------------------------------------------------

    async def _without(self, case: Case, mode: str, capability: Capability) -> bool:
        """Return whether ``capability`` is off; then asking for it must raise."""
        if case.has(capability):
            return False
        db = await case.filled([memory("m", "window seat")])
        error = await case.raises(
            UnsupportedCapabilityError,
            db.search_memories("window", search_mode=mode),  # type: ignore[arg-type]
            f"search_mode={mode!r}, which is not declared",
        )
        case.check(
            capability.value in str(error), "its message", got=str(error), should=capability.value
        )
        return True

    @checked
    async def test_srch_7_only_records_that_hold_a_term(self, case: Case) -> None:
        """Whole words, in any case: no prefix, no stem, no near meaning.

        Usual causes: an engine's stemmer, its stop words, its query syntax read in the query.
        """
        if await self._without(case, "keyword", Capability.KEYWORD_SEARCH):
            return
        texts = {
            "one": "<1> Prefers the WINDOW seat",
            "two": "<2> looks through windows",
            "three": "<3> seat by the aisle",
            "four": "<4> windowless room",
            "five": "<5> window, window; window!",
            "six": "<6> not here nor there",
            "seven": "<7> seat of the window",
        }
        db = await case.filled([memory(name, text) for name, text in texts.items()])
        expected = {
            "window": {"one", "five", "seven"},
            "Window": {"one", "five", "seven"},
            "window seat": {"one", "three", "five", "seven"},
            "aisle nowhere": {"three"},
            "nowhere": set(),
            "the": {"one", "three", "seven"},
            "not": {"six"},
            '"window seat"': {"one"},
            '"seat window"': set(),
            '"window seat" aisle': {"one"},
            '"the window"': {"one", "seven"},
            '"prefers the" "window seat"': {"one"},
            '"window" seat': {"one", "five", "seven"},
            "window*": {"one", "five", "seven"},
            "-window": {"one", "five", "seven"},
            "(window": {"one", "five", "seven"},
            "aisle AND window": {"one", "three", "five", "seven"},
            "NOT window": {"one", "five", "six", "seven"},
            "@text:{aisle}": {"three"},
            "text:aisle": {"three"},
            'aisle "': {"three"},
            "aisle'; --": {"three"},
            "!!! ?": set(),
            '""': set(),
        }
        for query, wanted in expected.items():
            found = await db.search_memories(query, search_mode="keyword", limit=50)
            case.equal(
                sorted(each.id for each in found.memories),
                sorted(wanted),
                f"keyword search for {query!r}: the ids",
            )
            case.equal(found.total, len(wanted), f"keyword search for {query!r}: total")
        found = await db.search_memories("seat", search_mode="keyword", id=["one", "two", "three"])
        case.equal(sorted(each.id for each in found.memories), ["one", "three"], "with a filter")

    @checked_with(
        examples=30,
        memories=st.lists(strategies.colliding_records(), max_size=8),
        query=strategies.keyword_queries(),
        where=st.none() | strategies.filters(),
    )
    async def test_srch_7_any_words_and_filters(
        self, case: Case, memories: list[MemoryRecord], query: str, where: Expression | None
    ) -> None:
        """Keyword search finds exactly the matches that hold the words.

        Usual causes: stemming, stop words, a phrase matched word by word; a filter that keyword
        search ignores.
        """
        if await self._without(case, "keyword", Capability.KEYWORD_SEARCH):
            return
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        found = await db.search_memories(query, search_mode="keyword", limit=50, where=where)
        wanted = {each.id: each for each in model.matching(where) if holds_keywords(each, query)}
        case.equal(
            sorted(each.id for each in found.memories),
            sorted(wanted),
            f"keyword search for {query!r}: the ids",
        )
        for each in found.memories:
            case.equal_records([each], [wanted[each.id]], "keyword search")

    @checked
    async def test_srch_7_scores_fall_from_one_and_are_the_same_on_every_page(
        self, case: Case
    ) -> None:
        """The best match has 1.0, none has more than the one before it, equal ones go by id.

        Usual cause: scores divided by the best one of the page instead of the query.
        """
        if await self._without(case, "keyword", Capability.KEYWORD_SEARCH):
            return
        memories = [
            memory(f"m{n * 7 % 30:02d}", f"<{n}> " + "window " * (n % 4) + "seat " * (n % 3))
            for n in range(30)
        ]
        memories += [memory(f"same{n}", "<1> window seat") for n in (3, 1, 2)]
        db = await case.filled(memories)
        query = "window seat"
        whole = await db.search_memories(query, search_mode="keyword", limit=100)
        scores = [each.score for each in whole.memories]
        case.close_to(scores[0], 1.0, "the first score", within=1e-6)
        case.check(
            all(score is not None and 0 < score <= 1 for score in scores)
            and scores == sorted(scores, key=lambda score: -(score or 0)),
            "the scores",
            got=scores,
            should="falling, above 0, at most 1.0",
        )
        kinds = {(each.dist, each.score_type) for each in whole.memories}
        case.equal(kinds, {(None, ScoreType.KEYWORD)}, "dist and score_type")
        same = [each.id for each in whole.memories if each.id.startswith("same")]
        case.equal(same, ["same1", "same2", "same3"], "records of equal text, by id")
        for limit in (1, 4, 10, len(scores)):
            pages = await all_pages(case, db, query, limit=limit, search_mode="keyword")
            case.equal(
                [(each.id, each.score) for each in pages],
                [(each.id, each.score) for each in whole.memories],
                f"ids and scores over all pages of {limit}",
            )
        page = await db.search_memories(query, search_mode="keyword", offset=1_000)
        case.equal(([*page.memories], page.total), ([], len(scores)), "a page past the end")

    @checked
    async def test_srch_7_a_threshold_of_distance_is_refused(self, case: Case) -> None:
        """Keyword search compares no vectors, so it has no distance to limit.

        Usual cause: the argument is ignored.
        """
        if await self._without(case, "keyword", Capability.KEYWORD_SEARCH):
            return
        db = await case.filled([memory("m", "window seat")])
        await case.raises(
            InvalidArgumentError,
            db.search_memories("window", search_mode="keyword", distance_threshold=0.5),
            "distance_threshold in keyword search",
        )

    # --- hybrid search -----------------------------------------------------------------------

    @checked
    async def test_srch_8_the_ends_of_alpha(self, case: Case) -> None:
        """1.0 orders like semantic search; 0.0 puts the keyword matches first, in keyword order.

        Usual causes: alpha the wrong way round, only the candidates of the one side.
        """
        if await self._without(case, "hybrid", Capability.HYBRID_SEARCH):
            return
        db = await case.filled(_hybrid_memories())
        semantic = await db.search_memories("<0> window seat", limit=100)
        by_meaning = await db.search_memories(
            "<0> window seat", search_mode="hybrid", hybrid_alpha=1.0, limit=100
        )
        ids = [each.id for each in by_meaning.memories]
        case.equal(ids, [each.id for each in semantic.memories], "the ids with hybrid_alpha=1.0")
        if not case.has(Capability.KEYWORD_SEARCH):
            return
        keyword = await db.search_memories("<0> window seat", search_mode="keyword", limit=100)
        by_words = await db.search_memories(
            "<0> window seat", search_mode="hybrid", hybrid_alpha=0.0, limit=100
        )
        scores = {each.id: each.score for each in keyword.memories}
        first = by_words.memories[: len(scores)]
        case.equal(
            [scores.get(each.id) for each in first],
            [each.score for each in keyword.memories],
            "the keyword scores of the first records with hybrid_alpha=0.0",
        )

    @checked
    async def test_srch_8_scores_are_weighed_over_the_union(self, case: Case) -> None:
        """Each match has alpha * semantic + (1 - alpha) * keyword, best first, on every page.

        Usual causes: ranks fused instead of scores, scores of one page normalised, records without
        the words left out.
        """
        if await self._without(case, "hybrid", Capability.HYBRID_SEARCH):
            return
        memories = _hybrid_memories()
        query = "<0> window seat"
        model = case.model()
        model.add(memories)
        meaning = {each.id: score(case.profile.metric, each.dist) for each in model.ranked(query)}
        db = await case.filled(memories)
        words: dict[str, float] = {}
        if case.has(Capability.KEYWORD_SEARCH):
            keyword = await db.search_memories(query, search_mode="keyword", limit=100)
            words = {each.id: each.score or 0.0 for each in keyword.memories}
        for alpha in (0.0, 0.3, 0.7, 1.0):
            arguments: dict[str, Any] = {"search_mode": "hybrid", "hybrid_alpha": alpha}
            whole = await db.search_memories(query, limit=100, **arguments)
            said = f"hybrid_alpha={alpha}"
            case.equal(sorted(each.id for each in whole.memories), sorted(meaning), f"ids, {said}")
            case.equal(whole.total, len(meaning), f"total, {said}")
            scores = [each.score or 0.0 for each in whole.memories]
            case.check(
                all(one >= other - _NEAR for one, other in itertools.pairwise(scores)),
                f"order of the scores, {said}",
                got=scores,
                should="falling",
            )
            for each in whole.memories:
                case.equal(each.score_type, ScoreType.HYBRID, "score_type")
                if words:
                    weighed = alpha * meaning[each.id] + (1 - alpha) * words.get(each.id, 0.0)
                    case.close_to(each.score, weighed, f"score of {each.id!r}, {said}")
            for limit in (1, 7):
                pages = await all_pages(case, db, query, limit=limit, **arguments)
                case.equal(
                    [each.id for each in pages],
                    [each.id for each in whole.memories],
                    f"all pages of {limit}, {said}",
                )

    @checked
    async def test_srch_8_a_filter_selects_before_words_are_weighed(self, case: Case) -> None:
        """The best match that the filters accept has the keyword score 1.0, here as in SRCH-7.

        So what a caller may not see does not decide how much words weigh for him. Usual cause:
        keyword scores divided by the best one of the whole space.
        """
        if await self._without(case, "hybrid", Capability.HYBRID_SEARCH):
            return
        memories = _hybrid_memories()
        memories += [memory("best", "<8> seat window seat window seat window", topics=["odd"])]
        query = "<0> window seat"
        model = case.model()
        model.add(memories)
        meaning = {each.id: score(case.profile.metric, each.dist) for each in model.ranked(query)}
        db = await case.filled(memories)
        for where in (Topics(eq="even"), Topics(eq="odd"), Topics(eq="odd") & Id(ne="best")):
            words: dict[str, float] | None = None
            if case.has(Capability.KEYWORD_SEARCH):
                keyword = await db.search_memories(
                    query, search_mode="keyword", where=where, limit=100
                )
                words = {each.id: each.score or 0.0 for each in keyword.memories}
                case.close_to(max(words.values()), 1.0, f"the best keyword score, {where!r}")
            for alpha in (0.0, 0.3, 0.7):
                said = f"hybrid_alpha={alpha}, {where!r}"
                found = await db.search_memories(
                    query, search_mode="hybrid", hybrid_alpha=alpha, where=where, limit=100
                )
                ids = sorted(each.id for each in found.memories)
                case.equal(ids, sorted(each.id for each in model.matching(where)), f"ids, {said}")
                scores = [each.score or 0.0 for each in found.memories]
                case.check(
                    all(one >= other - _NEAR for one, other in itertools.pairwise(scores)),
                    f"order of the scores, {said}",
                    got=scores,
                    should="falling",
                )
                if words is None:
                    continue
                for each in found.memories:
                    weighed = alpha * meaning[each.id] + (1 - alpha) * words.get(each.id, 0.0)
                    case.close_to(each.score, weighed, f"score of {each.id!r}, {said}")

    @checked
    async def test_srch_8_alpha_lies_between_zero_and_one(self, case: Case) -> None:
        """Another alpha is refused, and so is one where nothing is weighed.

        Usual cause: the argument is clamped or ignored.
        """
        if await self._without(case, "hybrid", Capability.HYBRID_SEARCH):
            return
        db = await case.filled([memory("m", "window seat")])
        for alpha in (-0.1, 1.1, math.nan, math.inf):
            await case.raises(
                InvalidArgumentError,
                db.search_memories("window", search_mode="hybrid", hybrid_alpha=alpha),
                f"hybrid_alpha={alpha}",
            )
        await case.raises(
            InvalidArgumentError,
            db.search_memories("window", hybrid_alpha=0.5),
            "hybrid_alpha in semantic search",
        )

    # --- recency -----------------------------------------------------------------------------

    @checked_with(
        examples=40,
        ages=st.lists(
            st.tuples(
                st.sampled_from([0, 1, 16, 24, 32, 80, 8]),
                st.integers(-3, 400),
                st.integers(-3, 400),
            ),
            max_size=8,
        ),
        recency=st.builds(
            RecencyParams,
            semantic_weight=st.sampled_from([0.0, 0.3, 0.8, 2.0]),
            recency_weight=st.sampled_from([0.0, 0.2, 1.0]),
            freshness_weight=st.sampled_from([0.0, 0.6, 1.0]),
            novelty_weight=st.sampled_from([0.0, 0.4, 1.5]),
            half_life_last_access_days=st.sampled_from([0.5, 7.0, 90.0]),
            half_life_created_days=st.sampled_from([1.0, 30.0]),
            candidates=st.sampled_from([1, 2, 5, 1_000]),
            now=st.just(NOW),
        ),
    )
    async def test_rcy_1_the_formula_with_any_weights(
        self, case: Case, ages: list[tuple[int, int, int]], recency: RecencyParams
    ) -> None:
        """Records are ranked by meaning and recency as the formula weighs them.

        Usual causes: e for 2 in the decay, hours for days, created_at and last_accessed swapped,
        no clamping, a future time that counts more than now.
        """
        memories = [
            memory(
                f"m{n}",
                f"<{vector}>",
                last_accessed=NOW - accessed * DAY,
                created_at=NOW - created * DAY,
            )
            for n, (vector, accessed, created) in enumerate(ages)
        ]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        results = await db.search_memories("<0>", limit=20, recency=recency)
        check_recency(case, results, model.ranked("<0>"), recency, limit=20)

    @checked
    async def test_rcy_1_the_defaults(self, case: Case) -> None:
        """0.8 and 0.2, 0.6 and 0.4, half-lives of 7 and of 30 days; score and dist stay semantic.

        Usual causes: other defaults, the boosted value returned as the score.
        """
        memories = [
            memory("near-old", "<0>", last_accessed=NOW - 400 * DAY, created_at=NOW - 400 * DAY),
            memory("near-new", "<0>", last_accessed=NOW, created_at=NOW),
            memory("half-new", "<16>", last_accessed=NOW, created_at=NOW),
            memory("half-week", "<16>", last_accessed=NOW - 7 * DAY, created_at=NOW - 30 * DAY),
            memory("future", "<16>", last_accessed=NOW + 90 * DAY, created_at=NOW + DAY),
            memory("fresh", "<24>", last_accessed=NOW, created_at=NOW - 90 * DAY),
            memory("novel", "<24>", last_accessed=NOW - 90 * DAY, created_at=NOW),
        ]
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        recency = RecencyParams(now=NOW)
        spelt_out = RecencyParams(
            semantic_weight=0.8,
            recency_weight=0.2,
            freshness_weight=0.6,
            novelty_weight=0.4,
            half_life_last_access_days=7,
            half_life_created_days=30,
            candidates=1_000,
            now=NOW,
        )
        results = await db.search_memories("<0>", recency=recency)
        check_recency(case, results, model.ranked("<0>"), spelt_out, limit=10)

    @checked
    async def test_rcy_1_ages_count_in_halves_and_days(self, case: Case) -> None:
        """Records of one meaning, whose ages are as different as their recency is close.

        Usual causes: e for 2 in the decay, a half-life in hours, weights the wrong way round.
        """
        recency = RecencyParams(now=NOW)
        memories = []
        for number in range(60):
            accessed = float(number * 37 % 60) / 4
            fresh = recency.freshness_weight * 0.5 ** (accessed / 7)
            new = (0.66 - 0.004 * number - fresh) / recency.novelty_weight
            if not 0.01 < new < 1:
                continue  # no date of creation makes up for this date of access
            memories.append(
                memory(
                    f"m{number:02d}",
                    "<0>",
                    last_accessed=NOW - accessed * DAY,
                    created_at=NOW - 30 * math.log2(1 / new) * DAY,
                )
            )
        model = case.model()
        model.add(memories)
        db = await case.filled(memories)
        results = await db.search_memories("<0>", limit=60, recency=recency)
        check_recency(case, results, model.ranked("<0>"), recency, limit=60)

    @checked
    async def test_rcy_1_now_is_the_time_of_the_call(self, case: Case) -> None:
        """Without ``now``, ages are measured from the time of the call.

        Usual cause: the time when the handle was made, or local time.
        """
        present = datetime.now(UTC)
        memories = [
            memory("old", "<0>", last_accessed=NOW - 900 * DAY, created_at=NOW - 900 * DAY),
            memory("new", "<0> too", last_accessed=present, created_at=present),
        ]
        db = await case.filled(memories)
        found = await db.search_memories("<0>", recency=RecencyParams())
        case.equal([each.id for each in found.memories], ["new", "old"], "the newer one first")

    @checked
    async def test_rcy_2_candidates_are_ranked_before_paging(self, case: Case) -> None:
        """The nearest candidates are ranked as one, whatever the pages; the rest follows.

        Usual causes: recency applied inside a page, the candidates' edge taken for the end.
        """
        vectors = (0, 87, 31, 32, 24, 16, 1, 8)
        memories = [
            memory(
                f"m{n:02d}",
                f"<{vectors[n % 8]}>",
                last_accessed=NOW - (n * 17 % 40) * DAY,
                created_at=NOW - (n * 29 % 40) * DAY,
                user_id=f"u{n % 2}",
            )
            for n in range(40)
        ]
        model = case.model()
        model.add(memories)
        ranked = model.ranked("<0>")
        db = await case.filled(memories)
        for candidates in (1, 7, 20, 39, 40, 41, 1_000):
            recency = RecencyParams(
                semantic_weight=0.2, recency_weight=1.0, candidates=candidates, now=NOW
            )
            for limit, offset in [(40, 0), (3, 5), (10, 0), (10, 15), (10, 35), (5, 18), (5, 40)]:
                results = await db.search_memories(
                    "<0>", limit=limit, offset=offset, recency=recency
                )
                check_recency(case, results, ranked, recency, limit=limit, offset=offset)
            pages = await all_pages(case, db, "<0>", limit=9, recency=recency)
            case.equal(len({each.id for each in pages}), 40, "records over all pages of 9")
            uncounted = await db.search_memories(
                "<0>", limit=9, offset=27, recency=recency, with_total=False
            )
            case.equal((uncounted.total, uncounted.next_offset), (None, 36), "with_total=False")
        recency = RecencyParams(recency_weight=1.0, candidates=5, now=NOW)
        results = await db.search_memories("<0>", limit=40, recency=recency, user_id="u1")
        mine = [each for each in ranked if each.record.user_id == "u1"]
        check_recency(case, results, mine, recency, limit=40)
        dists = sorted({each.dist for each in ranked})
        threshold = (dists[2] + dists[3]) / 2
        results = await db.search_memories(
            "<0>", limit=40, recency=recency, distance_threshold=threshold
        )
        near = [each for each in ranked if each.dist <= threshold]
        check_recency(case, results, near, recency, limit=40)


def check_recency(
    case: Case,
    results: MemoryRecordResults,
    ranked: Sequence[Found],
    recency: RecencyParams,
    *,
    limit: int,
    offset: int = 0,
) -> None:
    """Fail unless ``results`` is this page of ``ranked`` by recency.

    Records whose boosted scores are nearer than engines compute them may change places.
    """
    assert recency.now is not None
    metric = case.profile.metric
    what = f"search_memories(limit={limit}, offset={offset}, recency={recency!r})"
    wanted = page_of(
        ranked_by_recency(ranked, metric, recency, recency.now), limit=limit, offset=offset
    )
    case.equal(len(results.memories), len(wanted.items), f"{what}: the number of records")
    case.equal(results.total, wanted.total, f"{what}: total")
    case.equal(results.next_offset, wanted.next_offset, f"{what}: next_offset")
    candidates = {each.id for each in ranked[: recency.candidates]}
    by_id = {each.id: each for each in ranked}
    for got, found in zip(results.memories, wanted.items, strict=True):
        if got.id != found.id:
            other = by_id.get(got.id)
            interchangeable = (
                other is not None
                and (other.id in candidates)
                and (found.id in candidates)
                and not _same_rank(other, found)
                and abs(
                    boosted(other, metric, recency, recency.now)
                    - boosted(found, metric, recency, recency.now)
                )
                <= _NEAR
            )
            if not interchangeable:
                case.equal(
                    [each.id for each in results.memories],
                    [each.id for each in wanted.items],
                    f"{what}: the ids in order",
                )
        case.close_to(got.dist, by_id[got.id].dist, f"{what}: dist of {got.id!r}")
        case.close_to(got.score, score(metric, by_id[got.id].dist), f"{what}: score of {got.id!r}")


def _same_rank(one: Found, other: Found) -> bool:
    """Tell whether two records are equal in all that ranking by recency looks at."""
    return (one.key, one.record.last_accessed, one.record.created_at) == (
        other.key,
        other.record.last_accessed,
        other.record.created_at,
    )


def holds_keywords(record: MemoryRecord, query: str) -> bool:
    """Tell whether the text holds one of the query's words and all of its phrases (ASCII alone)."""
    said = f" {' '.join(_words(record.text))} "
    phrases = [" ".join(_words(quoted)) for quoted in re.findall(r'"([^"]*)"', query)]
    return all(f" {each} " in said for each in phrases if each) and any(
        f" {each} " in said for each in _words(query)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _hybrid_memories() -> list[MemoryRecord]:
    said = ("", "window", "seat", "window seat", "the window seat by the window", "aisle")
    vectors = (8, 0, 16, 24, 1, 31, 32)
    return [
        memory(
            f"m{n:02d}",
            f"<{vectors[n % 7]}> {said[n % 6]}",
            topics=["even" if n % 2 == 0 else "odd"],
        )
        for n in range(42)
    ]


def _recall(
    case: Case,
    embeddings: ScatteredEmbeddings,
    query: str,
    found: MemoryRecordResults,
    texts: Sequence[str],
) -> float:
    """Return the share of the ten nearest that was found, as near to the exact answer as can be."""
    vector = embeddings.query_vector(query)
    metric = case.profile.metric
    nearest = sorted(_distance(metric, vector, embeddings.document_vector(t)) for t in texts)[:10]
    furthest = nearest[-1] + 1e-5 * max(1.0, abs(nearest[-1]))
    got = {
        each.id: _distance(metric, vector, embeddings.document_vector(each.text))
        for each in found.memories
    }
    return sum(dist <= furthest for dist in got.values()) / len(nearest)


def _distance(metric: str, left: Sequence[float], right: Sequence[float]) -> float:
    inner = math.fsum(a * b for a, b in zip(left, right, strict=True))
    if metric == "cosine":
        return 1.0 - inner / (math.hypot(*left) * math.hypot(*right))
    return math.dist(left, right) if metric == "l2" else 1.0 - inner

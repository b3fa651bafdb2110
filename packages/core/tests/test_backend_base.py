"""`Backend`: what it does for every engine, driven through a small engine on a dict.

`DictBackend` below is a complete engine, as an author would write one for a first try; the tests
beyond it look only at what the base class promises.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import (
    AgentMemoryError,
    BackendClosedError,
    BackendUnavailableError,
    Capability,
    EmbeddingError,
    EmbeddingMismatchError,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    RecencyParams,
    ScopeError,
    ScoreType,
    SearchMode,
    Topics,
    UnsupportedCapabilityError,
    UserId,
)
from agent_memory.backend import (
    Backend,
    Fingerprint,
    Hit,
    HybridQuery,
    KeywordQuery,
    Listing,
    Metric,
    Ranking,
    Replaced,
    Row,
    SemanticQuery,
    Vector,
    Window,
)
from agent_memory.keywords import Keywords, terms_of
from agent_memory.predicates import Predicate, matches
from agent_memory.scope import Scope

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)


# --- the engine ------------------------------------------------------------------------------


class EngineDownError(Exception):
    """What the client of a real engine would raise."""


async def _nothing(primitive: str) -> None:
    await asyncio.sleep(0)


@dataclass
class Server:
    """What the engine's handles connect to: spaces by name, and a tap on every primitive."""

    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    spaces: dict[str, dict[str, Row]] = field(default_factory=dict)
    before: Callable[[str], Awaitable[None]] = _nothing
    calls: list[str] = field(default_factory=list)

    async def reach(self, primitive: str) -> None:
        self.calls.append(primitive)
        await self.before(primitive)


class DictBackend(Backend):
    def __init__(self, embeddings: Any, server: Server, **options: Any) -> None:
        super().__init__(embeddings, **{"space": "memory", **options})
        self.server = server

    @property
    def rows(self) -> dict[str, Row]:
        return self.server.spaces[self.space]

    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        await self.server.reach("open")
        self.server.spaces.setdefault(self.space, {})
        return self.server.fingerprints.setdefault(self.space, fingerprint)

    async def _close(self) -> None:
        await self.server.reach("close")

    async def _put(self, rows: Sequence[Row], scope: Scope | None) -> Sequence[str]:
        await self.server.reach("put")
        held = [self.rows[row.record.id].record for row in rows if row.record.id in self.rows]
        if scope and (taken := [each.id for each in held if not scope.contains(each)]):
            return taken
        self.rows.update((row.record.id, row) for row in rows)
        return []

    async def _replace(self, rows: Sequence[Row], scope: Scope | None) -> Replaced:
        await self.server.reach("replace")
        replaced, stale = 0, []
        for record, vector in rows:
            old = self.rows.get(record.id)
            if old is None or (scope and not scope.contains(old.record)):
                continue
            if vector is None and old.record.text != record.text:
                stale.append(record.id)
                continue
            self.rows[record.id] = Row(record, old.vector if vector is None else vector)
            replaced += 1
        return Replaced(replaced, stale)

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        await self.server.reach("remove")
        held = [self.rows[each].record for each in ids if each in self.rows]
        gone = [each.id for each in held if scope is None or scope.contains(each)]
        for each in gone:
            del self.rows[each]
        return len(gone)

    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        await self.server.reach("fetch")
        return [self.rows[each].record.model_copy(deep=True) for each in ids if each in self.rows]

    async def _count(self, where: Predicate | None) -> int:
        await self.server.reach("count")
        return len(self._chosen(where))

    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        await self.server.reach("list")
        chosen = [row.record for row in self._chosen(where)]
        return Listing(
            [each.model_copy(deep=True) for each in chosen[offset : offset + limit]], len(chosen)
        )

    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        await self.server.reach("list_ids")
        return [row.record.id for row in self._chosen(where)]

    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        await self.server.reach("rank")
        furthest = math.inf if query.max_distance is None else query.max_distance
        hits = [Hit(r, self._distance(query.vector, v)) for r, v in self._chosen(query.where)]
        hits = [each for each in hits if each.dist is not None and each.dist <= furthest]
        hits.sort(key=lambda each: (each.dist, each.record.id))
        return _part(hits, query.window)

    def _chosen(self, where: Predicate | None) -> list[Row]:
        rows = [row for row in self.rows.values() if where is None or matches(where, row.record)]
        rows.sort(key=lambda row: row.record.id)
        rows.sort(key=lambda row: row.record.created_at, reverse=True)
        return rows

    def _distance(self, one: Vector, other: Vector | None) -> float:
        assert other is not None
        a, b = one.tolist(), other.tolist()
        inner = sum(x * y for x, y in zip(a, b, strict=True))
        if self.metric is Metric.L2:
            return math.dist(a, b)
        return (
            1 - inner if self.metric is Metric.IP else 1 - inner / math.hypot(*a) / math.hypot(*b)
        )

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        if isinstance(error, EngineDownError):
            return BackendUnavailableError(f"the engine is down: {error}; start it")
        return None


class WordyBackend(DictBackend):
    """The same engine with words."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.KEYWORD_SEARCH, Capability.HYBRID_SEARCH})

    async def _rank_keyword(self, query: KeywordQuery) -> Ranking:
        scored = ((r, _share(query.keywords, r)) for r, _ in self._chosen(query.where))
        hits = [Hit(record, None, score) for record, score in scored if score]
        hits.sort(key=lambda each: (-(each.score or 0), each.record.id))
        return _part(hits, query.window)

    async def _rank_hybrid(self, query: HybridQuery) -> Ranking:
        hits = []
        for record, vector in self._chosen(query.where):
            dist = self._distance(query.vector, vector)
            words = _share(query.keywords, record)
            score = query.alpha * self.metric.score(dist) + (1 - query.alpha) * words
            hits.append(Hit(record, dist, score))
        hits.sort(key=lambda each: (-(each.score or 0), each.dist, each.record.id))
        return _part(hits, query.window)


def _share(keywords: Keywords, record: MemoryRecord) -> float:
    held = set(terms_of(record.text))
    return sum(term in held for term in keywords.terms) / max(1, len(keywords.terms))


def _part(hits: list[Hit], window: Window) -> Ranking:
    total = len(hits) if window.with_total else None
    return Ranking(hits[window.offset : window.offset + window.limit], total)


# --- embeddings and helpers ------------------------------------------------------------------


class LetterEmbeddings:
    """Counts letters: texts of the same letters have the same direction."""

    def __init__(self, model: str = "letters", dimensions: int = 4) -> None:
        self.model = model
        self.dimensions = dimensions
        self.batches: list[list[str]] = []
        self.queries: list[str] = []
        self.answer: Callable[[list[str]], Any] = lambda texts: [self.of(each) for each in texts]

    async def aembed_documents(self, texts: list[str]) -> Any:
        self.batches.append(list(texts))
        await asyncio.sleep(0)
        return self.answer(texts)

    async def aembed_query(self, text: str) -> Any:
        self.queries.append(text)
        await asyncio.sleep(0)
        return self.answer([text])[0]

    def of(self, text: str) -> list[float]:
        return [1.0 + text.count(chr(ord("a") + each)) for each in range(self.dimensions)]


def backend(kind: type[DictBackend] = DictBackend, **options: Any) -> DictBackend:
    server = options.pop("server", None) or Server()
    return kind(options.pop("embeddings", None) or LetterEmbeddings(), server, **options)


def letters(db: DictBackend) -> LetterEmbeddings:
    assert isinstance(db.embeddings, LetterEmbeddings)
    return db.embeddings


def record(name: str = "1", text: str = "a", **fields: Any) -> MemoryRecord:
    return MemoryRecord.model_validate({"id": name, "text": text, "created_at": NOON, **fields})


def many(count: int, **fields: Any) -> list[MemoryRecord]:
    return [record(f"{n:05}", "abcd"[n % 4] * (1 + n % 50), **fields) for n in range(count)]


def ids(page: MemoryRecordResults) -> list[str]:
    return [each.id for each in page.memories]


# --- validation of arguments -----------------------------------------------------------------

NUMBER = "expected a whole number of"
SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({"query": ""}, "query: it is blank; to read without a query use list_memories"),
    ({"query": " \n\u2003"}, "query: it is blank"),
    ({"query": None}, "query: expected a string, got NoneType"),
    ({"query": b"tea"}, "query: expected a string, got bytes"),
    ({"query": "a\ud800"}, "query: a lone surrogate at position 1"),
    ({"limit": 0}, f"limit=0: {NUMBER} 1 or more"),
    ({"limit": -1}, f"limit=-1: {NUMBER} 1 or more"),
    ({"limit": None}, f"limit=None: {NUMBER} 1 or more"),
    ({"limit": True}, f"limit=True: {NUMBER} 1 or more"),
    ({"limit": 1.0}, f"limit=1.0: {NUMBER} 1 or more"),
    ({"limit": "5"}, f"limit='5': {NUMBER} 1 or more"),
    ({"offset": -1}, f"offset=-1: {NUMBER} 0 or more"),
    ({"offset": None}, f"offset=None: {NUMBER} 0 or more"),
    ({"offset": False}, f"offset=False: {NUMBER} 0 or more"),
    ({"with_total": 1}, "with_total=1: expected True or False"),
    ({"with_total": None}, "with_total=None: expected True or False"),
    ({"search_mode": "keywords"}, "search_mode='keywords': did you mean 'keyword'?"),
    ({"search_mode": "vector"}, "search_mode='vector': "),
    ({"search_mode": None}, "search_mode=None: one of semantic, keyword, hybrid"),
    ({"search_mode": []}, "search_mode=[]: one of semantic, keyword, hybrid"),
    ({"distance_threshold": "1"}, "distance_threshold='1': expected a finite number"),
    ({"distance_threshold": True}, "distance_threshold=True: expected a finite number"),
    ({"distance_threshold": math.nan}, "distance_threshold=nan: expected a finite number"),
    ({"distance_threshold": math.inf}, "distance_threshold=inf: expected a finite number"),
    ({"distance_threshold": 10**400}, "expected a finite number"),
    ({"distance_threshold": 1, "search_mode": "keyword"}, "belongs to semantic search; a keyword"),
    ({"distance_threshold": 1, "search_mode": "hybrid"}, "belongs to semantic search; a hybrid"),
    ({"hybrid_alpha": 0.5}, "hybrid_alpha belongs to hybrid search, this is semantic"),
    ({"hybrid_alpha": 0.5, "search_mode": "keyword"}, "hybrid_alpha belongs to hybrid search"),
    ({"hybrid_alpha": 1.1, "search_mode": "hybrid"}, "hybrid_alpha=1.1: expected a number from 0"),
    ({"hybrid_alpha": -0.1, "search_mode": "hybrid"}, "hybrid_alpha=-0.1: expected a number from"),
    ({"hybrid_alpha": math.nan, "search_mode": "hybrid"}, "hybrid_alpha=nan: expected a finite"),
    ({"hybrid_alpha": "1", "search_mode": "hybrid"}, "hybrid_alpha='1': expected a finite number"),
    ({"recency": {}}, "recency: expected RecencyParams(...), got dict"),
    ({"recency": True}, "recency: expected RecencyParams(...), got bool"),
    ({"where": {"user_id": "ada"}}, "expected a filter such as UserId(eq='ada')"),
    ({"usr_id": "ada"}, "'usr_id' is no filter: did you mean 'user_id'?"),
    ({"user_id": None}, "user_id=None: leave user_id out"),
    ({"topics": []}, "Topics(any=...): an empty list"),
]


@pytest.mark.parametrize(
    ("wrong", "message"), SEARCHES, ids=[str(each)[:50] for each, _ in SEARCHES]
)
def test_a_wrong_search_is_refused_before_anything_is_done(
    wrong: dict[str, Any], message: str
) -> None:
    db = backend(WordyBackend)
    with pytest.raises(InvalidArgumentError) as caught:
        asyncio.run(db.search_memories(**{"query": "tea", **wrong}))
    assert message in str(caught.value)
    assert db.server.calls == []
    assert letters(db).queries == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        each
        for each in SEARCHES
        if not each[0].keys()
        & {"query", "search_mode", "distance_threshold", "hybrid_alpha", "recency", "with_total"}
    ],
    ids=str,
)
def test_a_wrong_listing_is_refused_before_anything_is_done(
    wrong: dict[str, Any], message: str
) -> None:
    db = backend()
    with pytest.raises(InvalidArgumentError) as caught:
        asyncio.run(db.list_memories(**wrong))
    assert message in str(caught.value)
    if wrong.keys() & {"limit", "offset"}:
        return
    with pytest.raises(InvalidArgumentError):
        asyncio.run(db.count_memories(**wrong))
    with pytest.raises(InvalidArgumentError):
        asyncio.run(anext(db.iter_memories(**wrong)))  # type: ignore[arg-type]
    assert db.server.calls == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("abc", "expected a list of ids, got str"),
        (None, "expected a list of ids, got NoneType"),
        (5, "expected a list of ids, got int"),
        ([5], "an id is a string, got 5 (int)"),
        (["a", None], "an id is a string, got None (NoneType)"),
        (["\ud800"], "the id '\\ud800': a lone surrogate at position 0"),
    ],
    ids=str,
)
def test_wrong_ids_are_refused(wrong: Any, message: str) -> None:
    db = backend()
    for call in (db.delete_memories, db.get_memories):
        with pytest.raises(InvalidArgumentError) as caught:
            asyncio.run(call(wrong))
        assert message in str(caught.value)
    assert db.server.calls == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "expected a list of records, got NoneType"),
        ("a", "expected a list of records, got str"),
        (record(), "expected a list of records, got MemoryRecord"),
        ([record(), {"id": "2", "text": "b"}], "expected a MemoryRecord, got dict"),
        ([None], "expected a MemoryRecord, got NoneType"),
    ],
)
def test_what_is_no_list_of_records_is_refused(wrong: Any, message: str) -> None:
    db = backend()
    for call in (db.add_memories, db.update_memories):
        with pytest.raises(InvalidArgumentError) as caught:
            asyncio.run(call(wrong))
        assert str(caught.value) == message
    assert db.server.calls == []


def _empty_topic(each: MemoryRecord) -> None:
    each.topics = ["tea"]
    each.topics.append("")


def _nan(each: MemoryRecord) -> None:
    each.metadata["a"] = math.nan


def _surrogate_key(each: MemoryRecord) -> None:
    each.metadata["\ud800"] = 1


def _blank_text(each: MemoryRecord) -> None:
    each.__dict__["text"] = " "


def _no_id(each: MemoryRecord) -> None:
    del each.__dict__["id"]


def _list_as_id(each: MemoryRecord) -> None:
    each.__dict__["id"] = []


@pytest.mark.parametrize(
    "spoil", [_empty_topic, _nan, _surrogate_key, _blank_text, _no_id, _list_as_id]
)
def test_a_record_that_became_invalid_in_place_is_refused(
    spoil: Callable[[MemoryRecord], None],
) -> None:
    db = backend()
    wrong = record("bad")
    spoil(wrong)
    for write in (db.add_memories, db.update_memories):
        with pytest.raises(InvalidArgumentError, match="became invalid") as caught:
            asyncio.run(write([record("good"), wrong]))
        assert caught.value.__cause__ is not None
    assert db.server.calls == []
    assert letters(db).batches == []


@pytest.mark.parametrize("space", ["", None, 5, b"x"])
def test_a_space_has_a_name(space: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="expected a name, a string that is not empty"):
        backend(space=space)


def test_a_space_has_a_name_that_engines_can_encode() -> None:
    with pytest.raises(InvalidArgumentError, match=r"space=.*surrogate"):
        backend(space="a\ud800")
    assert backend(space="a b/\x00\U0001f600").space == "a b/\x00\U0001f600"


def test_a_metric_is_one_of_three() -> None:
    assert backend(metric="l2").metric is Metric.L2
    with pytest.raises(InvalidArgumentError, match="metric='COS': expected one of cosine, l2, ip"):
        backend(metric="COS")


# --- adding ----------------------------------------------------------------------------------


def test_add_1_ids_in_the_order_given_and_nothing_for_nothing() -> None:
    db = backend()

    async def main() -> None:
        assert await db.add_memories([]) == []
        assert await db.update_memories([]) == 0
        assert await db.delete_memories([]) == 0
        assert await db.get_memories([]) == []
        assert letters(db).batches == []
        assert await db.add_memories((record("b"), record("a"))) == ["b", "a"]

    asyncio.run(main())
    assert db.server.calls == ["open", "put"]


def test_add_2_and_3_the_last_one_is_stored_whole() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record(user_id="ada", topics=["tea"])])
        twice = [record(text="b", user_id="eve"), record("2"), record(text="c")]
        assert await db.add_memories(twice) == ["1", "2", "1"]
        assert [each.text for each in await db.get_memories(["1", "2"])] == ["c", "a"]
        assert (await db.get_memories(["1"]))[0].user_id is None
        assert await db.count_memories() == 2
        assert letters(db).batches[-1] == ["c", "a"]

    asyncio.run(main())


def test_add_4_records_are_not_shared_in_either_direction() -> None:
    db = backend()
    mine = record(topics=["tea"], metadata={"a": [{"b": [1]}]}, memory_hash="mine")
    before = mine.model_copy(deep=True)

    async def main() -> None:
        await db.add_memories([mine])
        assert mine == before
        stored = (await db.get_memories(["1"]))[0]
        assert mine.topics is not None
        mine.topics.append("coffee")
        nested: Any = mine.metadata["a"]
        nested[0]["b"].append(2)
        assert (await db.get_memories(["1"]))[0] == stored
        assert stored.topics == ["tea"]
        assert stored.metadata == {"a": [{"b": [1]}]}

    asyncio.run(main())


def test_the_ids_returned_are_those_stored_whatever_happens_to_the_records_meanwhile() -> None:
    db = backend()
    mine = record("before")

    async def change(primitive: str) -> None:
        mine.id = "after"

    db.server.before = change
    assert asyncio.run(db.add_memories([mine])) == ["before"] == list(db.rows)


def test_a_result_can_be_stored_as_it_was_found() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record(user_id="ada")])
        found = (await db.search_memories("a")).memories[0]
        assert type(found) is MemoryRecordResult
        found.text = "b"
        assert await db.update_memories([found]) == 1
        assert await db.add_memories([found]) == ["1"]
        (stored,) = await db.get_memories(["1"])
        assert type(stored) is MemoryRecord
        assert (stored.text, stored.user_id) == ("b", "ada")

    asyncio.run(main())


def test_add_5_one_call_embeds_all_and_equal_texts_once() -> None:
    db = backend()
    texts = ["b", "a", "b", "c", "a"]

    async def main() -> None:
        await db.add_memories([record(str(n), text) for n, text in enumerate(texts)])

    asyncio.run(main())
    assert letters(db).batches == [["b", "a", "c"]]
    for number, text in enumerate(texts):
        vector = db.rows[str(number)].vector
        assert vector is not None
        assert vector.tolist() == letters(db).of(text)


def _raise(error: Exception) -> Callable[[list[str]], Any]:
    def answer(texts: list[str]) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_raise(RuntimeError("no network")), "'letters' failed: RuntimeError: no network"),
        (_raise(TimeoutError()), "'letters' failed: TimeoutError"),
        (_raise(EmbeddingError("quota used up")), "quota used up"),
        (lambda texts: [], "returned 0 vectors for 2 texts"),
        (lambda texts: [[1.0] * 4] * 3, "returned 3 vectors for 2 texts"),
        (lambda texts: [[1.0] * 4, [1.0] * 5], "returned 5 dimensions for 'b', expected 4"),
        (lambda texts: [[1.0] * 4, [1.0, math.nan, 1.0, 1.0]], "an infinite value or NaN for 'b'"),
        (lambda texts: [[1.0] * 4, [0.0] * 4], "a vector of zeros for 'b'"),
        (lambda texts: None, "returned a NoneType; expected a list of vectors"),
    ],
)
def test_add_6_embedding_succeeds_as_a_whole_or_nothing_is_stored(
    answer: Callable[[list[str]], Any], message: str
) -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record("old", "c")])
        before = dict(db.rows)
        letters(db).answer = answer
        for write in (
            db.add_memories([record("new", "a"), record("old", "b")]),
            db.scoped(user_id="ada").add_memories([record("new", "a"), record("new2", "b")]),
        ):
            with pytest.raises(EmbeddingError) as caught:
                await write
            assert message in str(caught.value)
            assert db.rows == before

    asyncio.run(main())
    assert db.server.calls == ["open", "put"]


def test_an_error_of_the_embeddings_keeps_its_cause() -> None:
    db = backend()
    error = OSError("connection reset")
    letters(db).answer = _raise(error)
    for call in (db.add_memories([record()]), db.search_memories("a")):
        with pytest.raises(EmbeddingError) as caught:
            asyncio.run(call)
        assert caught.value.__cause__ is error


def test_vectors_of_zeros_are_welcome_where_they_have_a_distance() -> None:
    db = backend(metric="l2")
    letters(db).answer = lambda texts: [[0.0] * 4 for _ in texts]

    async def main() -> None:
        await db.add_memories([record()])
        assert (await db.search_memories("a")).memories[0].dist == 0.0

    asyncio.run(main())


@patient
@given(st.text(min_size=1).filter(str.strip), st.none() | st.text(min_size=1))
def test_rec_4_the_hash_is_derived_on_every_write(text: str, user: str | None) -> None:
    db = backend()
    names = ("user_id", "session_id", "namespace")
    identity = {**dict.fromkeys(names, user), "text": text, "memory_type": "message"}
    expected = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    wrong = record(text=text, memory_hash="wrong", **dict.fromkeys(names, user))

    async def main() -> None:
        await db.add_memories([wrong])
        assert db.rows["1"].record.memory_hash == expected
        db.rows.clear()
        await db.add_memories([record(text="other")])
        await db.update_memories([wrong])
        assert db.rows["1"].record.memory_hash == expected
        assert await db.count_memories(memory_hash=expected) == 1

    asyncio.run(main())


# --- updating --------------------------------------------------------------------------------


def test_upd_1_and_2_existing_records_are_replaced_and_counted_once() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record("1", user_id="ada"), record("2")])
        updates = [record("1", "b"), record("missing"), record("1", "c"), record("2")]
        assert await db.update_memories(updates) == 2
        assert {each.id: each.text for each in await db.get_memories(["1", "2", "missing"])} == {
            "1": "c",
            "2": "a",
        }
        assert db.rows["1"].record.user_id is None

    asyncio.run(main())


def test_upd_3_only_a_changed_text_is_embedded_again() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record("1", "a"), record("2", "b")])
        vectors = {each: db.rows[each].vector for each in ("1", "2")}
        await db.update_memories([record("1", "c"), record("2", "b", pinned=True)])
        assert letters(db).batches[1:] == [["c"]]
        assert db.rows["2"].vector is vectors["2"]
        assert db.rows["2"].record.pinned
        changed = db.rows["1"].vector
        assert changed is not None
        assert changed.tolist() == letters(db).of("c")

    asyncio.run(main())


def test_updating_only_unknown_ids_reaches_the_engine_no_further_than_looking() -> None:
    db = backend()
    assert asyncio.run(db.update_memories([record("missing")])) == 0
    assert db.server.calls == ["open", "fetch"]


def test_an_update_whose_text_others_changed_meanwhile_embeds_after_all() -> None:
    db = backend()

    async def interfere(primitive: str) -> None:
        if primitive == "replace" and db.server.calls.count("replace") == 1:
            for each in ("1", "3"):
                other = record(each, "d")
                db.rows[each] = Row(other, memoryview(b"").cast("f"))

    async def main() -> None:
        await db.add_memories([record("1", "a"), record("2", "b"), record("3", "c")])
        db.server.before = interfere
        updates = [record(str(n), text, pinned=True) for n, text in enumerate("abc", 1)]
        assert await db.update_memories(updates) == 3

    asyncio.run(main())
    assert letters(db).batches[1:] == [["a", "c"]]
    for number, text in enumerate("abc", 1):
        stored, vector = db.rows[str(number)]
        assert (stored.text, stored.pinned) == (text, True)
        assert vector is not None
        assert vector.tolist() == letters(db).of(text)


def test_a_stale_update_whose_embedding_fails_raises() -> None:
    db = backend()

    async def interfere(primitive: str) -> None:
        if primitive == "replace":
            db.rows["1"] = Row(record("1", "d"), None)
            letters(db).answer = _raise(RuntimeError("gone"))

    async def main() -> None:
        await db.add_memories([record("1", "a")])
        db.server.before = interfere
        await db.update_memories([record("1", "a")])

    with pytest.raises(EmbeddingError, match="gone"):
        asyncio.run(main())


# --- scopes: one step of the engine ----------------------------------------------------------


def test_iso_4_a_taken_id_is_refused_by_the_engine_in_the_same_step() -> None:
    db = backend()

    async def arrive(primitive: str) -> None:
        if primitive == "put":  # another tenant, after any look that came first
            db.rows["1"] = Row(record("1", user_id="bob"), None)

    db.server.before = arrive
    with pytest.raises(ScopeError, match=r"1 id\(s\) belong to memories outside this scope"):
        asyncio.run(db.scoped(user_id="ada").add_memories([record("1"), record("2")]))
    assert list(db.rows) == ["1"]
    assert db.rows["1"].record.user_id == "bob"


def test_iso_3_a_scope_confines_writes() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record("1", user_id="ada"), record("2", user_id="bob")])
        ada = db.scoped(user_id="ada")
        assert await ada.add_memories([record("3")]) == ["3"]
        assert await ada.update_memories([record("1", "b"), record("2", "d"), record("4")]) == 1
        assert letters(db).batches[-1] == ["b"]
        assert db.rows["1"].record.user_id == "ada"
        assert db.rows["2"].record.text == "a"
        assert await ada.delete_memories(["1", "2", "3", "3"]) == 2
        assert list(db.rows) == ["2"]

    asyncio.run(main())


def test_a_scoped_iteration_never_yields_an_id_that_another_tenant_took_over() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories([record("1", user_id="ada"), record("2", user_id="ada")])

        async def take_over(primitive: str) -> None:
            if primitive == "fetch":
                db.rows["1"] = Row(record("1", user_id="bob"), None)

        db.server.before = take_over
        ada = db.scoped(user_id="ada")
        assert [each.id async for each in ada.iter_memories()] == ["2"]

    asyncio.run(main())


# --- paging ----------------------------------------------------------------------------------


@settings(patient, max_examples=60)
@given(st.integers(0, 12), st.integers(1, 6) | st.just(10**30), st.integers(0, 15) | st.just(2**70))
def test_lst_2_and_srch_3_a_page_tells_where_the_next_one_starts(
    count: int, limit: int, offset: int
) -> None:
    db = backend(WordyBackend)

    async def main() -> None:
        await db.add_memories([record(f"{n:02}", "a") for n in range(count)])
        everything = [f"{n:02}" for n in range(count)]
        expected = everything[offset : offset + limit]
        following = offset + limit if offset + limit < count else None
        searches: list[dict[str, Any]] = [
            {},
            {"search_mode": "keyword"},
            {"search_mode": "hybrid"},
            {"recency": RecencyParams(now=NOON)},
            {"recency": RecencyParams(now=NOON, candidates=3)},
        ]
        listing = await db.list_memories(limit=limit, offset=offset)
        assert (ids(listing), listing.total, listing.next_offset) == (expected, count, following)
        for search in searches:
            page = await db.search_memories("a", limit=limit, offset=offset, **search)
            assert (ids(page), page.total, page.next_offset) == (expected, count, following)
            page = await db.search_memories(
                "a", limit=limit, offset=offset, with_total=False, **search
            )
            assert (ids(page), page.total, page.next_offset) == (expected, None, following)

    asyncio.run(main())


def test_without_a_total_the_engine_is_asked_for_one_more_and_for_no_count() -> None:
    windows: list[Window] = []

    class Watched(DictBackend):
        async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
            windows.append(query.window)
            return await super()._rank_semantic(query)

    db = backend(Watched)

    async def main() -> None:
        await db.search_memories("a", limit=3, offset=6, with_total=False)
        await db.search_memories("a", limit=3, offset=6)
        assert windows == [Window(6, 3 + 1, False, probes=True), Window(6, 3, True)]

        windows.clear()  # with recency: the candidates, then no more than is missing of the page
        await db.add_memories(many(9))
        await db.search_memories("a", limit=3, offset=3, recency=RecencyParams(candidates=4))
        assert windows == [Window(0, 4, True), Window(4, 2, False)]

    asyncio.run(main())


@pytest.mark.parametrize(("offset", "following"), [(0, 3), (3, 6), (6, None)])
def test_an_engine_may_say_that_there_is_one_more_instead_of_returning_it(
    offset: int, following: int | None
) -> None:
    class Terse(DictBackend):
        async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
            hits, total, _ = await super()._rank_semantic(query)
            more = query.window.probes and len(hits) == query.window.limit
            return Ranking(hits[:-1] if more else hits, total, more)

    db = backend(Terse)

    async def main() -> None:
        await db.add_memories(many(8))
        page = await db.search_memories("a", limit=3, offset=offset, with_total=False)
        assert (len(page.memories), page.next_offset) == (min(3, 8 - offset), following)

    asyncio.run(main())


def test_an_empty_page_is_the_last_whatever_the_total_says() -> None:
    class Shrinking(DictBackend):
        async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
            return Listing([], 100)  # counted just before others deleted them

    page = asyncio.run(backend(Shrinking).list_memories(offset=50))
    assert (page.memories, page.next_offset) == ([], None)


def test_a_threshold_is_inclusive_and_bounds_the_total() -> None:
    db = backend(metric="l2")

    async def main() -> None:
        await db.add_memories([record(str(n), "a" * (n + 1)) for n in range(9)])
        page = await db.search_memories("a", limit=2, distance_threshold=4)
        assert (ids(page), page.total, page.next_offset) == (["0", "1"], 5, 2)
        assert (await db.search_memories("a", distance_threshold=0)).total == 1
        assert (await db.search_memories("a", distance_threshold=-1)).total == 0

    asyncio.run(main())


# --- searching -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "dist", "score"),
    [
        (Metric.COSINE, 0.0, 1.0),
        (Metric.COSINE, 0.25, 0.75),
        (Metric.COSINE, 2.0, 0.0),
        (Metric.COSINE, -1e-7, 1.0),
        (Metric.IP, -5.0, 1.0),
        (Metric.IP, 0.25, 0.75),
        (Metric.L2, 0.0, 1.0),
        (Metric.L2, 1.0, 0.5),
        (Metric.L2, 3.0, 0.25),
    ],
)
def test_a_distance_as_a_score(metric: Metric, dist: float, score: float) -> None:
    assert metric.score(dist) == score


def test_srch_1_results_say_how_they_were_found() -> None:
    db = backend(WordyBackend)

    async def main() -> None:
        await db.add_memories([record("1", "aaa"), record("2", "ddd")])
        (one, two) = (await db.search_memories("aaa")).memories
        assert (one.id, one.score_type) == ("1", ScoreType.SEMANTIC)
        assert one.dist == pytest.approx(0)
        assert two.dist is not None
        assert two.score == pytest.approx(1 - two.dist)
        (word,) = (await db.search_memories("aaa", search_mode="keyword")).memories
        assert (word.dist, word.score, word.score_type) == (None, 1.0, ScoreType.KEYWORD)
        both = (await db.search_memories("aaa", search_mode=SearchMode.HYBRID)).memories
        assert both[0].score_type is ScoreType.HYBRID
        (listed, _) = (await db.list_memories()).memories
        assert (listed.dist, listed.score, listed.score_type) == (None, None, None)

    asyncio.run(main())


def test_srch_5_a_query_embeds_once_and_one_for_words_alone_not_at_all() -> None:
    db = backend(WordyBackend)

    async def main() -> None:
        await db.add_memories(many(30))
        await db.search_memories("words", search_mode="keyword")
        assert letters(db).queries == []
        await db.search_memories("meaning", recency=RecencyParams(candidates=3))
        await db.search_memories("both", search_mode="hybrid")

    asyncio.run(main())
    assert letters(db).queries == ["meaning", "both"]


def test_the_weight_of_meaning_is_passed_on() -> None:
    weights: list[float] = []

    class Watched(WordyBackend):
        async def _rank_hybrid(self, query: HybridQuery) -> Ranking:
            weights.append(query.alpha)
            return await super()._rank_hybrid(query)

    db = backend(Watched)

    async def main() -> None:
        for alpha in (None, 0, 0.25, 1):
            await db.search_memories("a", search_mode="hybrid", hybrid_alpha=alpha)

    asyncio.run(main())
    assert weights == [0.7, 0.0, 0.25, 1.0]


@settings(patient, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=15),
    st.integers(1, 8),
    st.integers(1, 5),
    st.booleans(),
)
def test_rcy_2_candidates_are_ranked_by_recency_and_the_rest_follows_by_distance(
    some: list[tuple[int, int]], candidates: int, limit: int, with_total: bool
) -> None:
    db = backend(metric="l2")
    params = RecencyParams(now=NOON, candidates=candidates)
    records = [
        record(f"{n:02}", "a" * (1 + distance), created_at=when, last_accessed=when)
        for n, (distance, age) in enumerate(some)
        for when in [NOON - timedelta(days=age)]
    ]

    def rank(each: MemoryRecord) -> float:
        age = (NOON - each.created_at) / timedelta(days=1)
        recency = 0.6 * 2 ** (-age / 7) + 0.4 * 2 ** (-age / 30)
        return 0.8 / len(each.text) + 0.2 * recency  # 1 / (1 + dist), dist = letters too many

    nearest = sorted(records, key=lambda each: (len(each.text), each.id))
    first = sorted(nearest[:candidates], key=lambda each: -round(rank(each), 12))
    expected = [each.id for each in first + nearest[candidates:]]

    async def main() -> None:
        await db.add_memories(records)
        found: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = await db.search_memories(
                "a", limit=limit, offset=offset, recency=params, with_total=with_total
            )
            assert page.total == (len(records) if with_total else None)
            found += ids(page)
            offset = page.next_offset
        assert found == expected

    asyncio.run(main())


# --- capabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
def test_err_4_a_capability_that_was_not_declared_is_named(mode: Any) -> None:
    db = backend()
    with pytest.raises(UnsupportedCapabilityError) as caught:
        asyncio.run(db.search_memories("a", search_mode=mode))
    assert str(caught.value) == (
        f"DictBackend does not have the capability '{mode}_search'; it has none"
    )
    assert db.server.calls == []


@pytest.mark.parametrize("mode", ["keyword", "hybrid"])
def test_a_capability_that_was_declared_but_not_written_fails_loudly(mode: Any) -> None:
    class Boasting(DictBackend):
        @property
        def capabilities(self) -> frozenset[Capability]:
            return frozenset({Capability.KEYWORD_SEARCH, Capability.HYBRID_SEARCH})

    with pytest.raises(NotImplementedError, match=f"Boasting declares {mode}_search without"):
        asyncio.run(backend(Boasting).search_memories("a", search_mode=mode))


# --- opening and the fingerprint -------------------------------------------------------------


def test_life_1_creating_a_handle_reaches_nothing_and_many_first_calls_open_once() -> None:
    db = backend()
    assert db.server.calls == []

    async def main() -> None:
        await asyncio.gather(*(db.count_memories() for _ in range(50)), db.ping())

    asyncio.run(main())
    assert db.server.calls.count("open") == 1


def test_err_2_opening_is_tried_again_after_a_failure() -> None:
    db = backend()

    async def down(primitive: str) -> None:
        if primitive == "open":
            raise EngineDownError("refused")

    async def main() -> None:
        db.server.before = down
        answers = await asyncio.gather(
            *(db.count_memories() for _ in range(3)), return_exceptions=True
        )
        assert [type(each) for each in answers] == [BackendUnavailableError] * 3
        db.server.before = _nothing
        assert await db.count_memories() == 0

    asyncio.run(main())


def test_err_1_first_calls_that_wait_for_one_opening_share_its_failure() -> None:
    db = backend()

    async def slowly_down(primitive: str) -> None:
        if primitive == "open":
            await asyncio.sleep(0.01)
            raise EngineDownError("refused")

    async def main() -> None:
        db.server.before = slowly_down
        calls = [db.count_memories() for _ in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in answers} == {BackendUnavailableError}
        assert db.server.calls.count("open") == 1
        with pytest.raises(BackendUnavailableError):
            await db.count_memories()
        assert db.server.calls.count("open") == 2

    asyncio.run(main())


def test_what_a_failed_opening_left_behind_is_released() -> None:
    db = backend()

    async def down(primitive: str) -> None:
        if primitive == "open":
            raise EngineDownError("refused")

    db.server.before = down
    with pytest.raises(BackendUnavailableError):
        asyncio.run(db.count_memories())
    assert db.server.calls == ["open", "close"]


def test_conc_3_a_cancelled_first_call_leaves_the_handle_usable() -> None:
    db = backend()
    reached = asyncio.Event()

    async def hang(primitive: str) -> None:
        reached.set()
        await asyncio.sleep(60 if primitive == "open" else 0)

    async def main() -> None:
        db.server.before = hang
        first = asyncio.create_task(db.count_memories())
        await reached.wait()
        second = asyncio.create_task(db.count_memories())
        await asyncio.sleep(0)
        db.server.before = _nothing
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == 0
        assert await db.add_memories([record()]) == ["1"]

    asyncio.run(main())


def test_a_cancelled_write_leaves_the_handle_usable() -> None:
    db = backend()

    async def main() -> None:
        await db.ping()
        never = asyncio.Event()

        async def hang(primitive: str) -> None:
            await never.wait()

        db.server.before = hang
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(db.add_memories([record()]), 0.01)
        db.server.before = _nothing
        assert await db.count_memories() == 0
        assert await db.add_memories([record()]) == ["1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("other", "described"),
    [
        ({"embeddings": LetterEmbeddings(model="words")}, "'words', 4 dimensions, cosine"),
        ({"embeddings": LetterEmbeddings(dimensions=5)}, "'letters', 5 dimensions, cosine"),
        ({"metric": "l2"}, "'letters', 4 dimensions, l2"),
    ],
)
def test_life_4_a_space_of_other_vectors_is_refused_and_both_are_named(
    other: dict[str, Any], described: str
) -> None:
    server = Server()

    async def main() -> None:
        ours = backend(server=server)
        await ours.add_memories([record()])
        server.calls.clear()
        theirs = backend(server=server, **other)
        for call in (
            theirs.add_memories([record("2")]),
            theirs.search_memories("a"),
            theirs.count_memories(),
            theirs.ping(),
        ):
            with pytest.raises(EmbeddingMismatchError) as caught:
                await call
            assert "'letters', 4 dimensions, cosine" in str(caught.value)
            assert described in str(caught.value)
            assert "the space 'memory'" in str(caught.value)
        assert set(server.calls) == {"open", "close"}
        assert await ours.count_memories() == 1
        assert await backend(server=server, **other, space="another").count_memories() == 0

    asyncio.run(main())


@pytest.mark.parametrize("dimensions", [0, -1, None, 1.5, "4", True])
def test_embeddings_must_say_how_long_their_vectors_are(dimensions: Any) -> None:
    db = backend(embeddings=LetterEmbeddings(dimensions=dimensions))
    with pytest.raises(EmbeddingError, match="expected a whole number of 1 or more"):
        asyncio.run(db.count_memories())
    assert db.server.calls == []


def test_dimensions_are_read_outside_the_event_loop_and_their_failure_is_ours() -> None:
    class Unknown:
        model = "unknown"

        @property
        def dimensions(self) -> int:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            raise LookupError("ask somebody else")

    with pytest.raises(EmbeddingError, match="'unknown' failed: LookupError: ask somebody else"):
        asyncio.run(backend(embeddings=Unknown()).count_memories())


# --- closing ---------------------------------------------------------------------------------


def _every_call(db: Backend) -> Iterator[Awaitable[Any]]:
    yield db.add_memories([record()])
    yield db.add_memories([])
    yield db.update_memories([record()])
    yield db.update_memories([])
    yield db.delete_memories(["1"])
    yield db.delete_memories([])
    yield db.get_memories(["1"])
    yield db.get_memories([])
    yield db.count_memories()
    yield db.list_memories()
    yield db.search_memories("a")
    yield anext(db.iter_memories())
    yield db.ping()


@pytest.mark.parametrize("opened", [True, False])
def test_life_2_after_closing_every_call_says_so(opened: bool) -> None:
    db = backend()

    async def main() -> None:
        if opened:
            await db.ping()
        await db.aclose()
        await db.aclose()
        for call in _every_call(db):
            with pytest.raises(BackendClosedError, match="the space 'memory' is closed: create"):
                await call

    asyncio.run(main())
    assert db.server.calls.count("close") == 1


def test_async_with_closes() -> None:
    db = backend()

    async def main() -> None:
        async with db as same:
            assert same is db
            await db.ping()
        with pytest.raises(BackendClosedError):
            await db.ping()

    asyncio.run(main())
    assert db.server.calls[-1] == "close"


def test_every_caller_of_aclose_returns_only_once_it_is_closed() -> None:
    db = backend()
    released: list[str] = []

    async def slowly(primitive: str) -> None:
        await asyncio.sleep(0.02)
        released.append(primitive)

    async def close() -> None:
        await db.aclose()
        assert released == ["close"]

    async def main() -> None:
        await db.ping()
        db.server.before = slowly
        await asyncio.gather(close(), close(), close())

    asyncio.run(main())


def test_a_closing_that_was_cancelled_or_failed_can_be_repeated() -> None:
    db = backend()

    async def main() -> None:
        await db.ping()
        never = asyncio.Event()

        async def hang(primitive: str) -> None:
            await never.wait()

        async def fail(primitive: str) -> None:
            raise EngineDownError("reset")

        db.server.before = hang
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(db.aclose(), 0.01)
        with pytest.raises(BackendClosedError):
            await db.ping()
        db.server.before = fail
        with pytest.raises(BackendUnavailableError, match="reset"):
            await db.aclose()
        db.server.before = _nothing
        await db.aclose()
        await db.aclose()

    asyncio.run(main())
    assert db.server.calls.count("close") == 3


def test_closing_while_calls_run_ends_each_of_them_with_an_answer_or_our_error() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories(many(100))
        calls = [asyncio.ensure_future(call) for call in _every_call(db)]
        await asyncio.sleep(0)
        await db.aclose()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(outcome, BaseException) or isinstance(outcome, BackendClosedError)

    asyncio.run(main())


def test_closing_while_a_text_is_being_embedded_stores_nothing() -> None:
    embedding = asyncio.Event()

    class Slow(LetterEmbeddings):
        async def aembed_documents(self, texts: list[str]) -> Any:
            embedding.set()
            await asyncio.sleep(0.02)
            return await super().aembed_documents(texts)

    db = backend(embeddings=Slow())

    async def main() -> None:
        await db.ping()
        adding = asyncio.ensure_future(db.add_memories([record()]))
        await embedding.wait()
        await db.aclose()
        with pytest.raises(BackendClosedError):
            await adding

    asyncio.run(main())
    assert db.rows == {}


def test_closing_while_the_first_call_opens_waits_for_it() -> None:
    db = backend()

    opening = asyncio.Event()

    async def slowly(primitive: str) -> None:
        opening.set()
        await asyncio.sleep(0.02)

    async def main() -> None:
        db.server.before = slowly
        first = asyncio.ensure_future(db.count_memories())
        await opening.wait()
        await db.aclose()
        assert db.server.calls[0] == "open"
        assert db.server.calls[-1] == "close"
        (outcome,) = await asyncio.gather(first, return_exceptions=True)
        assert outcome == 0 or isinstance(outcome, BackendClosedError)

    asyncio.run(main())


# --- errors of the engine --------------------------------------------------------------------


def test_err_1_and_5_every_call_speaks_of_the_engine_in_our_terms_and_keeps_the_cause() -> None:
    db = backend()
    error = EngineDownError("refused")

    async def down(primitive: str) -> None:
        raise error

    async def main() -> None:
        await db.add_memories([record()])
        db.server.before = down
        calls = [
            db.add_memories([record()]),
            db.update_memories([record()]),
            db.delete_memories(["1"]),
            db.get_memories(["1"]),
            db.count_memories(),
            db.list_memories(),
            db.search_memories("a"),
            anext(db.iter_memories()),
            db.ping(),
        ]
        for call in calls:
            with pytest.raises(BackendUnavailableError, match="the engine is down: refused") as got:
                await call
            assert got.value.__cause__ is error
        db.server.before = _nothing
        assert await db.count_memories() == 1

    asyncio.run(main())


def test_an_exception_that_the_engine_does_not_know_passes_as_it_is() -> None:
    db = backend()

    async def broken(primitive: str) -> None:
        raise ZeroDivisionError("a bug")

    db.server.before = broken
    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(db.count_memories())


# --- iterating -------------------------------------------------------------------------------


def test_lst_5_iter_yields_what_stays_once_while_others_come_and_go() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories(many(1_200))

        async def disturb(primitive: str) -> None:
            number = db.server.calls.count("fetch")
            db.rows.pop(f"{number * 3:05}", None)
            db.rows[f"new {number}"] = Row(record(f"new {number}"), None)

        db.server.before = disturb
        yielded = [each.id async for each in db.iter_memories()]
        assert len(yielded) == len(set(yielded))
        assert set(yielded) >= {f"{n:05}" for n in range(12, 1_200)}

    asyncio.run(main())


def test_iter_filters_and_yields_in_the_order_of_a_listing() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories(
            [
                record(str(n), user_id="ada" if n % 2 else None, created_at=NOON + n * timedelta(1))
                for n in range(6)
            ]
        )
        assert [each.id async for each in db.iter_memories(user_id="ada")] == ["5", "3", "1"]
        where = UserId(exists=False) & ~Topics(eq="x")
        assert [each.id async for each in db.iter_memories(where=where)] == ["4", "2", "0"]

    asyncio.run(main())


# --- the event loop stays responsive ---------------------------------------------------------


@asynccontextmanager
async def turns() -> AsyncIterator[list[float]]:
    """Collect how long, in seconds, the event loop's thread computed between turns of a task.

    Its own computing time, so that neither a busy machine nor the work of other threads counts.
    """
    taken = [0.0]

    async def tick() -> None:
        while True:
            start = time.thread_time()
            await asyncio.sleep(0.001)
            taken.append(time.thread_time() - start)

    gc.collect()
    gc.disable()  # a collection stops every thread; what it costs is not the code's doing
    try:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        yield taken
        await asyncio.sleep(0.01)
        ticking.cancel()
    finally:
        gc.enable()


def test_conc_3_big_batches_do_not_block_the_event_loop() -> None:
    metadata = {f"key {n}": [n, {"text": "x" * 20}] for n in range(30)}
    records = many(10_000, metadata=metadata, topics=["a", "b", "c"])
    db = backend()

    async def main() -> None:
        await db.ping()
        async with turns() as taken:
            await db.add_memories(records)
        assert max(taken) < 0.1

    asyncio.run(main())
    assert len(db.rows) == 10_000


def test_conc_3_big_pages_and_many_candidates_do_not_block_the_event_loop() -> None:
    hits = [Hit(record(f"{n:06}"), n * 1e-6) for n in range(50_000)]

    class Fast(DictBackend):
        async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
            return _part(hits, query.window)

        async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
            return Listing([each.record for each in hits], len(hits))

    db = backend(Fast)
    params = RecencyParams(candidates=50_000)

    async def main() -> None:
        await db.ping()
        for call in (
            db.list_memories(limit=50_000),
            db.search_memories("a", limit=50_000),
            db.search_memories("a", limit=1, recency=params),
        ):
            async with turns() as taken:
                await call
            assert max(taken) < 0.1

    asyncio.run(main())


def test_a_long_query_does_not_block_the_event_loop() -> None:
    db = backend()

    async def main() -> None:
        await db.ping()
        async with turns() as taken:
            await db.search_memories("word " * 400_000)
        assert max(taken) < 0.1

    asyncio.run(main())


def test_conc_1_many_searches_and_writes_at_once_all_succeed() -> None:
    db = backend()

    async def main() -> None:
        await db.add_memories(many(20))
        writes = (db.add_memories([record(f"new {n}")]) for n in range(300))
        searches = (db.search_memories("a", limit=1) for _ in range(300))
        await asyncio.gather(*writes, *searches)
        assert await db.count_memories() == 320

    asyncio.run(main())

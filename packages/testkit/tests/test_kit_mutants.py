"""Backends with one planted bug each: every one must fail in the rule named beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings

from agent_memory import (
    AgentMemoryError,
    Capability,
    Expression,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    expression_from_json,
)
from agent_memory.scope import Scope
from agent_memory_testkit import ConformanceFailure, ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.reference import Entry, Hit, ReferenceDatabase
from agent_memory_testkit.rules import rule_of_test

MUTANTS: list[tuple[type[ReferenceDatabase], str]] = []


def fails(rule: str) -> Callable[[type[ReferenceDatabase]], type[ReferenceDatabase]]:
    """Plant a class among the mutants."""

    def decorate(mutant: type[ReferenceDatabase]) -> type[ReferenceDatabase]:
        MUTANTS.append((mutant, rule))
        return mutant

    return decorate


# --- records -----------------------------------------------------------------------------------


@fails("REC-1")
class ReadsNoneAsEmptyList(ReferenceDatabase):
    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        copy.topics = copy.topics or []
        return copy


@fails("REC-1")
class KeepsMilliseconds(ReferenceDatabase):
    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        moment = copy.last_accessed
        copy.last_accessed = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        return copy


@fails("REC-2")
class TrimsTags(ReferenceDatabase):
    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        copy.namespace = (copy.namespace or "").strip() or None
        return copy


class _FoldsBeforeMatching(ReferenceDatabase):
    def _matching(self, condition: Expression | None) -> list[Entry]:
        folded = {
            memory_id: Entry(_with_folded_user(each.record), each.vector)
            for memory_id, each in self._entries.items()
        }
        whole, self._entries = self._entries, folded
        try:
            return [whole[each.record.id] for each in super()._matching(condition)]
        finally:
            self._entries = whole


def _with_folded_user(record: MemoryRecord) -> MemoryRecord:
    return record.model_copy(update={"user_id": record.user_id and record.user_id.lower()})


@fails("ISO-2")
class FoldsCaseOfUsers(_FoldsBeforeMatching):
    pass


@fails("REC-4")
class KeepsTheCallersHash(ReferenceDatabase):
    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        copy.memory_hash = record.memory_hash or copy.memory_hash
        return copy


# --- writing -----------------------------------------------------------------------------------


@fails("ADD-1")
class ReturnsEachIdOnce(ReferenceDatabase):
    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return list(dict.fromkeys(await super().add_memories(memories)))


@fails("ADD-2")
class MergesFields(ReferenceDatabase):
    def _put(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            stored = self._entries.get(entry.record.id)
            if stored is not None and entry.record.user_id is None:
                entry.record.user_id = stored.record.user_id
        super()._put(entries)


@fails("ADD-3")
class KeepsTheFirstOfARepeatedId(ReferenceDatabase):
    def _checked(self, memories: object) -> dict[str, MemoryRecord]:
        if isinstance(memories, list):
            memories = memories[::-1]
        return super()._checked(memories)


@fails("ADD-4")
class SetsTheHashOnTheCallersRecord(ReferenceDatabase):
    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        record.memory_hash = record.compute_hash()
        return super()._stored_form(record)


@fails("ADD-5")
class EmbedsOneByOne(ReferenceDatabase):
    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        return [(await super(EmbedsOneByOne, self)._embedded([text]))[0] for text in texts]


@fails("ADD-6")
class DoesNotLookAtVectors(ReferenceDatabase):
    def _check_vectors(self, vectors: Sequence[tuple[float, ...]], count: int) -> None:
        pass


@fails("ADD-6")
class StoresBeforeEmbedding(ReferenceDatabase):
    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        for at in range(0, len(memories), 100):
            await super().add_memories(memories[at : at + 100])
        return [each.id for each in memories]


@fails("ADD-7")
class CountsFromACache(ReferenceDatabase):
    _cached: int | None = None

    async def count_memories(self, *, where: Expression | None = None, **filters: Any) -> int:
        if where is not None or filters:
            return await super().count_memories(where=where, **filters)
        if self._cached is None:
            self._cached = await super().count_memories()
        return self._cached


@fails("ADD-8")
class CapsCountsAtOneThousand(ReferenceDatabase):
    async def count_memories(self, **filters: Any) -> int:
        return min(1_000, await super().count_memories(**filters))


@fails("UPD-1")
class ReturnsTheLengthOfTheList(ReferenceDatabase):
    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        await super().update_memories(memories)
        return len(memories)


@fails("UPD-2")
class CreatesWhatItShouldUpdate(ReferenceDatabase):
    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        replaced = await super().update_memories(memories)
        await self.add_memories(memories)
        return replaced


@fails("UPD-3")
class KeepsTheOldVector(ReferenceDatabase):
    def _changed(self, records: Any) -> list[MemoryRecord]:
        return []

    def _replace(self, records: Any, vectors: Any) -> int | None:
        old = {
            each.text: self._entries[each.id].vector
            for each in records.values()
            if each.id in self._entries
        }
        return super()._replace(records, old)


@fails("DEL-1")
class DeletesOnlyTheFirst(ReferenceDatabase):
    def _remove(self, memory_ids: Iterable[str]) -> int:
        return super()._remove(list(memory_ids)[:1])


@fails("DEL-2")
class DeletesByPrefix(ReferenceDatabase):
    def _remove(self, memory_ids: Iterable[str]) -> int:
        wanted = tuple(memory_ids)
        return super()._remove([each for each in self._entries if each.startswith(wanted)])


# --- reading -----------------------------------------------------------------------------------


@fails("GET-1")
class GetsInItsOwnOrder(ReferenceDatabase):
    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return await super().get_memories(sorted(memory_ids))


@fails("CNT-2")
class CountsAFailureAsZero(ReferenceDatabase):
    async def count_memories(self, **filters: Any) -> int:
        try:
            return await super().count_memories(**filters)
        except AgentMemoryError:
            return 0


@fails("LST-1")
class ListsBySecond(ReferenceDatabase):
    def _listed(self, entries: Sequence[Entry]) -> list[Entry]:
        by_id = sorted(entries, key=lambda each: each.record.id)
        return sorted(
            by_id, key=lambda each: each.record.created_at.replace(microsecond=0), reverse=True
        )


class _ChangesPages(ReferenceDatabase):
    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        return self._changed_page(await super().list_memories(**arguments))

    def _changed_page(self, page: MemoryRecordResults) -> MemoryRecordResults:
        raise NotImplementedError


@fails("LST-2")
class GivesTheSizeOfThePageAsTotal(_ChangesPages):
    def _changed_page(self, page: MemoryRecordResults) -> MemoryRecordResults:
        page.total = len(page.memories)
        return page


@fails("LST-2")
class NeverSetsTheNextOffset(_ChangesPages):
    def _changed_page(self, page: MemoryRecordResults) -> MemoryRecordResults:
        page.next_offset = None
        return page


@fails("LST-4")
class TakesALimitOfZeroForNone(ReferenceDatabase):
    async def list_memories(self, *, limit: int = 100, **arguments: Any) -> MemoryRecordResults:
        return await super().list_memories(limit=limit or 100, **arguments)


@fails("LST-5")
class IteratesByOffset(ReferenceDatabase):
    async def iter_memories(self, **filters: Any) -> AsyncIterator[MemoryRecord]:
        offset: int | None = 0
        while offset is not None:
            page = await self.list_memories(limit=500, offset=offset, **filters)
            for each in page.memories:
                yield each.to_record()
            offset = page.next_offset


# --- searching ---------------------------------------------------------------------------------


@fails("SRCH-1")
class TakesTheInnerProductForTheCosine(ReferenceDatabase):
    def _distance(self, left: tuple[float, ...], right: tuple[float, ...]) -> float:
        return 1.0 - sum(a * b for a, b in zip(left, right, strict=True))


@fails("SRCH-1")
class HalvesTheCosineDistance(ReferenceDatabase):
    def _distance(self, left: tuple[float, ...], right: tuple[float, ...]) -> float:
        return super()._distance(left, right) / 2


@fails("SRCH-2")
class FiltersAfterwards(ReferenceDatabase):
    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        near = super()._nearest(list(self._entries.values()), vector, threshold)[:1_000]
        wanted = {each.record.id for each in entries}
        return [each for each in near if each.entry.record.id in wanted]


def _dist(hit: Hit) -> float:
    assert hit.dist is not None
    return hit.dist


@fails("SRCH-3")
class BreaksTiesByTheLimit(ReferenceDatabase):
    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        self._backwards = arguments.get("limit", 10) % 2 == 1
        return await super().search_memories(query, **arguments)

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        if self._backwards:
            hits.reverse()
            hits.sort(key=_dist)
        return hits


@fails("SRCH-4")
class ExcludesTheThreshold(ReferenceDatabase):
    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        return [each for each in hits if threshold is None or _dist(each) < threshold]


@fails("SRCH-5")
class EmbedsAgainForTheCount(ReferenceDatabase):
    async def _embedded_query(self, text: str) -> tuple[float, ...]:
        await super()._embedded_query(text)
        return await super()._embedded_query(text)


@fails("SRCH-6")
class MissesSomeOfTheNearest(ReferenceDatabase):
    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        return hits[:3] + hits[4:] if len(hits) > 1_000 else hits


@fails("SRCH-7")
class FindsPhrasesAsWords(ReferenceDatabase):
    def _by_words(self, entries: Sequence[Entry], query: str) -> list[Hit]:
        return super()._by_words(entries, query.replace('"', " "))


@fails("SRCH-8")
class WeighsTheWrongWayRound(ReferenceDatabase):
    def _weighed(self, alpha: float, *arguments: Any) -> float:
        return super()._weighed(1 - alpha, *arguments)


@fails("RCY-1")
class CountsTheFuture(ReferenceDatabase):
    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        far = recency.model_copy(update={"now": recency.reference_time().replace(year=9990)})
        return super()._by_recency(hits, far)


@fails("RCY-2")
class RanksByRecencyInsideThePage(ReferenceDatabase):
    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        ranked: list[Hit] = []
        for at in range(0, len(hits), 10):
            ranked += super()._by_recency(hits[at : at + 10], recency)
        return ranked


# --- filters -----------------------------------------------------------------------------------


class _RewritesFilters(ReferenceDatabase):
    """Evaluates the JSON form of every filter after changing it."""

    def _matching(self, condition: Expression | None) -> list[Entry]:
        if condition is not None:
            condition = expression_from_json(self._rewritten(condition.to_json_value()))
        return super()._matching(condition)

    def _rewritten(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: self._operators(key, inner)
                if key not in ("and", "or", "not")
                else self._rewritten(inner)
                for key, inner in value.items()
            }
        return [self._rewritten(each) for each in value]

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


@fails("FLT-1")
class TakesAllForAny(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {("any" if name == "all" else name): each for name, each in operators.items()}


@fails("FLT-2")
class DropsMissingFromNe(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {**operators, "exists": True} if "ne" in operators else operators


@fails("FLT-3")
class TakesAnEmptyListForAValue(ReferenceDatabase):
    def _matching(self, condition: Expression | None) -> list[Entry]:
        entries = super()._matching(condition)
        if condition is not None and condition.to_json_value() == {"topics": {"exists": True}}:
            entries += [e for e in self._entries.values() if e.record.topics == []]
        return entries


@fails("FLT-4")
class ComparesSeconds(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        if field != "event_date":
            return operators
        return {
            name: each[:19] + "Z" if isinstance(each, str) and name != "inclusive" else each
            for name, each in operators.items()
        }


@fails("FLT-4")
class IncludesBothEnds(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in operators.items() if name != "inclusive"}


@fails("FLT-5")
class UsesTheLastOperatorAlone(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        name, value = list(operators.items())[-1]
        return operators if name == "inclusive" else {name: value}


@fails("FLT-7")
class IgnoresUnknownFilters(ReferenceDatabase):
    async def count_memories(self, *, where: Expression | None = None, **filters: Any) -> int:
        filters.pop("usr_id", None)
        return await super().count_memories(where=where, **filters)


@fails("FLT-8")
class ReadsAStarAsEverything(_RewritesFilters):
    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {"exists": True} if operators.get("eq") == "*" else operators


@fails("FLT-9")
class NegatesWithoutTheMissing(ReferenceDatabase):
    def _matching(self, condition: Expression | None) -> list[Entry]:
        entries = super()._matching(condition)
        if condition is not None and "not" in condition.to_json_value():
            return [each for each in entries if each.record.topics is not None]
        return entries


# --- spaces, tenants, handles ------------------------------------------------------------------


@fails("ISO-1")
class FoldsTheNameOfTheSpace(ReferenceDatabase):
    def __init__(self, embeddings: Any, *, space: str, **options: Any) -> None:
        super().__init__(embeddings, space=space.lower(), **options)


@fails("ISO-3")
class DeletesById(ReferenceDatabase):
    async def _delete_within(self, memory_ids: Sequence[str], scope: Scope) -> int:
        return await self.delete_memories(list(memory_ids))


@fails("ISO-4")
class ReplacesOtherTenantsRecords(ReferenceDatabase):
    async def _add_within(self, memories: list[MemoryRecord], scope: Scope) -> list[str]:
        return await self.add_memories(memories)


@fails("LIFE-1")
class ConnectsWhenCreated(ReferenceDatabase):
    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        sqlite3.connect(":memory:").close()


@fails("LIFE-2")
class StaysOpen(ReferenceDatabase):
    async def aclose(self) -> None:
        pass


@fails("LIFE-3")
class ForgetsDeletes(ReferenceDatabase):
    def _remove(self, memory_ids: Iterable[str]) -> int:
        gone = [each for each in set(memory_ids) if self._entries.pop(each, None)]
        return len(gone)


@fails("LIFE-4")
class DoesNotRememberTheModel(ReferenceDatabase):
    def _fingerprint(self) -> str:
        return f"{self.embeddings.dimensions} dimensions"


@fails("CONC-1")
class LosesOverlappingWrites(ReferenceDatabase):
    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        before = self._entries
        self._entries = dict(before)
        ids = await super().add_memories(memories)
        await asyncio.sleep(0)
        self._entries = {**before, **{each: self._entries[each] for each in set(ids)}}
        return ids


@fails("CONC-2")
class WritesTagsAfterwards(ReferenceDatabase):
    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        ids = await super().add_memories(memories)
        await self._write_tags(memories)
        return ids

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        replaced = await super().update_memories(memories)
        await self._write_tags(memories)
        return replaced

    async def _write_tags(self, memories: list[MemoryRecord]) -> None:
        for each in memories:
            version = each.metadata.get("version")
            await asyncio.sleep((60 - version) / 500 if isinstance(version, int) else 0)
            if each.id in self._entries:
                self._entries[each.id].record.topics = each.topics


@fails("CONC-3")
class KeepsTheLockWhenCancelled(ReferenceDatabase):
    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        self._writing = asyncio.Lock()

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        await self._writing.acquire()
        ids = await super().add_memories(memories)
        self._writing.release()
        return ids


@fails("ERR-4")
class FallsBackToMeaning(ReferenceDatabase):
    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - {Capability.KEYWORD_SEARCH}

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if arguments.get("search_mode") == "keyword":
            del arguments["search_mode"]
        return await super().search_memories(query, **arguments)


@fails("ERR-5")
class LosesTheCause(ReferenceDatabase):
    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        try:
            return await super()._embedded(texts)
        except AgentMemoryError as error:
            error.__cause__ = None
            raise


# --- the trial ---------------------------------------------------------------------------------


def suite_of(mutant: type[ReferenceDatabase]) -> type[ConformanceSuite]:
    """Return the conformance suite on a class of backends."""
    lacks_words = mutant is FallsBackToMeaning
    off = {"keyword_search": Unsupported("left out")} if lacks_words else {}

    class Suite(ConformanceSuite):
        profile = Profile(mutant.__name__, off=off)

        async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
            return mutant(embeddings, space=space, directory=self.directory)

    return Suite


NEEDS_ANOTHER_PROCESS = (
    "test_life_1_many_processes_at_once",
    "test_life_3_what_was_acknowledged_survives_kill_9",
    "test_life_3_other_handles_and_processes_see_it",
)
"""Another process cannot import the classes made here."""
READS_MANY_RECORDS = (
    "test_cnt_1_the_count_is_exact_above_ten_thousand",
    "test_cnt_1_counting_transfers_no_records",
    "test_lst_3_an_offset_of_fifty_thousand_works",
    "test_srch_6_recall_under_a_filter_that_keeps_one_percent",
    "test_conc_3_no_call_blocks_the_event_loop",
)
"""Too slow to be repeated for each mutant."""


def names_of_tests(rule: str) -> list[str]:
    """Return the names of a rule's tests that can be tried on a mutant."""
    left_out = {*NEEDS_ANOTHER_PROCESS, *READS_MANY_RECORDS}
    return [
        name
        for name in dir(ConformanceSuite)
        if name.startswith("test_") and rule_of_test(name) == rule and name not in left_out
    ]


def failures_of(suite: type[ConformanceSuite], names: Sequence[str]) -> list[str]:
    """Run tests of a suite; return what they say that fail."""
    said = []
    suite.setup_class()
    try:
        for name in names:
            try:
                getattr(suite(), name)()
            except ConformanceFailure as failure:
                said.append(str(failure))
    finally:
        suite.teardown_class()
    return said


@pytest.fixture(autouse=True)
def _without_shrinking() -> Iterator[None]:
    """The first example that fails is as good as a small one here, and it is always the same."""
    before = settings.default
    settings.register_profile(
        "first failure", phases=[Phase.generate], database=None, derandomize=True
    )
    settings.load_profile("first failure")
    yield
    settings.register_profile("as before", before)
    settings.load_profile("as before")


@pytest.mark.parametrize(
    ("mutant", "rule"), MUTANTS, ids=[mutant.__name__ for mutant, _ in MUTANTS]
)
def test_a_mutant_fails_in_its_rule(mutant: type[ReferenceDatabase], rule: str) -> None:
    said = failures_of(suite_of(mutant), names_of_tests(rule))
    assert said, f"{mutant.__name__} passes {rule}"
    assert all(each.startswith(f"{rule} broken by {mutant.__name__}") for each in said)
    assert all("should be:" in each and "calls (the last" in each for each in said)


@pytest.mark.parametrize("mutant", [KeepsTheOldVector, ReplacesOtherTenantsRecords, ListsBySecond])
def test_the_state_machine_finds_mutants_too(mutant: type[ReferenceDatabase]) -> None:
    said = failures_of(suite_of(mutant), ["test_all_methods_agree_with_the_model"])
    assert f"broken by {mutant.__name__}" in said[0]

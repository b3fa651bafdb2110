"""Backends with one planted bug each, with the rule in which each of them must fail.

They are subclasses of the kit's own reference. A class's docstring tells its bug; ``planted``
names the rule that it breaks. `kill_score` runs the suite on them. Mutants of a backend on a
network are in `network_mutants`.
"""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import sys
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, TypeVar

from agent_memory import (
    AgentMemoryError,
    BackendUnavailableError,
    Capability,
    Expression,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    SearchMode,
    Topics,
    expression_from_json,
)
from agent_memory.database import outside_scope
from agent_memory.filters import FILTERS, combined
from agent_memory.predicates import matches, predicate_of
from agent_memory.scope import Scope, ScopedMemories
from agent_memory_testkit import ConformanceSuite, Profile, Unsupported
from agent_memory_testkit.large import LargeSpace, Open
from agent_memory_testkit.reference import Entry, Hit, ReferenceDatabase
from agent_memory_testkit.suite.base import new_space_name

M = TypeVar("M", bound=type[MemoryVectorDatabase])

LARGE = 51_000
"""As many records as the suite's large space has."""


@dataclass(frozen=True)
class Mutant:
    """A backend with a planted bug."""

    name: str
    bug: str
    """In words."""
    rule: str
    """The id of the rule that it breaks."""
    suite: type[ConformanceSuite]
    """The conformance suite on it."""


MUTANTS: list[Mutant] = []


def planted(
    rule: str, *, suite: type[ConformanceSuite] | None = None, lacks: Sequence[Capability] = ()
) -> Callable[[M], M]:
    """Put a class among the mutants; ``lacks`` is what its profile says that it cannot do."""

    def decorate(backend: M) -> M:
        base = Trial if suite is None else suite
        off = {**base.profile.off, **{each.value: Unsupported("left out") for each in lacks}}
        profile = Profile(backend.__name__, off=off, network=base.profile.network)
        name = f"On{backend.__name__}"
        members = {"backend": backend, "profile": profile, "__module__": backend.__module__}
        trial: type[ConformanceSuite] = type(name, (base,), members)
        # Under its own name at the top of the module, so that another process can import it.
        setattr(sys.modules[backend.__module__], name, trial)
        bug = " ".join((backend.__doc__ or "").split())
        MUTANTS.append(Mutant(backend.__name__, bug, rule, trial))
        return backend

    return decorate


class Trial(ConformanceSuite):
    """The conformance suite on a mutant of the reference."""

    profile = Profile("reference")
    backend: ClassVar[type[ReferenceDatabase]] = ReferenceDatabase

    async def open(self, space: str, embeddings: Any) -> ReferenceDatabase:
        return self.backend(embeddings, space=space, directory=self.directory)

    async def clean_up(self, space: str, embeddings: Any) -> None:
        (await self.open(space, embeddings)).drop()

    def large_space(self) -> LargeSpace:
        """As in the suite, but written by the correct backend, and once for all mutants."""
        cls = type(self)
        if cls._large is None:
            cls._large = _WrittenSpace(self.open, self.clean_up, new_space_name(), LARGE)
        return cls._large


class _WrittenSpace(LargeSpace):
    """A large space that is there already."""

    async def _filled(self, open_space: Open) -> MemoryVectorDatabase:
        db = await open_space(self.name, self.embeddings)
        assert isinstance(db, ReferenceDatabase)
        db._entries = _large_entries(self).copy()
        return db


_entries_of_large_space: dict[str, Entry] = {}


def _large_entries(large: LargeSpace) -> dict[str, Entry]:
    if not _entries_of_large_space:
        for number in range(large.size):
            record = large.record(number)
            record.memory_hash = record.compute_hash()
            vector = large.embeddings.document_vector(record.text)
            _entries_of_large_space[record.id] = Entry(record, vector)
    return _entries_of_large_space


# --- ways to plant bugs --------------------------------------------------------------------------


class _StoresOtherwise(ReferenceDatabase):
    """Changes each record on its way in."""

    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        self._change(copy)
        return copy

    def _change(self, record: MemoryRecord) -> None:
        raise NotImplementedError


class _IndexesOtherwise(ReferenceDatabase):
    """Asks other filters of other records than those that there are."""

    def _matching(self, condition: Expression | None) -> list[Entry]:
        if condition is None:
            return super()._matching(None)
        asked = predicate_of(expression_from_json(self._rewritten(condition.to_json_value())))
        return [
            each for each in self._entries.values() if matches(asked, self._indexed(each.record))
        ]

    def _rewritten(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: self._rewritten(inner)
                if key in ("and", "or", "not")
                else self._operators(key, inner)
                for key, inner in value.items()
            }
        return [self._rewritten(each) for each in value]

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return operators

    def _indexed(self, record: MemoryRecord) -> MemoryRecord:
        return record


class _FindsOtherwise(ReferenceDatabase):
    """Decides about each record by a function of its own, where a filter has one operator."""

    def _matching(self, condition: Expression | None) -> list[Entry]:
        entries = super()._matching(condition)
        asked = {} if condition is None else condition.to_json_value()
        for field, operators in asked.items():
            if field in FILTERS and len(operators) == 1:
                [(name, operand)] = operators.items()
                decide = self._decision(field, name, operand)
                if decide is not None:
                    return [each for each in self._entries.values() if decide(each.record)]
        return entries

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        raise NotImplementedError


def _values(record: MemoryRecord, field: str) -> list[str]:
    value = getattr(record, field)
    return value if isinstance(value, list) else [] if value is None else [str(value)]


def _is_like(value: str, pattern: str) -> bool:
    """Tell whether ``value`` meets a LIKE pattern."""
    wildcards = {"%": ".*", "_": "."}
    return bool(
        re.fullmatch("".join(wildcards.get(e, re.escape(e)) for e in pattern), value, re.DOTALL)
    )


class _PagesOtherwise(ReferenceDatabase):
    """Changes each page of a list on its way out."""

    async def list_memories(
        self, *, limit: int = 100, offset: int = 0, **arguments: Any
    ) -> MemoryRecordResults:
        page = await super().list_memories(limit=limit, offset=offset, **arguments)
        self._change(page, limit, offset)
        return page

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        raise NotImplementedError


def _dist(hit: Hit) -> float:
    assert hit.dist is not None
    return hit.dist


# --- records -------------------------------------------------------------------------------------


@planted("REC-1")
class ReadsNoneAsEmptyList(_StoresOtherwise):
    """topics that are None come back as []."""

    def _change(self, record: MemoryRecord) -> None:
        record.topics = record.topics or []


@planted("REC-1")
class KeepsMilliseconds(_StoresOtherwise):
    """last_accessed is kept to the millisecond."""

    def _change(self, record: MemoryRecord) -> None:
        moment = record.last_accessed
        record.last_accessed = moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@planted("REC-1")
class JoinsListsWithCommas(_StoresOtherwise):
    """entities are stored as one string with commas between them."""

    def _change(self, record: MemoryRecord) -> None:
        if record.entities:
            record.entities = [each for each in ",".join(record.entities).split(",") if each]


@planted("REC-1")
class NormalisesTexts(_StoresOtherwise):
    """Texts are normalised to NFC."""

    def _change(self, record: MemoryRecord) -> None:
        record.text = unicodedata.normalize("NFC", record.text)


@planted("REC-1")
class CutsLongTexts(_StoresOtherwise):
    """Texts are cut after 65,535 characters."""

    def _change(self, record: MemoryRecord) -> None:
        record.text = record.text[:65_535]


@planted("REC-1")
class CutsTextsAtNul(_StoresOtherwise):
    """Texts end at the first NUL."""

    def _change(self, record: MemoryRecord) -> None:
        record.text = record.text.partition("\0")[0] or record.text


@planted("REC-1")
class DropsNullsInMetadata(_StoresOtherwise):
    """Keys of metadata whose value is null are dropped."""

    def _change(self, record: MemoryRecord) -> None:
        record.metadata = {key: each for key, each in record.metadata.items() if each is not None}


@planted("REC-2")
class FoldsTheCaseOfTags(_IndexesOtherwise):
    """The index of user_id ignores case."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        if field != "user_id" or "eq" not in operators:
            return operators
        return {**operators, "eq": operators["eq"].lower()}

    def _indexed(self, record: MemoryRecord) -> MemoryRecord:
        return record.model_copy(update={"user_id": record.user_id and record.user_id.lower()})


@planted("REC-2")
class TrimsTagsInTheIndex(_IndexesOtherwise):
    """The index of namespace trims blanks."""

    def _indexed(self, record: MemoryRecord) -> MemoryRecord:
        trimmed = (record.namespace or "").strip() or record.namespace
        return record.model_copy(update={"namespace": trimmed})


@planted("REC-2")
class SplitsTagsAtCommas(_FindsOtherwise):
    """The index of session_id splits values at commas."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if (field, operator) != ("session_id", "eq"):
            return None
        return lambda record: (
            operand == record.session_id or operand in (record.session_id or "").split(",")
        )


@planted("REC-3")
class TakesDictsForRecords(ReferenceDatabase):
    """add_memories builds records out of dicts, without validating them."""

    def _checked(self, memories: object) -> dict[str, MemoryRecord]:
        if isinstance(memories, list):
            memories = [
                MemoryRecord.model_construct(**each) if isinstance(each, dict) else each
                for each in memories
            ]
        return super()._checked(memories)

    async def add_memories(self, memories: list[Any]) -> list[str]:
        return await super().add_memories([e for e in memories if not isinstance(e, dict)])


@planted("REC-3")
class StoresWhatBecameInvalid(ReferenceDatabase):
    """Records are not validated again when they are written."""

    def _valid(self, record: MemoryRecord) -> MemoryRecord:
        return record


@planted("REC-4")
class KeepsTheHashOnUpdate(ReferenceDatabase):
    """memory_hash is not renewed by an update."""

    def _replace(self, records: Mapping[str, MemoryRecord], vectors: Any) -> int | None:
        for memory_id, record in records.items():
            if memory_id in self._entries:
                record.memory_hash = self._entries[memory_id].record.memory_hash
        return super()._replace(records, vectors)


@planted("REC-4")
class KeepsTheCallersHash(ReferenceDatabase):
    """A memory_hash that the caller gives is stored as it is."""

    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = super()._stored_form(record)
        copy.memory_hash = record.memory_hash or copy.memory_hash
        return copy


# --- add_memories --------------------------------------------------------------------------------


@planted("ADD-1")
class ReturnsEachIdOnce(ReferenceDatabase):
    """An id given twice in one call is returned once."""

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return list(dict.fromkeys(await super().add_memories(memories)))


@planted("ADD-1")
class EmbedsAnEmptyList(ReferenceDatabase):
    """The embeddings are called for no texts, too."""

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        if not memories:
            await self._embedded([])
        return await super().add_memories(memories)


@planted("ADD-2")
class MergesFields(ReferenceDatabase):
    """A user_id that is None leaves the stored one as it was."""

    def _put(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            stored = self._entries.get(entry.record.id)
            if stored is not None and entry.record.user_id is None:
                entry.record.user_id = stored.record.user_id
        super()._put(entries)


@planted("ADD-3")
class KeepsTheFirstOfARepeatedId(ReferenceDatabase):
    """Of an id given twice in one call the first record is stored."""

    def _checked(self, memories: object) -> dict[str, MemoryRecord]:
        return super()._checked(memories[::-1] if isinstance(memories, list) else memories)


@planted("ADD-4")
class SetsTheHashOnTheCallersRecord(ReferenceDatabase):
    """memory_hash is set on the record that the caller handed in."""

    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        record.memory_hash = record.compute_hash()
        return super()._stored_form(record)


@planted("ADD-4")
class HandsOutWhatItStores(ReferenceDatabase):
    """get_memories returns the stored objects themselves."""

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        known = await super().get_memories(memory_ids)
        return [self._entries[each.id].record for each in known]


@planted("ADD-5")
class EmbedsOneByOne(ReferenceDatabase):
    """Each text is embedded by a call of its own."""

    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        return [(await super(EmbedsOneByOne, self)._embedded([text]))[0] for text in texts]


@planted("ADD-6")
class DoesNotLookAtVectors(ReferenceDatabase):
    """Vectors are stored whatever their number, size and values."""

    def _check_vectors(self, vectors: Sequence[tuple[float, ...]], count: int) -> None:
        pass


@planted("ADD-6")
class StoresBeforeAllIsEmbedded(ReferenceDatabase):
    """Records are embedded and stored in batches of 100."""

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        for at in range(0, len(memories), 100):
            await super().add_memories(memories[at : at + 100])
        return [each.id for each in memories]


@planted("ADD-7")
class IteratesFromACache(ReferenceDatabase):
    """iter_memories remembers what it gave for the same filters."""

    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        self._cached: dict[str, list[MemoryRecord]] = {}

    async def iter_memories(self, **filters: Any) -> AsyncIterator[MemoryRecord]:
        key = repr(filters)
        if key not in self._cached:
            self._cached[key] = [each async for each in super().iter_memories(**filters)]
        for each in self._cached[key]:
            yield each


@planted("ADD-8")
class CapsCountsAtOneThousand(ReferenceDatabase):
    """count_memories never gives more than 1,000."""

    async def count_memories(self, **filters: Any) -> int:
        return min(1_000, await super().count_memories(**filters))


@planted("ADD-8")
class StoresFiveThousandAtMost(ReferenceDatabase):
    """Of one call the first 5,000 records are stored."""

    def _put(self, entries: Sequence[Entry]) -> None:
        super()._put(entries[:5_000])


# --- update_memories, delete_memories, get_memories ----------------------------------------------


@planted("UPD-1")
class MergesOnUpdate(ReferenceDatabase):
    """An update leaves stored topics as they were if it brings none."""

    def _replace(self, records: Mapping[str, MemoryRecord], vectors: Any) -> int | None:
        for memory_id, record in records.items():
            if record.topics is None and memory_id in self._entries:
                record.topics = self._entries[memory_id].record.topics
        return super()._replace(records, vectors)


@planted("UPD-2")
class CreatesWhatItShouldUpdate(ReferenceDatabase):
    """An update of an unknown id creates a record (a ghost)."""

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        replaced = await super().update_memories(memories)
        await self.add_memories(memories)
        return replaced


@planted("UPD-2")
class CountsUnknownUpdates(ReferenceDatabase):
    """update_memories returns the length of its list."""

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        await super().update_memories(memories)
        return len(memories)


@planted("UPD-3")
class KeepsTheOldVector(ReferenceDatabase):
    """An update changes the text and leaves the vector."""

    def _changed(self, records: Any) -> list[MemoryRecord]:
        return []

    def _replace(self, records: Any, vectors: Any) -> int | None:
        old = {
            each.text: self._entries[each.id].vector
            for each in records.values()
            if each.id in self._entries
        }
        return super()._replace(records, old)


@planted("UPD-3")
class EmbedsUnchangedTextsAgain(ReferenceDatabase):
    """An update embeds all texts, the unchanged ones too."""

    def _changed(self, records: Mapping[str, MemoryRecord]) -> list[MemoryRecord]:
        return [each for each in records.values() if each.id in self._entries]


@planted("DEL-1")
class DeletesOnlyTheFirst(ReferenceDatabase):
    """Of several ids the first one is deleted."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        return super()._remove(list(memory_ids)[:1])


@planted("DEL-1")
class CountsUnknownDeletes(ReferenceDatabase):
    """delete_memories returns the number of ids."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        ids = list(memory_ids)
        super()._remove(ids)
        return len(ids)


@planted("DEL-2")
class DeletesByPrefix(ReferenceDatabase):
    """Deleting an id deletes all that begin with it."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        wanted = tuple(memory_ids)
        return super()._remove([each for each in self._entries if each.startswith(wanted)])


@planted("DEL-2")
class DeletesByLikePattern(ReferenceDatabase):
    """An id to delete is read as a LIKE pattern."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        found = []
        for wanted in memory_ids:
            is_pattern = "%" in wanted or "_" in wanted
            found += [e for e in self._entries if _is_like(e, wanted)] if is_pattern else [wanted]
        return super()._remove(found)


@planted("DEL-3")
class DeletesOneThousandAtMost(ReferenceDatabase):
    """Of one call the first 1,000 ids are deleted."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        return super()._remove(list(memory_ids)[:1_000])


@planted("GET-1")
class GetsInTheOrderOfIds(ReferenceDatabase):
    """get_memories gives records in the order of their ids."""

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return await super().get_memories(sorted(memory_ids))


@planted("GET-1")
class StopsAtTheFirstMissingId(ReferenceDatabase):
    """get_memories ends at the first id that there is not."""

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        found = await super().get_memories(memory_ids)
        known = {each.id for each in found}
        missing = [at for at, each in enumerate(memory_ids) if each not in known]
        return await super().get_memories(memory_ids[: missing[0]]) if missing else found


# --- count_memories, list_memories, iter_memories ------------------------------------------------


@planted("CNT-1")
class CapsCountsAtTenThousand(ReferenceDatabase):
    """count_memories never gives more than 10,000."""

    async def count_memories(self, **filters: Any) -> int:
        return min(10_000, await super().count_memories(**filters))


@planted("CNT-1")
class CountsByReading(ReferenceDatabase):
    """count_memories with a filter reads all matches and takes their number."""

    async def count_memories(self, **filters: Any) -> int:
        if not filters:
            return await super().count_memories()
        return len((await self.list_memories(limit=10**9, **filters)).memories)


@planted("CNT-2")
class CountsAFailureAsZero(ReferenceDatabase):
    """count_memories returns 0 if it fails."""

    async def count_memories(self, **filters: Any) -> int:
        try:
            return await super().count_memories(**filters)
        except AgentMemoryError:
            return 0


@planted("LST-1")
class ListsBySecond(ReferenceDatabase):
    """The order of a list looks at whole seconds."""

    def _listed(self, entries: Sequence[Entry]) -> list[Entry]:
        by_id = sorted(entries, key=lambda each: each.record.id)
        return sorted(
            by_id, key=lambda each: each.record.created_at.replace(microsecond=0), reverse=True
        )


@planted("LST-1")
class ListsIdsWithoutCase(ReferenceDatabase):
    """Records of one moment are listed by id without regard to case."""

    def _listed(self, entries: Sequence[Entry]) -> list[Entry]:
        by_id = sorted(entries, key=lambda each: each.record.id.lower())
        return sorted(by_id, key=lambda each: each.record.created_at, reverse=True)


@planted("LST-2")
class GivesTheSizeOfThePageAsTotal(_PagesOtherwise):
    """total is the number of records on the page."""

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        page.total = len(page.memories)


@planted("LST-2")
class CapsTotalsAtTenThousand(_PagesOtherwise):
    """total of a list never is more than 10,000."""

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        page.total = min(10_000, page.total or 0)


@planted("LST-2")
class NeverSetsTheNextOffset(_PagesOtherwise):
    """next_offset is always None."""

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        page.next_offset = None


@planted("LST-2")
class SetsTheNextOffsetOneTooFar(_PagesOtherwise):
    """next_offset skips one record."""

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        page.next_offset = page.next_offset and page.next_offset + 1


@planted("LST-2")
class ChangesTheOrderBetweenPages(ReferenceDatabase):
    """After the first page, records of one moment come in the opposite order."""

    _first = True

    async def list_memories(self, *, offset: int = 0, **arguments: Any) -> MemoryRecordResults:
        self._first = offset == 0
        return await super().list_memories(offset=offset, **arguments)

    def _listed(self, entries: Sequence[Entry]) -> list[Entry]:
        listed = super()._listed(entries)
        if self._first:
            return listed
        listed.reverse()
        return sorted(listed, key=lambda each: each.record.created_at, reverse=True)


@planted("LST-3")
class LimitsTheOffset(_PagesOtherwise):
    """A list ends at an offset of 10,000."""

    def _change(self, page: MemoryRecordResults, limit: int, offset: int) -> None:
        if offset > 10_000:
            page.memories, page.next_offset = [], None


@planted("LST-3")
class ReadsWhatItSkips(ReferenceDatabase):
    """A page far down costs as much as all before it, which is read and thrown away."""

    async def list_memories(
        self, *, limit: int = 100, offset: int = 0, **arguments: Any
    ) -> MemoryRecordResults:
        if offset >= 50_000:
            await super().list_memories(limit=offset, **arguments)
        return await super().list_memories(limit=limit, offset=offset, **arguments)


@planted("LST-4")
class TakesALimitOfZeroForNone(ReferenceDatabase):
    """A limit of 0 is no limit."""

    async def list_memories(self, *, limit: int = 100, **arguments: Any) -> MemoryRecordResults:
        return await super().list_memories(limit=limit or 100, **arguments)


@planted("LST-5")
class IteratesByOffset(ReferenceDatabase):
    """iter_memories follows offsets, which shift under deletes."""

    async def iter_memories(self, **filters: Any) -> AsyncIterator[MemoryRecord]:
        offset: int | None = 0
        while offset is not None:
            page = await self.list_memories(limit=500, offset=offset, **filters)
            for each in page.memories:
                yield each.to_record()
            offset = page.next_offset


@planted("LST-5")
class IteratesByTime(ReferenceDatabase):
    """iter_memories goes on from the time and id of the last record that it gave."""

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Any
    ) -> AsyncIterator[MemoryRecord]:
        condition = combined(where, filters)
        last: MemoryRecord | None = None
        while True:
            batch = await self._locked(lambda: self._listed_after(last, condition))  # noqa: B023
            for each in batch:
                yield each
            if not batch:
                return
            last = batch[-1]

    def _listed_after(
        self, last: MemoryRecord | None, condition: Expression | None
    ) -> list[MemoryRecord]:
        listed = [each.record for each in self._listed(self._matching(condition))]
        if last is not None:
            end = (last.created_at, last.id)
            listed = [
                each
                for each in listed
                if each.created_at < end[0] or (each.created_at == end[0] and each.id > end[1])
            ]
        return [each.model_copy(deep=True) for each in listed[:200]]


# --- search_memories -----------------------------------------------------------------------------


@planted("SRCH-1")
class TakesTheInnerProductForTheCosine(ReferenceDatabase):
    """The distance is 1 - inner product, of vectors of any length."""

    def _distance(self, left: tuple[float, ...], right: tuple[float, ...]) -> float:
        return 1.0 - sum(a * b for a, b in zip(left, right, strict=True))


@planted("SRCH-1")
class HalvesTheCosineDistance(ReferenceDatabase):
    """The distance is (1 - cos) / 2."""

    def _distance(self, left: tuple[float, ...], right: tuple[float, ...]) -> float:
        return super()._distance(left, right) / 2


@planted("SRCH-1")
class LeavesTiesAsInserted(ReferenceDatabase):
    """Records at one distance come in the order of insertion."""

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = {e.entry.record.id: e for e in super()._nearest(entries, vector, threshold)}
        ids = [each.record.id for each in entries if each.record.id in hits]
        return sorted((hits[each] for each in ids), key=_dist)


@planted("SRCH-1")
class EmbedsTextsWithoutCase(ReferenceDatabase):
    """Texts of one call that differ in case alone are embedded once."""

    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        unique = {each.casefold(): each for each in texts}
        vectors = dict(zip(unique, await super()._embedded(list(unique.values())), strict=True))
        return [vectors[each.casefold()] for each in texts]


@planted("SRCH-2")
class FiltersAfterwards(ReferenceDatabase):
    """The nearest 1,000 are found first and filtered then."""

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        if len(entries) > 1_000:
            return super()._nearest(entries, vector, threshold)
        near = super()._nearest(list(self._entries.values()), vector, threshold)[:1_000]
        wanted = {each.record.id for each in entries}
        return [each for each in near if each.entry.record.id in wanted]


@planted("SRCH-3")
class BreaksManyTiesByTheLimit(ReferenceDatabase):
    """Among more than 50 matches, ties are broken by what the limit happens to keep."""

    _backwards = False

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        self._backwards = arguments.get("limit", 10) % 2 == 1
        return await super().search_memories(query, **arguments)

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        if self._backwards and 50 < len(hits) < 100:
            hits.reverse()
            hits.sort(key=_dist)
        return hits


@planted("SRCH-3")
class EndsWithoutATotal(ReferenceDatabase):
    """With with_total=False there never is a next page."""

    async def search_memories(
        self, query: str, *, with_total: bool = True, **arguments: Any
    ) -> MemoryRecordResults:
        page = await super().search_memories(query, with_total=with_total, **arguments)
        if not with_total:
            page.next_offset = None
        return page


@planted("SRCH-3")
class CountsWordsAnyway(ReferenceDatabase):
    """with_total=False is ignored by keyword search."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if arguments.get("search_mode") == "keyword":
            arguments.pop("with_total", None)
        return await super().search_memories(query, **arguments)


@planted("SRCH-3")
class CapsTotalsOfSearches(ReferenceDatabase):
    """total of a search never is more than 10,000."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        page = await super().search_memories(query, **arguments)
        page.total = page.total and min(10_000, page.total)
        return page


@planted("SRCH-4")
class ExcludesTheThreshold(ReferenceDatabase):
    """A record at exactly the threshold is not found."""

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        return [each for each in hits if threshold is None or _dist(each) < threshold]


@planted("SRCH-4")
class CountsBeyondTheThreshold(ReferenceDatabase):
    """total counts what lies beyond the threshold, too."""

    async def search_memories(
        self, query: str, *, distance_threshold: float | None = None, **arguments: Any
    ) -> MemoryRecordResults:
        page = await super().search_memories(
            query, distance_threshold=distance_threshold, **arguments
        )
        if distance_threshold is not None and page.total is not None:
            page.total = (await super().search_memories(query, **arguments)).total
        return page


@planted("SRCH-5")
class EmbedsAgainForTheCount(ReferenceDatabase):
    """A query is embedded twice."""

    async def _embedded_query(self, text: str) -> tuple[float, ...]:
        await super()._embedded_query(text)
        return await super()._embedded_query(text)


@planted("SRCH-5")
class ReadsABlankQueryAsEverything(ReferenceDatabase):
    """A blank query lists."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        return await super().search_memories(query if query.strip() else "everything", **arguments)


@planted("SRCH-6")
class MissesSomeOfTheNearest(ReferenceDatabase):
    """Among more than 1,000 records the fourth nearest is missed."""

    def _nearest(self, entries: Sequence[Entry], vector: Any, threshold: Any) -> list[Hit]:
        hits = super()._nearest(entries, vector, threshold)
        return [*hits[:3], *hits[4:], hits[3]] if len(hits) > 1_000 else hits


@planted("SRCH-7")
class FindsPhrasesAsWords(ReferenceDatabase):
    """Quotes in a keyword query are ignored."""

    def _by_words(self, entries: Sequence[Entry], query: str) -> list[Hit]:
        return super()._by_words(entries, query.replace('"', " "))


@planted("SRCH-7")
class StemsWords(ReferenceDatabase):
    """A query for "window" finds "windows"."""

    def _by_words(self, entries: Sequence[Entry], query: str) -> list[Hit]:
        hits = super()._by_words(entries, query)
        found = {each.entry.record.id for each in hits}
        plural = super()._by_words(entries, query.replace("window", "windows"))
        return [*hits, *(each for each in plural if each.entry.record.id not in found)]


@planted("SRCH-7")
class LeavesOutStopWords(ReferenceDatabase):
    """A query for "the" finds nothing."""

    def _by_words(self, entries: Sequence[Entry], query: str) -> list[Hit]:
        words = [each for each in query.split() if each.lower() not in ("the", "not")]
        return super()._by_words(entries, " ".join(words))


@planted("SRCH-8")
class WeighsTheWrongWayRound(ReferenceDatabase):
    """hybrid_alpha weighs the words."""

    def _weighed(self, alpha: float, *arguments: Any) -> float:
        return super()._weighed(1 - alpha, *arguments)


@planted("SRCH-8")
class RanksOnlyWhatHoldsTheWords(ReferenceDatabase):
    """Hybrid search leaves out records without the words."""

    def _by_both(
        self, entries: Sequence[Entry], vector: tuple[float, ...], query: str, alpha: float
    ) -> list[Hit]:
        words = {each.entry.record.id for each in self._by_words(entries, query)}
        hits = super()._by_both(entries, vector, query, alpha)
        return [each for each in hits if each.entry.record.id in words]


@planted("SRCH-8")
class WeighsWordsByTheBestOfTheSpace(ReferenceDatabase):
    """The best match of the words has 1.0 in hybrid search, also where a filter leaves it out."""

    def _by_both(
        self, entries: Sequence[Entry], vector: tuple[float, ...], query: str, alpha: float
    ) -> list[Hit]:
        inside = {each.record.id for each in entries}
        hits = super()._by_both([*self._entries.values()], vector, query, alpha)
        return [each for each in hits if each.entry.record.id in inside]


# --- recency -------------------------------------------------------------------------------------


@planted("RCY-1")
class CountsTheFuture(ReferenceDatabase):
    """Ages are measured from a day far in the future."""

    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        far = recency.model_copy(update={"now": recency.reference_time().replace(year=9990)})
        return super()._by_recency(hits, far)


@planted("RCY-1")
class DecaysByE(ReferenceDatabase):
    """Recency falls to 1/e in a half-life."""

    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        changed = recency.model_copy(
            update={
                name: getattr(recency, name) * math.log(2)
                for name in ("half_life_last_access_days", "half_life_created_days")
            }
        )
        return super()._by_recency(hits, changed)


@planted("RCY-2")
class RanksByRecencyInsideThePage(ReferenceDatabase):
    """Each ten of the nearest are ranked by recency among themselves."""

    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        ranked: list[Hit] = []
        for at in range(0, len(hits), 10):
            ranked += super()._by_recency(hits[at : at + 10], recency)
        return ranked


# --- filters -------------------------------------------------------------------------------------


@planted("FLT-1")
class TakesAllForAny(_IndexesOtherwise):
    """all accepts a list that holds one of the values."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {("any" if name == "all" else name): each for name, each in operators.items()}


@planted("FLT-1")
class ReadsAPrefixAsAPattern(_FindsOtherwise):
    """startswith is a LIKE pattern whose prefix is not escaped."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if operator != "startswith":
            return None
        return lambda record: any(_is_like(v, f"{operand}%") for v in _values(record, field))


@planted("FLT-2")
class DropsMissingFromNe(_IndexesOtherwise):
    """ne refuses records without the field."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {**operators, "exists": True} if "ne" in operators else operators


@planted("FLT-2")
class AsksForNoneInChunks(_FindsOtherwise):
    """none of more than 20 values is asked in chunks, one of which suffices."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if operator != "none" or len(operand) <= 20:
            return None
        chunks = [set(operand[at : at + 20]) for at in range(0, len(operand), 20)]
        return lambda record: any(not chunk & set(_values(record, field)) for chunk in chunks)


@planted("FLT-3")
class TakesAMarkerForMissing(_FindsOtherwise):
    """A missing value is stored as "__none__", like a value that is "__none__"."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if operator != "exists" or field not in ("user_id", "topics"):
            return None
        return lambda record: bool(set(_values(record, field)) - {"__none__"}) == operand


@planted("FLT-3")
class TakesAnEmptyListForAValue(_FindsOtherwise):
    """exists accepts an empty list."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if operator != "exists" or field != "topics":
            return None
        return lambda record: (record.topics is not None) == operand


@planted("FLT-4")
class ComparesSeconds(_IndexesOtherwise):
    """event_date is compared by whole seconds of the bound."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        if field != "event_date":
            return operators
        return {
            name: each[:19] + "Z" if isinstance(each, str) and name != "inclusive" else each
            for name, each in operators.items()
        }


@planted("FLT-4")
class IncludesBothEnds(_IndexesOtherwise):
    """between includes both ends, whatever inclusive says."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in operators.items() if name != "inclusive"}


@planted("FLT-4")
class LosesMicrosecondsFarAway(_IndexesOtherwise):
    """Times are floating-point seconds, which hold no microseconds after the year 9000."""

    def _indexed(self, record: MemoryRecord) -> MemoryRecord:
        if record.created_at.year < 9_000:
            return record
        rounded = record.created_at.replace(microsecond=record.created_at.microsecond // 32 * 32)
        return record.model_copy(update={"created_at": rounded})


@planted("FLT-5")
class UsesTheLastOperatorAlone(_IndexesOtherwise):
    """Of two bounds on one field the last one counts."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        name, value = list(operators.items())[-1]
        return operators if name == "inclusive" else {name: value}


@planted("FLT-5")
class ForgetsValuesAfterAHundred(_IndexesOtherwise):
    """Of a list of values in a filter the first 100 count."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {
            name: each[:100] if isinstance(each, list) else each for name, each in operators.items()
        }


@planted("FLT-5")
class CountsByWhereAlone(ReferenceDatabase):
    """count_memories ignores filters by keyword beside where."""

    async def count_memories(self, *, where: Expression | None = None, **filters: Any) -> int:
        if where is not None:
            return await super().count_memories(where=where)
        return await super().count_memories(**filters)


@planted("FLT-6")
class TakesAListForAll(ReferenceDatabase):
    """topics=["a", "b"] asks for both."""

    async def count_memories(self, **filters: Any) -> int:
        return await super().count_memories(**_all_topics(filters))

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        return await super().list_memories(**_all_topics(arguments))

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        return await super().search_memories(query, **_all_topics(arguments))


def _all_topics(arguments: dict[str, Any]) -> dict[str, Any]:
    topics = arguments.get("topics")
    return {**arguments, "topics": Topics(all=topics)} if isinstance(topics, list) else arguments


@planted("FLT-7")
class IgnoresUnknownFilters(ReferenceDatabase):
    """search_memories ignores filters of a name that there is not."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        known = {name: each for name, each in arguments.items() if name != "usr_id"}
        return await super().search_memories(query, **known)


@planted("FLT-8")
class ReadsAnyAsPatterns(_FindsOtherwise):
    """any of one value with a percent sign or an underscore is a LIKE pattern."""

    def _decision(
        self, field: str, operator: str, operand: Any
    ) -> Callable[[MemoryRecord], bool] | None:
        if operator != "any" or len(operand) > 1 or not {"%", "_"} & set(operand[0]):
            return None
        return lambda record: any(_is_like(value, operand[0]) for value in _values(record, field))


@planted("FLT-8")
class ReadsAStarAsEverything(_IndexesOtherwise):
    """A filter for "*" accepts every value."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return {"exists": True} if operators.get("eq") == "*" else operators


@planted("FLT-9")
class UsesThreeOperatorsAtMost(_IndexesOtherwise):
    """Of the operators of one filter the first three count."""

    def _operators(self, field: str, operators: dict[str, Any]) -> dict[str, Any]:
        return dict(list(operators.items())[:3])


@planted("FLT-9")
class NegatesWithoutTheMissing(ReferenceDatabase):
    """~ drops records without topics."""

    def _matching(self, condition: Expression | None) -> list[Entry]:
        entries = super()._matching(condition)
        if condition is not None and "not" in condition.to_json_value():
            return [each for each in entries if each.record.topics is not None]
        return entries


# --- isolation -----------------------------------------------------------------------------------


@planted("ISO-1")
class FoldsTheNameOfTheSpace(ReferenceDatabase):
    """Spaces whose names differ in case are one."""

    def __init__(self, embeddings: Any, *, space: str, **options: Any) -> None:
        super().__init__(embeddings, space=space.lower(), **options)


@planted("ISO-1")
class CutsTheNameOfTheSpace(ReferenceDatabase):
    """The name of a space ends at a colon."""

    def __init__(self, embeddings: Any, *, space: str, **options: Any) -> None:
        super().__init__(embeddings, space=space.partition(":")[0], **options)


@planted("ISO-1")
class MakesNamesOfFilesSafe(ReferenceDatabase):
    """In the name of a space, all but letters and digits become underscores."""

    def __init__(self, embeddings: Any, *, space: str, **options: Any) -> None:
        super().__init__(embeddings, space=re.sub(r"\W", "_", space), **options)


@planted("ISO-2")
class ScopesWithoutCase(ReferenceDatabase):
    """get_memories of a scoped handle compares users without regard to case."""

    def scoped(self, **fields: Any) -> ScopedMemories:
        return _ScopedWithoutCase(self, Scope.of(**fields))


class _ScopedWithoutCase(ScopedMemories):
    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        found = await self._open_database().get_memories(memory_ids)
        user = self.scope.fields.get("user_id", "")
        return [
            each
            for each in found
            if self.scope.contains(each) or (user and (each.user_id or "").lower() == user.lower())
        ]


@planted("ISO-3")
class RestampsOthersRecords(ReferenceDatabase):
    """A record of another tenant is stamped with the scope instead of refused."""

    def scoped(self, **fields: Any) -> ScopedMemories:
        return _ScopedStamping(self, Scope.of(**fields))


class _ScopedStamping(ScopedMemories):
    def _stamped(self, memories: object) -> list[MemoryRecord]:
        assert isinstance(memories, list)
        fields = dict(self.scope.fields)
        return [each.model_copy(update=fields) for each in memories]


@planted("ISO-3")
class DeletesById(ReferenceDatabase):
    """A scoped delete deletes by id, whosoever the record is."""

    async def _delete_within(self, memory_ids: Sequence[str], scope: Scope) -> int:
        return await self.delete_memories(list(memory_ids))


@planted("ISO-3")
class SearchesByWordsEverywhere(ReferenceDatabase):
    """A keyword search of a scoped handle forgets the scope."""

    def scoped(self, **fields: Any) -> ScopedMemories:
        return _ScopedButForWords(self, Scope.of(**fields))


class _ScopedButForWords(ScopedMemories):
    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if arguments.get("search_mode") == "keyword":
            return await self._open_database().search_memories(query, **arguments)
        return await super().search_memories(query, **arguments)


@planted("ISO-4")
class ReplacesOtherTenantsRecords(ReferenceDatabase):
    """A scoped add replaces a record that another tenant holds."""

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope | None) -> list[str]:
        return await super()._add_within(memories, None)


@planted("ISO-4")
class LooksBeforeItWrites(ReferenceDatabase):
    """A scoped add looks who holds the ids, and then writes without looking again."""

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope | None) -> list[str]:
        if scope is not None:
            held = await self.get_memories([each.id for each in memories])
            taken = [each.id for each in held if not scope.contains(each)]
            if taken:
                raise outside_scope(taken, scope)
        return await super()._add_within(memories, None)


# --- handles -------------------------------------------------------------------------------------


@planted("LIFE-1")
class ConnectsWhenCreated(ReferenceDatabase):
    """Making a handle opens a database."""

    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        sqlite3.connect(":memory:").close()


@planted("LIFE-1")
class LosesOverlappingWrites(ReferenceDatabase):
    """A write stores the records that it saw when it began, and its own."""

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        before = self._entries
        self._entries = dict(before)
        ids = await super().add_memories(memories)
        await asyncio.sleep(0)
        added = {each: self._entries[each] for each in set(ids) if each in self._entries}
        self._entries = {**before, **added}
        return ids


@planted("LIFE-2")
class StaysOpen(ReferenceDatabase):
    """aclose does nothing."""

    async def aclose(self) -> None:
        pass


@planted("LIFE-2")
class GetsAfterClosing(ReferenceDatabase):
    """get_memories answers after aclose: with nothing."""

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return [] if self._closed else await super().get_memories(memory_ids)


@planted("LIFE-2")
class LeavesATaskRunning(ReferenceDatabase):
    """A handle that was searched has a background task, which aclose leaves running."""

    _task: asyncio.Task[None] | None = None

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if self._task is None:
            self._task = asyncio.create_task(asyncio.sleep(3_600))
        return await super().search_memories(query, **arguments)


@planted("LIFE-3")
class ForgetsDeletes(ReferenceDatabase):
    """Deletes are not written to the file."""

    def _remove(self, memory_ids: Iterable[str]) -> int:
        gone = [each for each in set(memory_ids) if self._entries.pop(each, None)]
        return len(gone)


@planted("LIFE-3")
class WritesWhenClosed(ReferenceDatabase):
    """What is written stays in a buffer until the handle is closed."""

    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        self._buffered: list[Mapping[str, Any]] = []

    def _log(self, line: Mapping[str, Any]) -> None:
        if "fingerprint" in line:
            super()._log(line)
        else:
            self._buffered.append(line)

    async def aclose(self) -> None:
        if self._buffered:
            await self._locked(self._write_buffered)
        await super().aclose()

    def _write_buffered(self) -> None:
        for line in self._buffered:
            super()._log(line)
        self._buffered.clear()


@planted("LIFE-3")
class ReadsItsFileOnce(ReferenceDatabase):
    """A handle does not see what others write after its first call."""

    def _catch_up(self, file: BinaryIO) -> None:
        if self._read_to == 0:
            super()._catch_up(file)


@planted("LIFE-4")
class DoesNotRememberTheModel(ReferenceDatabase):
    """A space remembers the size of its vectors alone."""

    def _fingerprint(self) -> str:
        return f"{self.embeddings.dimensions} dimensions"


# --- concurrency ---------------------------------------------------------------------------------


@planted("CONC-1")
class HasRoomForAHundredCalls(ReferenceDatabase):
    """A hundred calls at once exhaust the pool of connections, and the next one fails."""

    _running = 0

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        with self._connection():
            return await super().add_memories(memories)

    @contextmanager
    def _connection(self) -> Iterator[None]:
        if self._running >= 100:
            raise BackendUnavailableError("too many connections: wait and try again")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


@planted("CONC-2")
class WritesTagsAfterwards(ReferenceDatabase):
    """Topics are written after the rest of the record, in a step of their own."""

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
            if isinstance(version, int):
                await asyncio.sleep((60 - version) / 500)
                if each.id in self._entries:
                    self._entries[each.id].record.topics = list(each.topics or [])


@planted("CONC-2")
class WritesBackWhatWasDeleted(ReferenceDatabase):
    """An update looks which records there are, and then writes without looking again."""

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        held = {each.id for each in await self.get_memories([each.id for each in memories])}
        known = [each for each in memories if each.id in held]
        return len(set(await self.add_memories(known)))


@planted("CONC-3")
class KeepsTheLockWhenCancelled(ReferenceDatabase):
    """A cancelled add leaves its lock locked."""

    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **options)
        self._writing = asyncio.Lock()

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        await self._writing.acquire()
        try:
            ids = await super().add_memories(memories)
        except Exception:
            self._writing.release()
            raise
        self._writing.release()
        return ids


@planted("CONC-3")
class BlocksTheEventLoop(ReferenceDatabase):
    """A list of very many records waits for a synchronous client on the event loop."""

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        if len(self._entries) > 50_000:
            time.sleep(0.2)  # noqa: ASYNC251 - the planted bug
        return await super().list_memories(**arguments)


@planted("CONC-3")
class ComputesOnTheEventLoop(ReferenceDatabase):
    """Very many records are counted by looking at each on the event loop."""

    async def count_memories(self, **arguments: Any) -> int:
        if len(self._entries) > 50_000:
            for each in self._entries.values():
                each.record.model_dump_json()
        return await super().count_memories(**arguments)


@planted("CONC-3")
class KeepsTheInterpretersLock(ReferenceDatabase):
    """A thread of its own works for long without letting any other one run."""

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        if len(self._entries) > 50_000:
            await asyncio.to_thread(sum, range(10_000_000))
        return await super().list_memories(**arguments)


# --- errors --------------------------------------------------------------------------------------


@planted("ERR-4")
class DeclaresLessThanItCan(ReferenceDatabase):
    """The capability shared is not declared."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - {Capability.SHARED}


@planted("ERR-4")
class ReadsUnknownModesAsSemantic(ReferenceDatabase):
    """A search mode that there is not is taken for semantic search."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if arguments.get("search_mode", "semantic") not in tuple(SearchMode):
            del arguments["search_mode"]
        return await super().search_memories(query, **arguments)


@planted("ERR-4", lacks=[Capability.KEYWORD_SEARCH])
class FallsBackToMeaning(ReferenceDatabase):
    """Without keyword search, a keyword query is answered by meaning."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - {Capability.KEYWORD_SEARCH}

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        if arguments.get("search_mode") == "keyword":
            del arguments["search_mode"]
        return await super().search_memories(query, **arguments)


@planted("ERR-5")
class LosesTheCause(ReferenceDatabase):
    """An EmbeddingError does not tell what the embeddings raised."""

    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        try:
            return await super()._embedded(texts)
        except AgentMemoryError as error:
            error.__cause__ = None
            raise


# --- the whole -----------------------------------------------------------------------------------


@planted("MODEL")
class TurnsVectorsOfScopedAdds(ReferenceDatabase):
    """A scoped add stores vectors back to front."""

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope | None) -> list[str]:
        ids = await super()._add_within(memories, scope)
        for memory_id in ids if scope else ():
            record, vector = self._entries[memory_id]
            self._entries[memory_id] = Entry(record, vector[::-1])
        return ids


@planted("CLEAN")
class LeavesTheSpaceBehind(ReferenceDatabase):
    """Dropping a space leaves its records."""

    def drop(self) -> None:
        pass

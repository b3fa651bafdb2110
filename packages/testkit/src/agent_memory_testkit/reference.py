"""A correct backend to test the kit with: naive, on `MemoryVectorDatabase` alone, in a file.

A space is a log of JSON lines: the fingerprint, then what was written. Every call reads what was
added to the log since, under a lock on the file, so that handles and processes share a space and
nothing acknowledged is lost. It scans all records for everything: not for use.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import heapq
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import mul
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from pydantic import ValidationError

from agent_memory import (
    BackendClosedError,
    Capability,
    EmbeddingError,
    EmbeddingMismatchError,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    ScoreType,
    SearchMode,
    UnsupportedCapabilityError,
)
from agent_memory.database import outside_scope
from agent_memory.filters import combined
from agent_memory.keywords import parse_keywords, terms_of
from agent_memory.predicates import matches, predicate_of
from agent_memory.scope import Scope

T = TypeVar("T")

_END = datetime.max.replace(tzinfo=UTC)

_FIELDS = frozenset(MemoryRecord.model_fields)
_CHUNK = 500
"""How much is done without letting other threads run."""


class Entry(NamedTuple):
    """A record and its vector."""

    record: MemoryRecord
    vector: tuple[float, ...]


class Hit(NamedTuple):
    """A record that was found."""

    entry: Entry
    dist: float | None
    score: float


class ReferenceDatabase(MemoryVectorDatabase):
    """A memory vector database in one file for each space.

    Args:
        embeddings: turns text into vectors.
        space: the name of the space.
        directory: where the files are.
        metric: cosine, l2 or ip.
    """

    def __init__(
        self, embeddings: Any, *, space: str, directory: Path, metric: str = "cosine"
    ) -> None:
        self.embeddings = embeddings
        self.space = space
        self.metric = metric
        self._file = directory / f"{hashlib.sha256(space.encode()).hexdigest()}.jsonl"
        self._entries: dict[str, Entry] = {}
        self._read_to = 0
        self._lock = threading.Lock()
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability) - {Capability.APPROXIMATE}

    # --- writing -----------------------------------------------------------------------------

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return await self._add_within(memories, None)

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope | None) -> list[str]:
        self._ensure_open()
        records = await asyncio.to_thread(self._checked, memories)
        if records:
            vectors = await self._embedded([each.text for each in records.values()])
            entries = [Entry(*pair) for pair in zip(records.values(), vectors, strict=True)]
            await self._locked(lambda: self._put_within(entries, scope))
        return [each.id for each in memories]

    def _put_within(self, entries: Sequence[Entry], scope: Scope | None) -> None:
        taken = [
            each.record.id
            for each in entries
            if scope is not None
            and each.record.id in self._entries
            and not scope.contains(self._entries[each.record.id].record)
        ]
        if taken and scope is not None:
            raise outside_scope(taken, scope)
        self._put(entries)

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        self._ensure_open()
        records = await asyncio.to_thread(self._checked, memories)
        vectors: dict[str, tuple[float, ...]] = {}
        while True:
            # A text that changes between looking and writing needs another round.
            changed = await self._locked(
                lambda: [each.text for each in self._changed(records) if each.text not in vectors]
            )
            if changed:
                unique = list(dict.fromkeys(changed))
                vectors.update(zip(unique, await self._embedded(unique), strict=True))
            replaced = await self._locked(lambda: self._replace(records, vectors))
            if replaced is not None:
                return replaced

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return await self._locked(lambda: self._remove(memory_ids))

    def _checked(self, memories: object) -> dict[str, MemoryRecord]:
        if not isinstance(memories, (list, tuple)):
            raise InvalidArgumentError("expected a list of records")
        records = {}
        for each in memories:
            if not isinstance(each, MemoryRecord):
                raise InvalidArgumentError(f"expected a MemoryRecord, got {type(each).__name__}")
            records[each.id] = self._stored_form(each)
        return records

    def _stored_form(self, record: MemoryRecord) -> MemoryRecord:
        copy = self._valid(_copy(record))
        copy.memory_hash = copy.compute_hash()
        return copy

    def _valid(self, record: MemoryRecord) -> MemoryRecord:
        """Return ``record``, which may have become invalid since it was built."""
        try:
            return MemoryRecord.model_validate(record.__dict__)
        except ValidationError as error:
            raise InvalidArgumentError(f"the record {record.id!r} became invalid") from error

    def _changed(self, records: Mapping[str, MemoryRecord]) -> list[MemoryRecord]:
        return [
            each
            for each in records.values()
            if each.id in self._entries and self._entries[each.id].record.text != each.text
        ]

    def _put(self, entries: Sequence[Entry]) -> None:
        self._entries.update({each.record.id: each for each in entries})
        for at in range(0, len(entries), _CHUNK):
            chunk = entries[at : at + _CHUNK]
            self._log({"put": [[e.record.model_dump(mode="json"), e.vector] for e in chunk]})

    def _replace(
        self, records: Mapping[str, MemoryRecord], vectors: Mapping[str, tuple[float, ...]]
    ) -> int | None:
        """Replace the records that exist; ``None`` if one of them lacks a vector."""
        entries = []
        for memory_id, record in records.items():
            if memory_id not in self._entries:
                continue
            stored = self._entries[memory_id]
            if stored.record.text == record.text:
                entries.append(Entry(record, stored.vector))
            elif record.text in vectors:
                entries.append(Entry(record, vectors[record.text]))
            else:
                return None
        if entries:
            self._put(entries)
        return len(entries)

    def _remove(self, memory_ids: Iterable[str]) -> int:
        gone = [each for each in dict.fromkeys(memory_ids) if each in self._entries]
        for memory_id in gone:
            del self._entries[memory_id]
        if gone:
            self._log({"remove": gone})
        return len(gone)

    # --- reading -----------------------------------------------------------------------------

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return await self._locked(
            lambda: [
                _copy(self._entries[each].record) for each in memory_ids if each in self._entries
            ]
        )

    async def count_memories(self, *, where: Expression | None = None, **filters: Any) -> int:
        condition = combined(where, filters)
        return await self._locked(lambda: len(self._matching(condition)))

    async def list_memories(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        where: Expression | None = None,
        **filters: Any,
    ) -> MemoryRecordResults:
        _check_window(limit, offset)
        condition = combined(where, filters)

        def page() -> MemoryRecordResults:
            listed = self._listed(self._matching(condition))
            shown = [_result(each) for each in listed[offset : offset + limit]]
            return self._page(shown, len(listed), offset)

        return await self._locked(page)

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Any
    ) -> AsyncIterator[MemoryRecord]:
        self._ensure_open()
        async for each in super().iter_memories(where=where, **filters):
            yield each

    async def search_memories(
        self,
        query: str,
        *,
        search_mode: Any = SearchMode.SEMANTIC,
        limit: int = 10,
        offset: int = 0,
        distance_threshold: float | None = None,
        hybrid_alpha: float | None = None,
        recency: RecencyParams | None = None,
        with_total: bool = True,
        where: Expression | None = None,
        **filters: Any,
    ) -> MemoryRecordResults:
        self._ensure_open()
        mode = self._checked_search(query, search_mode, distance_threshold, hybrid_alpha)
        _check_window(limit, offset)
        condition = combined(where, filters)
        vector: tuple[float, ...] = ()
        if mode is not SearchMode.KEYWORD:
            vector = await self._embedded_query(query)

        def page() -> MemoryRecordResults:
            entries = self._matching(condition)
            if mode is SearchMode.SEMANTIC:
                hits = self._nearest(entries, vector, distance_threshold)
            elif mode is SearchMode.KEYWORD:
                hits = self._by_words(entries, query)
            else:
                alpha = 0.7 if hybrid_alpha is None else hybrid_alpha
                hits = self._by_both(entries, vector, query, alpha)
            if recency is not None:
                hits = self._by_recency(hits, recency)
            shown = [
                _result(each.entry, dist=each.dist, score=each.score, score_type=ScoreType(mode))
                for each in hits[offset : offset + limit]
            ]
            results = self._page(shown, len(hits), offset)
            if not with_total:
                results.total = None
            return results

        return await self._locked(page)

    def _checked_search(
        self, query: object, mode: object, threshold: object, alpha: float | None
    ) -> SearchMode:
        if not isinstance(query, str) or not query.strip():
            raise InvalidArgumentError("the query is blank: to read without one, list")
        if mode not in tuple(SearchMode):
            raise InvalidArgumentError(f"search_mode={mode!r}: there are {', '.join(SearchMode)}")
        mode = SearchMode(mode)  # type: ignore[arg-type]
        if mode is not SearchMode.SEMANTIC:
            capability = Capability(f"{mode.value}_search")
            if capability not in self.capabilities:
                raise UnsupportedCapabilityError(f"this backend has no {capability.value}")
            if threshold is not None:
                raise InvalidArgumentError("distance_threshold belongs to semantic search")
        if alpha is not None and (mode is not SearchMode.HYBRID or not 0 <= alpha <= 1):
            raise InvalidArgumentError("hybrid_alpha is a number from 0 to 1, for hybrid search")
        return mode

    def _matching(self, condition: Expression | None) -> list[Entry]:
        if condition is None:
            return list(self._entries.values())
        predicate = predicate_of(condition)
        return [each for each in self._entries.values() if matches(predicate, each.record)]

    def _listed(self, entries: Sequence[Entry]) -> list[Entry]:
        return _sorted(entries, lambda each: (_END - each.record.created_at, each.record.id))

    def _nearest(
        self, entries: Sequence[Entry], vector: tuple[float, ...], threshold: float | None
    ) -> list[Hit]:
        hits = []
        for each in entries:
            dist = self._distance(vector, each.vector)
            if threshold is None or dist <= threshold:
                hits.append(Hit(each, dist, self._score(dist)))
        return _sorted(hits, lambda each: (each.dist, each.entry.record.id))

    def _by_words(self, entries: Sequence[Entry], query: str) -> list[Hit]:
        keywords = parse_keywords(query)
        found = []
        for each in entries:
            terms = terms_of(each.record.text)
            counts = [terms.count(term) for term in keywords.terms]
            if any(counts) and all(_holds(terms, phrase) for phrase in keywords.phrases):
                found.append((each, sum(count / (count + 1) for count in counts)))
        best = max((worth for _, worth in found), default=1.0)
        hits = [Hit(each, None, worth / best) for each, worth in found]
        return _sorted(hits, lambda each: (-each.score, each.entry.record.id))

    def _by_both(
        self, entries: Sequence[Entry], vector: tuple[float, ...], query: str, alpha: float
    ) -> list[Hit]:
        words = {each.entry.record.id: each.score for each in self._by_words(entries, query)}
        hits = [
            Hit(each.entry, each.dist, self._weighed(alpha, each.score, words, each.entry))
            for each in self._nearest(entries, vector, None)
        ]
        return _sorted(hits, lambda each: (-each.score, each.dist, each.entry.record.id))

    def _weighed(
        self, alpha: float, meaning: float, words: Mapping[str, float], entry: Entry
    ) -> float:
        return alpha * meaning + (1 - alpha) * words.get(entry.record.id, 0.0)

    def _by_recency(self, hits: Sequence[Hit], recency: RecencyParams) -> list[Hit]:
        now = recency.reference_time()
        near = sorted(
            hits[: recency.candidates],
            key=lambda each: recency.boosted(
                each.score,
                last_accessed=each.entry.record.last_accessed,
                created_at=each.entry.record.created_at,
                now=now,
            ),
            reverse=True,
        )
        return [*near, *hits[recency.candidates :]]

    def _page(
        self, memories: list[MemoryRecordResult], total: int, offset: int
    ) -> MemoryRecordResults:
        end = offset + len(memories)
        more = len(memories) > 0 and end < total
        return MemoryRecordResults.model_construct(
            memories=memories, total=total, next_offset=end if more else None
        )

    def _distance(self, left: tuple[float, ...], right: tuple[float, ...]) -> float:
        if self.metric == "l2":
            return math.dist(left, right)
        inner: float = sum(map(mul, left, right))
        if self.metric == "ip":
            return 1.0 - inner
        return 1.0 - inner / (math.hypot(*left) * math.hypot(*right))

    def _score(self, dist: float) -> float:
        return 1 / (1 + dist) if self.metric == "l2" else min(1.0, max(0.0, 1.0 - dist))

    # --- embedding ---------------------------------------------------------------------------

    async def _embedded(self, texts: list[str]) -> list[tuple[float, ...]]:
        try:
            vectors = [tuple(map(float, v)) for v in await self.embeddings.aembed_documents(texts)]
        except Exception as error:
            raise EmbeddingError(f"the embeddings failed: {error}") from error
        self._check_vectors(vectors, len(texts))
        return vectors

    async def _embedded_query(self, text: str) -> tuple[float, ...]:
        try:
            vector = tuple(map(float, await self.embeddings.aembed_query(text)))
        except Exception as error:
            raise EmbeddingError(f"the embeddings failed: {error}") from error
        self._check_vectors([vector], 1)
        return vector

    def _check_vectors(self, vectors: Sequence[tuple[float, ...]], count: int) -> None:
        if len(vectors) != count:
            raise EmbeddingError(f"{len(vectors)} vectors for {count} texts")
        for each in vectors:
            if len(each) != self.embeddings.dimensions or not all(map(math.isfinite, each)):
                raise EmbeddingError("a vector has the wrong size or is not finite")
            if self.metric == "cosine" and not any(each):
                raise EmbeddingError("a vector of zeros has no direction")

    # --- the file ----------------------------------------------------------------------------

    def _ensure_open(self) -> None:
        if self._closed:
            raise BackendClosedError(f"the handle of {self.space!r} is closed: create another")

    async def aclose(self) -> None:
        self._closed = True

    def drop(self) -> None:
        """Remove the space with all that is in it."""
        self._file.unlink(missing_ok=True)

    async def _locked(self, work: Callable[[], T]) -> T:
        """Do ``work`` on the space as it is, in a thread, while nobody else reads or writes it."""
        self._ensure_open()
        return await asyncio.to_thread(self._with_file, work)

    def _with_file(self, work: Callable[[], T]) -> T:
        with self._lock, self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            return work()

    def _catch_up(self, file: BinaryIO) -> None:
        file.seek(0, 2)
        if file.tell() == 0:
            self._log({"fingerprint": self._fingerprint()})
        file.seek(self._read_to)
        unread = file.read()
        complete = unread.rfind(b"\n") + 1
        if complete < len(unread):  # whoever wrote this was killed in the middle
            file.truncate(self._read_to + complete)
        for line in unread[:complete].splitlines():
            self._replay(json.loads(line))
        self._read_to += complete

    def _fingerprint(self) -> str:
        return f"{self.embeddings.model}, {self.embeddings.dimensions} dimensions, {self.metric}"

    def _replay(self, line: Mapping[str, Any]) -> None:
        if "fingerprint" in line and line["fingerprint"] != self._fingerprint():
            raise EmbeddingMismatchError(
                f"the space {self.space!r} holds {line['fingerprint']}, not {self._fingerprint()}"
            )
        for fields, vector in line.get("put", ()):
            record = MemoryRecord.model_validate(fields)
            self._entries[record.id] = Entry(record, tuple(vector))
        for memory_id in line.get("remove", ()):
            self._entries.pop(memory_id, None)

    def _log(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        with self._file.open("ab") as file:
            file.write(data)
        if "fingerprint" not in line:
            self._read_to += len(data)


def _copy(record: MemoryRecord) -> MemoryRecord:
    return MemoryRecord.from_trusted(_copied_fields(record))


def _copied_fields(record: MemoryRecord) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, (list, dict)) else value
        for name, value in record.__dict__.items()
        if name in _FIELDS
    }


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return value


def _result(
    entry: Entry,
    *,
    dist: float | None = None,
    score: float | None = None,
    score_type: ScoreType | None = None,
) -> MemoryRecordResult:
    found = {"dist": dist, "score": score, "score_type": score_type}
    return MemoryRecordResult.from_trusted({**_copied_fields(entry.record), **found})


def _check_window(limit: int, offset: int) -> None:
    if limit < 1 or offset < 0:
        raise InvalidArgumentError(f"limit={limit}, offset={offset}: 1 and 0 are the least")


def _sorted(items: Sequence[T], key: Callable[[T], Any]) -> list[T]:
    """Sort in chunks: one large sort would not let the event loop run for as long as it takes."""
    chunks = [sorted(items[at : at + _CHUNK], key=key) for at in range(0, len(items), _CHUNK)]
    return list(heapq.merge(*chunks, key=key))


def _holds(terms: Sequence[str], phrase: Sequence[str]) -> bool:
    return any(tuple(terms[at : at + len(phrase)]) == tuple(phrase) for at in range(len(terms)))

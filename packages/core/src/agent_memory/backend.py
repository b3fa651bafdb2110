"""`Backend`: the base class of backends, so that an engine writes only how it stores and finds.

Done here once: validation of arguments and records, embedding in batches, hashes, paging
arithmetic, ranking by recency, capability checks, the fingerprint of a space, life and death of a
handle, and turning an engine's exceptions into ours. An engine subclasses `Backend` and implements
the primitives at the end of the class; the names that it needs are in ``__all__``. (`help` leaves
out names that begin with an underscore, and so the primitives: ``docs/backend.md`` shows how to
print what they must do.)

Data flows one way: a public method checks its arguments, calls primitives, shapes their answer.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Literal, TypeVar, Unpack

from agent_memory.arguments import (
    as_predicate,
    checked_alpha,
    checked_dimensions,
    checked_ids,
    checked_mode,
    checked_query,
    checked_space,
    checked_threshold,
    checked_window,
)
from agent_memory.columns import Columns
from agent_memory.database import (
    Capability,
    MemoryVectorDatabase,
    as_listed,
    as_results,
    outside_scope,
)
from agent_memory.embeddings.protocol import Embeddings
from agent_memory.errors import (
    AgentMemoryError,
    BackendClosedError,
    EmbeddingError,
    EmbeddingMismatchError,
    InvalidArgumentError,
    UnsupportedCapabilityError,
)
from agent_memory.filters import (
    LIST_TAG_FIELDS,
    SCALAR_TAG_FIELDS,
    TIME_FIELDS,
    Expression,
    FilterArguments,
)
from agent_memory.intake import offload, stored_forms
from agent_memory.keywords import NO_KEYWORDS, parse_keywords
from agent_memory.models import (
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    ScoreType,
    SearchMode,
)
from agent_memory.predicates import Predicate, matches
from agent_memory.primitives import (
    Fingerprint,
    Hit,
    HybridQuery,
    KeywordQuery,
    Listing,
    Metric,
    Ranking,
    Replaced,
    Row,
    Rows,
    SemanticQuery,
    Window,
)
from agent_memory.recency import RecencyParams
from agent_memory.scope import Scope
from agent_memory.vectors import PackedVectors, Vector, pack_vector, pack_vectors

__all__ = [
    "LIST_TAG_FIELDS",
    "SCALAR_TAG_FIELDS",
    "TIME_FIELDS",
    "Backend",
    "Columns",
    "Fingerprint",
    "Hit",
    "HybridQuery",
    "KeywordQuery",
    "Listing",
    "Metric",
    "PackedVectors",
    "Predicate",
    "Ranking",
    "Replaced",
    "Row",
    "Rows",
    "Scope",
    "SemanticQuery",
    "Vector",
    "Window",
]

_T = TypeVar("_T")

_BATCH = 500
_SCORE_TYPES = {each: ScoreType(each.value) for each in SearchMode}


class Backend(MemoryVectorDatabase):
    """A memory vector database on some engine. Subclass it and implement the primitives.

    Args:
        embeddings: turns text into vectors.
        space: the name of the place that this handle reads and writes: any text that is not
            empty, in any characters; an engine with narrower names encodes it, one to one.
        metric: how distances are measured.

    Attributes:
        embeddings: as given.
        space: as given.
        metric: as a `Metric`.

    Creating a handle does no I/O; the first call opens the engine. `capabilities` is read before
    that, also of handles that are never opened, so it follows from the options alone.
    """

    def __init__(
        self, embeddings: Embeddings, *, space: str, metric: Metric | str = Metric.COSINE
    ) -> None:
        self.embeddings = embeddings
        self.space = checked_space(space)
        try:
            self.metric = Metric(metric)
        except ValueError:
            raise InvalidArgumentError(
                f"metric={metric!r}: expected one of {', '.join(Metric)}"
            ) from None
        self._opening = asyncio.Lock()
        self._opening_failures: tuple[int, Exception | None] = (0, None)
        """How many attempts to open have failed, and what the last of them raised."""
        self._fingerprint: Fingerprint | None = None
        """Known once the space is open."""
        self._closed = False
        self._released = False
        """Whether closing came to its end: it may fail or be cancelled, and is then repeated."""

    # --- the public methods ------------------------------------------------------------------

    async def add_memories(self, memories: Sequence[MemoryRecord]) -> list[str]:
        return await self._add(memories, None)

    async def update_memories(self, memories: Sequence[MemoryRecord]) -> int:
        return await self._update(memories, None)

    async def delete_memories(self, memory_ids: Sequence[str]) -> int:
        return await self._delete(memory_ids, None)

    async def get_memories(self, memory_ids: Sequence[str]) -> list[MemoryRecord]:
        ids = checked_ids(memory_ids)
        async with self._engine():
            if not ids:
                return []
            found = {each.id: each for each in await self._fetch(list(dict.fromkeys(ids)))}
            return [found[memory_id] for memory_id in ids if memory_id in found]

    async def count_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> int:
        predicate = as_predicate(where, filters)
        async with self._engine():
            return await self._count(predicate)

    async def list_memories(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        where: Expression | None = None,
        **filters: Unpack[FilterArguments],
    ) -> MemoryRecordResults:
        window = checked_window(limit, offset, with_total=True)
        predicate = as_predicate(where, filters)
        async with self._engine():
            records, total = await self._list(predicate, offset=window.offset, limit=window.limit)
            memories = await offload(len(records), lambda: as_listed(records))
        return _page(memories, total=total, window=window)

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> AsyncIterator[MemoryRecord]:
        predicate = as_predicate(where, filters)
        async with self._engine():
            ids = await self._list_ids(predicate)
        async with aclosing(self._fetch_in_parts(ids)) as parts:
            while True:
                async with self._engine():
                    part = await anext(parts, None)
                if part is None:
                    return
                for record in part:
                    # Asked again: meanwhile the id may be that of another tenant's memory.
                    if predicate is None or matches(predicate, record):
                        yield record

    async def search_memories(
        self,
        query: str,
        *,
        search_mode: SearchMode | Literal["semantic", "keyword", "hybrid"] = SearchMode.SEMANTIC,
        limit: int = 10,
        offset: int = 0,
        distance_threshold: float | None = None,
        hybrid_alpha: float | None = None,
        recency: RecencyParams | None = None,
        with_total: bool = True,
        where: Expression | None = None,
        **filters: Unpack[FilterArguments],
    ) -> MemoryRecordResults:
        text = checked_query(query)
        mode = checked_mode(search_mode)
        window = checked_window(limit, offset, with_total=with_total)
        max_distance = checked_threshold(distance_threshold, mode)
        alpha = checked_alpha(hybrid_alpha, mode)
        if recency is not None and not isinstance(recency, RecencyParams):
            raise InvalidArgumentError(
                f"recency: expected RecencyParams(...), got {type(recency).__name__}"
            )
        predicate = as_predicate(where, filters)
        if mode is not SearchMode.SEMANTIC:
            self._require(Capability(f"{mode.value}_search"))
        async with self._engine():
            vector = None if mode is SearchMode.KEYWORD else await self._embed_query(text)
            keywords = NO_KEYWORDS if mode is SearchMode.SEMANTIC else parse_keywords(text)

            async def rank(part: Window) -> Ranking:
                if vector is None:
                    return await self._rank_keyword(KeywordQuery(keywords, predicate, part))
                if mode is SearchMode.SEMANTIC:
                    return await self._rank_semantic(
                        SemanticQuery(vector, predicate, max_distance, part)
                    )
                return await self._rank_hybrid(
                    HybridQuery(vector, keywords, alpha, predicate, part)
                )

            # Without a total, one hit more than asked for tells whether there is a next page.
            asked = (
                window
                if with_total
                else Window(window.offset, window.limit + 1, False, probes=True)
            )
            if recency is None:
                ranking = await rank(asked)
            elif vector is not None and mode is SearchMode.SEMANTIC:
                ranking = await self._rank_recent(
                    SemanticQuery(vector, predicate, max_distance, asked), recency
                )
            else:
                ranking = await self._by_recency(rank, recency, asked)
            hits = ranking.hits[: window.limit]
            results = await offload(len(hits), lambda: self._results(hits, mode))
        return _page(
            results,
            total=ranking.total,
            window=window,
            more=ranking.more or len(ranking.hits) > window.limit,
        )

    async def ping(self) -> None:
        async with self._engine():
            await self._ping()

    async def aclose(self) -> None:
        self._closed = True
        async with self._opening:
            if self._released:
                return
            self._fingerprint = None
            with self._in_our_terms():
                await self._close()
            self._released = True

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope) -> list[str]:
        return await self._add(memories, scope)

    async def _update_within(self, memories: list[MemoryRecord], scope: Scope) -> int:
        return await self._update(memories, scope)

    async def _delete_within(self, memory_ids: Sequence[str], scope: Scope) -> int:
        return await self._delete(memory_ids, scope)

    # --- writing -----------------------------------------------------------------------------

    async def _add(self, memories: Sequence[MemoryRecord], scope: Scope | None) -> list[str]:
        ids, columns = await stored_forms(memories)
        async with self._engine():
            if not columns.count:
                return []
            vectors = await self._embed_documents(columns["text"])
            taken = await self._put(Rows(columns, vectors), scope)
        if taken and scope is not None:
            raise outside_scope(taken, scope)
        return [*ids]

    async def _update(self, memories: Sequence[MemoryRecord], scope: Scope | None) -> int:
        _, columns = await stored_forms(memories)
        async with self._engine():
            if not columns.count:
                return 0
            stored = {each.id: each for each in await self._fetch(columns["id"])}
            found = [
                position
                for position, memory_id in enumerate(columns["id"])
                if memory_id in stored and (scope is None or scope.contains(stored[memory_id]))
            ]
            if not found:
                return 0
            if len(found) < columns.count:
                columns = columns.take(found)
            changed = {
                memory_id: text
                for memory_id, text in zip(columns["id"], columns["text"], strict=True)
                if text != stored[memory_id].text
            }
            vectors = await self._embed_documents([*changed.values()])
            vector_of = dict(zip(changed, vectors, strict=True))
            rows = Rows(columns, [vector_of.get(each) for each in columns["id"]])
            replaced, stale = await self._replace(rows, scope)
            if stale:  # others changed those texts after we looked, so they need vectors after all
                unembedded = set(stale)
                again = columns.take(
                    [place for place, each in enumerate(columns["id"]) if each in unembedded]
                )
                rows = Rows(again, await self._embed_documents(again["text"]))
                retried = await self._replace(rows, scope)
                replaced += retried.replaced
            return replaced

    async def _delete(self, memory_ids: Sequence[str], scope: Scope | None) -> int:
        ids = list(dict.fromkeys(checked_ids(memory_ids)))
        async with self._engine():
            return await self._remove(ids, scope) if ids else 0

    # --- embedding ---------------------------------------------------------------------------

    async def _embed_documents(self, texts: Sequence[str]) -> Sequence[Vector]:
        # Equal texts are common ("ok", "thanks") and have equal vectors.
        unique = list(dict.fromkeys(texts))
        if not unique:
            return []
        with _EmbeddingErrors(self.embeddings):
            vectors = await self.embeddings.aembed_documents(unique)
        packed = await offload(len(unique), lambda: self._packed(vectors, unique))
        if len(unique) == len(texts):
            return packed
        by_text = dict(zip(unique, packed, strict=True))
        return [by_text[text] for text in texts]

    async def _embed_query(self, text: str) -> Vector:
        with _EmbeddingErrors(self.embeddings):
            vector = await self.embeddings.aembed_query(text)
        assert self._fingerprint is not None
        return pack_vector(
            vector,
            text,
            dimensions=self._fingerprint.dimensions,
            model=self._fingerprint.model,
            zero_allowed=self.metric is not Metric.COSINE,
        )

    def _packed(self, vectors: Any, texts: Sequence[str]) -> Sequence[Vector]:
        assert self._fingerprint is not None
        return pack_vectors(
            vectors,
            texts=texts,
            dimensions=self._fingerprint.dimensions,
            model=self._fingerprint.model,
            zero_allowed=self.metric is not Metric.COSINE,
        )

    # --- ranking -----------------------------------------------------------------------------

    async def _by_recency(
        self,
        rank: Callable[[Window], Awaitable[Ranking]],
        recency: RecencyParams,
        window: Window,
    ) -> Ranking:
        """Rank the best candidates by recency; what lies beyond them follows as it was."""
        now = recency.reference_time()
        first = await rank(Window(0, recency.candidates, window.with_total))

        def boosted(hit: Hit) -> float:
            return recency.boosted(
                self._score(hit),
                last_accessed=hit.record.last_accessed,
                created_at=hit.record.created_at,
                now=now,
            )

        # Sorting is stable, so equal ones stay in the order of distance and id.
        ordered = await offload(
            len(first.hits), lambda: sorted(first.hits, key=boosted, reverse=True)
        )
        hits = ordered[window.offset : window.offset + window.limit]
        if len(hits) < window.limit and len(ordered) == recency.candidates:
            beyond = await rank(
                Window(
                    max(window.offset, recency.candidates),
                    window.limit - len(hits),
                    with_total=False,
                )
            )
            hits.extend(beyond.hits)
        return Ranking(hits, first.total)

    def _score(self, hit: Hit) -> float:
        if hit.score is not None:
            return hit.score
        assert hit.dist is not None
        return self.metric.score(hit.dist)

    def _results(self, hits: Sequence[Hit], mode: SearchMode) -> list[MemoryRecordResult]:
        score_of = self.metric.score
        found = [
            (record, dist, score_of(dist) if score is None and dist is not None else score)
            for record, dist, score in hits
        ]
        return as_results(found, _SCORE_TYPES[mode])

    # --- life --------------------------------------------------------------------------------

    def _engine(self) -> _Call:
        """Make sure that the engine is open, and speak of its failures in our terms."""
        return _Call(self)

    @contextmanager
    def _in_our_terms(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._raise_in_our_terms(error)
            raise

    def _raise_in_our_terms(self, error: Exception) -> None:
        """Raise our error for an engine's; return if there is none, or if it is ours already."""
        ours = None if isinstance(error, AgentMemoryError) else self._translated(error)
        if ours is not None:
            raise ours from error

    async def _open_once(self) -> None:
        failed_before, _ = self._opening_failures
        async with self._opening:
            self._ensure_not_closed()
            if self._fingerprint is not None:
                return
            failed, failure = self._opening_failures
            if failure is not None and failed > failed_before:
                # While this call waited for its turn; another attempt would take as long again.
                raise failure
            with _EmbeddingErrors(self.embeddings):
                dimensions = await asyncio.to_thread(lambda: self.embeddings.dimensions)
            ours = Fingerprint(
                self.embeddings.model,
                checked_dimensions(dimensions, self.embeddings.model),
                self.metric,
            )
            try:
                stored = await self._open(ours)
                if stored != ours:
                    raise EmbeddingMismatchError(
                        f"the space {self.space!r} holds vectors of {_described(stored)}, this "
                        f"handle makes {_described(ours)}: use the embeddings and the metric of "
                        f"the space, or another space"
                    )
            except BaseException as error:  # cancelled, too: nothing half open stays behind
                await self._close()
                if isinstance(error, Exception):
                    self._opening_failures = (failed + 1, error)
                raise
            self._fingerprint = ours

    def _ensure_not_closed(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> BackendClosedError:
        return BackendClosedError(
            f"this handle of the space {self.space!r} is closed: create another"
        )

    def _require(self, capability: Capability) -> None:
        if capability not in self.capabilities:
            raise UnsupportedCapabilityError(
                f"{type(self).__name__} does not have the capability {capability.value!r}; it has "
                f"{', '.join(sorted(self.capabilities)) or 'none'}"
            )

    # --- the primitives: what an engine implements -------------------------------------------

    @abstractmethod
    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        """Connect, create the space with ``fingerprint`` if it is new, and return the stored one.

        Called by one task at a time, before anything else. If it fails or is cancelled, or returns
        another fingerprint, `_close` is called, and the next call opens again. It must not change a
        space that has another fingerprint.
        """

    @abstractmethod
    async def _close(self) -> None:
        """Release what `_open` acquired; also called when `_open` failed or never ran.

        Other primitives may still be running. Let them end, or let them raise anything: their
        callers are told that the handle was closed.
        """

    @abstractmethod
    async def _put(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        """Insert the rows, or replace whole records by id; ids are unique within ``rows``.

        With a ``scope``: if records outside it hold some of the ids, write nothing at all and
        return those ids. Looking and writing are one step that no other writer can come between.
        """

    @abstractmethod
    async def _replace(self, rows: Rows, scope: Scope | None) -> Replaced:
        """Replace records that exist (and lie in ``scope``); create none. One step, as `_put`.

        A row without a vector keeps the stored one, if the stored text is that of the row. If it
        is not, the row is left alone and its id returned in ``stale``: this text is embedded
        then, and the row comes once more.
        """

    @abstractmethod
    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        """Delete the records that exist (and lie in ``scope``) and return how many.

        One step, as `_put`.
        """

    # Records that a primitive returns belong to the caller, who may change them, and makes results
    # of those in hits and listings: an engine that keeps records as objects returns copies.

    @abstractmethod
    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        """Return the records with these ids, in any order; ids are unique."""

    async def _fetch_in_parts(
        self, ids: Sequence[str]
    ) -> AsyncGenerator[Sequence[MemoryRecord], None]:
        """Yield the records with these ids, in their order and in parts, without missing ones.

        For iterating. Engines that are waited for may override it, to ask for the next part while
        one is used.
        """
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            found = {each.id: each for each in await self._fetch(part)}
            yield [found[memory_id] for memory_id in part if memory_id in found]

    @abstractmethod
    async def _count(self, where: Predicate | None) -> int:
        """Return how many records meet the predicate."""

    @abstractmethod
    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        """Return one page, ``created_at`` descending, then id ascending by code point."""

    @abstractmethod
    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        """Return the ids of all matching records, in the order of `_list`."""

    @abstractmethod
    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        """Return the nearest records that meet ``query.where``, ties by id.

        Equal vectors must have equal distances: round to seven decimals before ordering.
        """

    async def _rank_recent(self, query: SemanticQuery, recency: RecencyParams) -> Ranking:
        """Return the nearest, the first ``recency.candidates`` of them ranked by recency as well.

        Engines that can do so without transferring the candidates override this.
        """

        async def rank(part: Window) -> Ranking:
            return await self._rank_semantic(query._replace(window=part))

        return await self._by_recency(rank, recency, query.window)

    async def _rank_keyword(self, query: KeywordQuery) -> Ranking:
        """Return the records that hold the keywords; for engines with ``keyword_search``."""
        raise NotImplementedError(
            f"{type(self).__name__} declares keyword_search without having it"
        )

    async def _rank_hybrid(self, query: HybridQuery) -> Ranking:
        """Return all records by both scores; for engines with ``hybrid_search``."""
        raise NotImplementedError(f"{type(self).__name__} declares hybrid_search without having it")

    async def _ping(self) -> None:
        """Ask the engine for a sign of life; if not overridden, by counting everything."""
        await self._count(None)

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        """Return our error for an engine's exception; ``None`` lets it pass as it is."""
        return None


class _Call:
    """One call of an engine. A class: a decorated generator would cost ten times as much."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __aenter__(self) -> None:
        backend = self._backend
        backend._ensure_not_closed()
        if backend._fingerprint is None:
            try:
                await backend._open_once()
            except Exception as error:
                self._explain(error)
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, Exception):
            self._explain(error)

    def _explain(self, error: Exception) -> None:
        backend = self._backend
        if backend._closed and not isinstance(error, AgentMemoryError):
            raise backend._closed_error() from error  # by another task, under this call
        backend._raise_in_our_terms(error)


class _EmbeddingErrors:
    """Makes whatever embeddings raise an `EmbeddingError` with its cause. A class, as above."""

    __slots__ = ("_embeddings",)

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, AgentMemoryError):
            raise EmbeddingError(
                f"the embeddings {self._embeddings.model!r} failed: {type(error).__name__}: {error}"
            ) from error


# --- shaping of answers ------------------------------------------------------------------------


def _page(
    memories: list[MemoryRecordResult], *, total: int | None, window: Window, more: bool = False
) -> MemoryRecordResults:
    end = window.offset + len(memories)
    if total is not None:
        more = end < total
    following = end if more and memories else None  # after an empty page it would be the same page
    return MemoryRecordResults.from_trusted(memories, total, following)


def _described(fingerprint: Fingerprint) -> str:
    return f"{fingerprint.model!r}, {fingerprint.dimensions} dimensions, {fingerprint.metric.value}"

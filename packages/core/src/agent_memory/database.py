"""`MemoryVectorDatabase`: what every backend is, whatever engine it stores in.

Six methods are abstract; everything else has a default built on those six, so that a backend
written against the smallest interface is complete. After 1.0 no abstract method is ever added.
How a call is validated, embedded and stored is not here: see `agent_memory.backend`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from agent_memory.errors import ScopeError
from agent_memory.filters import (
    CreatedAt,
    Expression,
    Filter,
    FilterArguments,
    Id,
    as_filter,
    combined,
)
from agent_memory.models import (
    MemoryRecord,
    MemoryRecordResult,
    MemoryRecordResults,
    ScoreType,
    SearchMode,
)
from agent_memory.recency import RecencyParams

if TYPE_CHECKING:
    from agent_memory.scope import Scope, ScopeArguments, ScopedMemories

_BATCH = 500


class Capability(StrEnum):
    """What a backend may or may not be able to do; see the contract for the rules behind each."""

    KEYWORD_SEARCH = "keyword_search"
    HYBRID_SEARCH = "hybrid_search"
    PERSISTENT = "persistent"
    """Data outlives the handle."""
    SHARED = "shared"
    """Two handles, and two processes, see one space."""
    APPROXIMATE = "approximate"
    """Nearest-neighbour search may miss a little (recall@10 of 0.95 or more)."""


class MemoryVectorDatabase(ABC):
    """Long-term memory that is searched by meaning, by words and by filters.

    Every method that takes filters takes them as keywords named after the record's fields
    (``user_id="ada"``, ``topics=Topics(all=["a", "b"])``) and as one expression, ``where``; all of
    them must hold. Every error raised on purpose is an `AgentMemoryError`.

    The methods are safe to call from many tasks of one event loop at once.
    """

    @abstractmethod
    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        """Store memories and return their ids in order; an id that exists is replaced as a whole.

        All or nothing as far as embedding goes: if that fails, nothing is stored.

        Raises:
            InvalidArgumentError: something in the list is not a valid record.
            EmbeddingError: the texts could not be embedded.
        """

    @abstractmethod
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
        """Return the memories that match the filters, the best for ``query`` first.

        Args:
            query: words in plain language; not blank.
            search_mode: by meaning, by words, or by both.
            limit: how many to return, 1 or more.
            offset: how many to skip; ``next_offset`` of the page before.
            distance_threshold: only memories at this distance or nearer (semantic search alone).
            hybrid_alpha: the weight of meaning against words, 0 to 1 (hybrid search alone);
                0.7 if ``None``.
            recency: rank by recency as well.
            with_total: ``False`` leaves ``total`` at ``None`` and spends nothing on counting.
            where: an expression of filters.
            **filters: filters by field.

        Raises:
            InvalidArgumentError: an argument or a filter cannot be honoured.
            UnsupportedCapabilityError: the backend does not declare the search mode.
            EmbeddingError: the query could not be embedded.
        """

    @abstractmethod
    async def delete_memories(self, memory_ids: list[str]) -> int:
        """Delete memories by id and return how many there were; unknown ids are not counted."""

    @abstractmethod
    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        """Replace existing memories as a whole and return how many there were.

        Unknown ids are neither created nor counted. A text that stays is not embedded again.
        """

    @abstractmethod
    async def count_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> int:
        """Return exactly how many memories match, without transferring them."""

    @abstractmethod
    async def list_memories(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        where: Expression | None = None,
        **filters: Unpack[FilterArguments],
    ) -> MemoryRecordResults:
        """Return one page of the matching memories, created last first, then by id."""

    # --- defaults, built on the six ----------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this backend declares that it can do; asking for more raises."""
        return frozenset()

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        """Return the memories with these ids, in the order of the ids, without the missing ones."""
        found: dict[str, MemoryRecord] = {}
        unique = [each for each in dict.fromkeys(memory_ids) if each]  # no record's id is empty
        for start in range(0, len(unique), _BATCH):
            batch = unique[start : start + _BATCH]
            page = await self.list_memories(limit=len(batch), id=Id(any=batch))
            found.update((each.id, each.to_record()) for each in page.memories if each.id in batch)
        return [found[memory_id] for memory_id in memory_ids if memory_id in found]

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> AsyncIterator[MemoryRecord]:
        """Yield every matching memory once, created last first, then by id.

        A memory that exists throughout is yielded exactly once, whatever is added, updated or
        deleted meanwhile; one that comes or goes may or may not be.
        """
        wanted: dict[str, Any] = {name: as_filter(name, each) for name, each in filters.items()}
        if where is not None:
            wanted["where"] = combined(where, {})
        seen: set[str] = set()
        reached: CreatedAt | None = None
        limit = _BATCH
        while True:
            asked = wanted if reached is None else narrowed(wanted, reached)
            page = (await self.list_memories(limit=limit, **asked)).memories
            for each in page:
                if each.id not in seen:
                    seen.add(each.id)
                    yield each.to_record()
            if len(page) < limit:
                return
            # The next page starts at a moment, not at an offset, which would shift under deletes.
            start = CreatedAt(lte=page[-1].created_at)
            if start == reached:
                limit *= 2  # more memories share that moment than fit one page
            else:
                reached, limit = start, _BATCH

    def scoped(self, **fields: Unpack[ScopeArguments]) -> ScopedMemories:
        """Return a handle confined to one tenant: a namespace, a user, a session, or several.

        What it adds is stamped with the scope; it finds, counts, updates and deletes only inside
        it. Closing it leaves this database open.

        Raises:
            InvalidArgumentError: no field was given, or a value that no record can have.
        """
        # Imported late: a scoped handle is itself a database, so its module needs this one.
        from agent_memory.scope import Scope, ScopedMemories

        return ScopedMemories(self, Scope.of(**fields))

    async def ping(self) -> None:
        """Return if the engine answers; raise what a call would raise if it does not."""
        await self.list_memories(limit=1)

    async def aclose(self) -> None:
        """Release what the handle holds. May be called twice."""
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- what a scoped handle calls ----------------------------------------------------------
    # These defaults look first and act then, which is as safe as six methods allow. A backend that
    # can do both in one step of its engine overrides them; those on `agent_memory.backend` do.

    async def _add_within(self, memories: list[MemoryRecord], scope: Scope) -> list[str]:
        """Add records of ``scope``; `ScopeError` if an id is held by a record outside it."""
        held = await self.get_memories([each.id for each in memories])
        taken = [each.id for each in held if not scope.contains(each)]
        if taken:
            raise outside_scope(taken, scope)
        return await self.add_memories(memories)

    async def _update_within(self, memories: list[MemoryRecord], scope: Scope) -> int:
        """Update those of ``memories`` whose stored record lies in ``scope``."""
        inside = await self._ids_within([each.id for each in memories], scope)
        return await self.update_memories([each for each in memories if each.id in inside])

    async def _delete_within(self, memory_ids: Sequence[str], scope: Scope) -> int:
        """Delete those of ``memory_ids`` whose stored record lies in ``scope``."""
        inside = await self._ids_within(list(memory_ids), scope)
        return await self.delete_memories([each for each in memory_ids if each in inside])

    async def _ids_within(self, memory_ids: list[str], scope: Scope) -> set[str]:
        held = await self.get_memories(memory_ids)
        return {each.id for each in held if scope.contains(each)}


def outside_scope(taken: Sequence[str], scope: Scope) -> ScopeError:
    """Return the error for ids that records outside ``scope`` hold."""
    shown = ", ".join(repr(each) for each in taken[:3]) + (", ..." if len(taken) > 3 else "")
    return ScopeError(
        f"{len(taken)} id(s) belong to memories outside this scope ({scope}): {shown}; "
        f"nothing was stored, choose other ids"
    )


def as_listed(records: Iterable[MemoryRecord]) -> list[MemoryRecordResult]:
    """Return records as results without a score, as `list_memories` returns them."""
    return as_results(((each, None, None) for each in records), None)


def as_results(
    found: Iterable[tuple[MemoryRecord, float | None, float | None]],
    score_type: ScoreType | None,
) -> list[MemoryRecordResult]:
    """Return records, each with its distance and score, as results.

    They came out of an engine, so they are not validated again. The results take the records'
    fields over: do not use the records afterwards. Records that are results already stay the same.
    """
    results: list[MemoryRecordResult] = []
    for record, dist, score in found:
        fields = record.__dict__
        fields["dist"], fields["score"], fields["score_type"] = dist, score, score_type
        if type(record) is not MemoryRecordResult:
            record = MemoryRecordResult.from_trusted(fields)
        results.append(record)
    return results


def narrowed(arguments: Mapping[str, Any], narrower: Filter) -> dict[str, Any]:
    """Return the arguments of a call with one more filter that must hold.

    It goes in as the keyword of its field, which every backend knows; what the caller filters the
    same field by moves to ``where``. So a backend that overlooks ``where`` still finds nothing that
    ``narrower`` refuses.
    """
    asked = dict(arguments)
    field = narrower.field
    if field in asked:
        asked["where"] = combined(asked.get("where"), {field: asked[field]})
    asked[field] = narrower
    return asked

"""The handle: options in, one worker thread behind it, `Engine` calls on that thread.

Everything that touches data runs on the worker, one call after the other. So the event loop never
waits for a search, no lock is needed, and a cancelled call leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from agent_memory import (
    AgentMemoryError,
    BackendError,
    BackendUnavailableError,
    Capability,
    Embeddings,
    InvalidArgumentError,
    MemoryRecord,
    RecencyParams,
)
from agent_memory.backend import (
    Backend,
    Fingerprint,
    HybridQuery,
    KeywordQuery,
    Listing,
    Metric,
    Ranking,
    Replaced,
    Rows,
    SemanticQuery,
)
from agent_memory.predicates import Predicate
from agent_memory.scope import Scope
from agent_memory_inmemory.engine import Engine
from agent_memory_inmemory.files import space_file

_T = TypeVar("_T")

PATH_VARIABLE = "AGENT_MEMORY_INMEMORY_PATH"

IndexName = Literal["exact", "hnsw"]


class InMemoryVectorDatabase(Backend):
    """Memories in the process: records in SQLite, vectors in a matrix, both on a worker thread.

    Use `create`, which also reads the environment.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        space: str = "memory",
        path: Path | None = None,
        metric: Metric | str = Metric.COSINE,
        index: IndexName = "exact",
    ) -> None:
        super().__init__(embeddings, space=space, metric=metric)
        if index not in ("exact", "hnsw"):
            raise InvalidArgumentError(f"index={index!r}: expected 'exact' or 'hnsw'")
        self._file = None if path is None else space_file(path, self.space)
        self._approximate = index == "hnsw"
        self._engine_on_worker: Engine | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"agent-memory-{self.space}")

    @property
    def capabilities(self) -> frozenset[Capability]:
        declared = {Capability.KEYWORD_SEARCH, Capability.HYBRID_SEARCH}
        if self._file is not None:
            declared.add(Capability.PERSISTENT)
        if self._approximate:
            declared.add(Capability.APPROXIMATE)
        return frozenset(declared)

    async def engine_versions(self) -> dict[str, str]:
        """Return what a conformance report is to say of the engine."""
        return {"sqlite": sqlite3.sqlite_version, "numpy": np.__version__}

    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        def open_on_worker() -> Fingerprint:
            if self._engine_on_worker is None:
                self._engine_on_worker = Engine.open(
                    self._file, fingerprint, approximate=self._approximate
                )
            return self._engine_on_worker.fingerprint

        return await self._run(open_on_worker)

    async def _close(self) -> None:
        def close_on_worker() -> None:
            engine, self._engine_on_worker = self._engine_on_worker, None
            if engine is not None:
                engine.close()

        await self._run(close_on_worker)
        if self._closed:
            self._worker.shutdown(wait=False)

    async def _put(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        return await self._run(lambda: self._engine_open.put(rows, scope))

    async def _replace(self, rows: Rows, scope: Scope | None) -> Replaced:
        return await self._run(lambda: self._engine_open.replace(rows, scope))

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        return await self._run(lambda: self._engine_open.remove(ids, scope))

    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        return await self._run(lambda: self._engine_open.fetch(ids))

    async def _count(self, where: Predicate | None) -> int:
        return await self._run(lambda: self._engine_open.count(where))

    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        return await self._run(lambda: self._engine_open.page(where, offset=offset, limit=limit))

    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        return await self._run(lambda: self._engine_open.list_ids(where))

    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        return await self._run(lambda: self._engine_open.rank_semantic(query))

    async def _rank_recent(self, query: SemanticQuery, recency: RecencyParams) -> Ranking:
        return await self._run(lambda: self._engine_open.rank_recent(query, recency))

    async def _rank_keyword(self, query: KeywordQuery) -> Ranking:
        return await self._run(lambda: self._engine_open.rank_keyword(query))

    async def _rank_hybrid(self, query: HybridQuery) -> Ranking:
        return await self._run(lambda: self._engine_open.rank_hybrid(query))

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        where = f"the space {self.space!r}" + (f" in {self._file}" if self._file else "")
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return BackendUnavailableError(
                f"{where} is open in another handle or process; close that one first: an embedded "
                f"space has one owner at a time"
            )
        if isinstance(error, (sqlite3.OperationalError, OSError)):
            return BackendUnavailableError(
                f"{where} cannot be read or written ({error}); check the path, its permissions "
                f"and the free space, then call again"
            )
        if isinstance(error, sqlite3.DatabaseError):
            return BackendError(
                f"{where} is damaged or is not a file of this backend ({error}); "
                f"restore it from a backup, or choose another path"
            )
        return None

    @property
    def _engine_open(self) -> Engine:
        assert self._engine_on_worker is not None
        return self._engine_on_worker

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def create(
    embeddings: Embeddings,
    *,
    space: str = "memory",
    path: str | os.PathLike[str] | None = None,
    metric: Metric | str = Metric.COSINE,
    index: IndexName = "exact",
) -> InMemoryVectorDatabase:
    """Create a handle of the embedded backend; no I/O until the first call.

    Args:
        embeddings: turns text into vectors.
        space: the name of the space; with a path, spaces of other names lie beside it.
        path: a folder, made if it is missing, with one file for each space; ``None`` reads
            ``AGENT_MEMORY_INMEMORY_PATH``. If neither is set, every handle is a space of its own
            that ends with it.
        metric: ``cosine``, ``l2`` (Euclidean) or ``ip`` (1 - inner product).
        index: ``exact``, or ``hnsw`` for large spaces (extra ``agent-memory-inmemory[hnsw]``):
            an approximate index that searches without filters use.

    Raises:
        InvalidArgumentError: an option that no space can have.
    """
    folder = os.environ.get(PATH_VARIABLE) or None if path is None else _checked_path(path)
    return InMemoryVectorDatabase(
        embeddings,
        space=space,
        path=None if folder is None else Path(folder),
        metric=metric,
        index=index,
    )


def _checked_path(path: object) -> str:
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidArgumentError(f"path={path!r}: expected a folder, as a string or a Path")
    return name

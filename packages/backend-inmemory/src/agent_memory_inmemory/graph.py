"""An approximate index for large spaces: usearch's HNSW graph (extra ``hnsw``).

Only finds candidates; how near they are is computed exactly by the `Matrix`. HNSW: Malkov and
Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", 2016.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from agent_memory import BackendError
from agent_memory.backend import Metric
from agent_memory_inmemory.matrix import Floats, RowNumbers

REACH = 64
"""How many candidates a search takes out of the graph."""
WORTHWHILE = 25_000
"""Below this many vectors comparing all of them is as fast, and exact."""

_METRICS = {Metric.COSINE: "cos", Metric.L2: "l2sq", Metric.IP: "ip"}
_CONNECTIVITY = 16
_EXPANSION_ADD = 128
_EXPANSION_SEARCH = 64


class Graph:
    """Row numbers, linked by the nearness of their vectors."""

    def __init__(self, dimensions: int, metric: Metric) -> None:
        try:
            from usearch.index import Index
        except ModuleNotFoundError as error:
            raise BackendError(
                "index='hnsw' needs usearch: pip install 'agent-memory-inmemory[hnsw]'"
            ) from error
        self._normalizes = metric is Metric.COSINE
        self._index: Any = Index(
            ndim=dimensions,
            metric=_METRICS[metric],
            # Half precision halves the memory, and the exact second look makes up for it; but it
            # only holds numbers up to 65,504, as those of vectors of length one are.
            dtype="f16" if self._normalizes else "f32",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )

    def put(self, rows: RowNumbers, vectors: Floats) -> None:
        """Link ``rows``, new or known."""
        known = rows[self._index.contains(rows)]
        if len(known):
            self._index.remove(known)
        self._index.add(rows, self._prepared(vectors))

    def remove(self, rows: RowNumbers) -> None:
        """Forget ``rows``."""
        self._index.remove(rows)

    def candidates(self, query: Floats) -> RowNumbers:
        """Return about `REACH` of the rows nearest to ``query``, in no order."""
        if self._normalizes and not _is_ordinary(query):
            query = self._prepared(query[None])[0]
        found = self._index.search(query, REACH)
        return np.asarray(found.keys, np.int64)

    def save(self, file: Path) -> None:
        """Write the graph into ``file``, through to the disk."""
        self._index.save(str(file))
        with file.open("rb+") as written:
            os.fsync(written.fileno())

    def load(self, file: Path) -> None:
        """Read the graph that `save` wrote."""
        try:
            self._index.load(str(file))
        except RuntimeError as error:
            raise BackendError(
                f"the saved graph {file} is damaged ({error}); delete that file alone, and the "
                f"graph is made again from the vectors"
            ) from error

    def _prepared(self, vectors: Floats) -> Floats:
        if not self._normalizes:
            return vectors
        doubles = vectors.astype(np.float64)
        lengths = np.sqrt(np.square(doubles).sum(axis=1, keepdims=True))
        prepared: Floats = (doubles / lengths).astype(np.float32)
        return prepared


def _is_ordinary(query: Floats) -> bool:
    """Tell whether the numbers of a vector are such that half precision holds them well."""
    with np.errstate(over="ignore"):
        return 0.01 < float(query.dot(query)) < 100

"""What the primitives of a backend take and give: rows, windows, queries, hits.

The vocabulary between `agent_memory.backend.Backend` and an engine, and nothing else. Engines
import these names from `agent_memory.backend`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, overload

from agent_memory.columns import Columns
from agent_memory.keywords import Keywords
from agent_memory.models import MemoryRecord
from agent_memory.predicates import Predicate
from agent_memory.vectors import Vector


class Metric(StrEnum):
    """How the distance between two vectors is measured."""

    COSINE = "cosine"
    """1 - cos of the angle: 0 (same direction) to 2 (opposite)."""
    L2 = "l2"
    """Euclidean distance: 0 and up."""
    IP = "ip"
    """1 - inner product; may be negative. Meant for vectors of length one."""

    def score(self, dist: float) -> float:
        """Return a distance as a score from 0 to 1, 1 the best.

        cosine and ip: ``1 - dist``, clamped; l2: ``1 / (1 + dist)``.
        """
        if self is Metric.L2:
            return 1.0 / (1.0 + dist)
        score = 1.0 - dist
        return score if 0.0 <= score <= 1.0 else min(1.0, max(0.0, score))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a space remembers of its vectors; those of another kind cannot be compared with them."""

    model: str
    dimensions: int
    metric: Metric


class Row(NamedTuple):
    """A record to store, with its vector."""

    record: MemoryRecord
    vector: Vector | None
    """``None``, in `_replace` alone, keeps the stored vector if the stored text is the same."""


class Rows(Sequence[Row]):
    """The rows of one write: a sequence of `Row`, or the same by column, as an engine likes it.

    Records are made when the first row is looked at, so an engine that reads columns saves that,
    and one with many rows does it part by part.

    Attributes:
        columns: the fields of the records, whose lists and objects are those of the records too.
        vectors: the vector of each; `PackedVectors` if they came together and fit together.
    """

    def __init__(self, columns: Columns, vectors: Sequence[Vector | None]) -> None:
        if len(vectors) != columns.count:
            raise ValueError(f"{len(vectors)} vectors for {columns.count} records")
        self.columns = columns
        self.vectors = vectors

    def take(self, positions: Sequence[int]) -> Rows:
        """Return the rows at ``positions``, in that order."""
        return Rows(self.columns.take(positions), [self.vectors[each] for each in positions])

    def parts(self, size: int) -> Iterator[Rows]:
        """Yield the rows in parts of ``size``."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __len__(self) -> int:
        return self.columns.count

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Row | Rows:
        if not isinstance(index, slice):
            return self._rows[index]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return self.take(range(start, stop, step))
        return Rows(self.columns.part(start, stop), self.vectors[start:stop])

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @cached_property
    def _rows(self) -> list[Row]:
        return [*map(Row, self.columns.to_records(), self.vectors)]


class Replaced(NamedTuple):
    """What `Backend._replace` did."""

    replaced: int
    """How many records existed and were replaced."""
    stale: Sequence[str]
    """Ids left alone because their row had no vector and the stored text is another one."""


class Listing(NamedTuple):
    """One page of records and how many match in all."""

    records: Sequence[MemoryRecord]
    total: int


class Hit(NamedTuple):
    """A record that was found, and how."""

    record: MemoryRecord
    dist: float | None
    """Distance in the space's metric; ``None`` in keyword search."""
    score: float | None = None
    """0 to 1; ``None`` in semantic search, where it follows from ``dist``."""


class Ranking(NamedTuple):
    """One page of hits, best first, and how many match in all if that was asked."""

    hits: Sequence[Hit]
    total: int | None
    more: bool = False
    """There is one more hit, which the window probes for and which was left out."""


class Window(NamedTuple):
    """Which part of a ranking is wanted."""

    offset: int
    limit: int
    with_total: bool
    probes: bool = False
    """The last hit is wanted only to tell that there is one: any that follows the others will do.

    An engine may heed this or not. It may also leave that hit out and say `Ranking.more`."""


class SemanticQuery(NamedTuple):
    """Nearest first, ties by id."""

    vector: Vector
    where: Predicate | None
    max_distance: float | None
    """Only hits at this distance or nearer; they alone count for the total."""
    window: Window


class KeywordQuery(NamedTuple):
    """Records that hold the keywords, the best match first with a score of 1.0, ties by id."""

    keywords: Keywords
    where: Predicate | None
    window: Window


class HybridQuery(NamedTuple):
    """Every matching record, by ``alpha * semantic score + (1 - alpha) * keyword score``.

    A record without the keywords has a keyword score of 0. Ties go by distance, then by id.
    """

    vector: Vector
    keywords: Keywords
    alpha: float
    where: Predicate | None
    window: Window

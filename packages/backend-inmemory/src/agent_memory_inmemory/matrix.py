"""Exact nearest-neighbour search: all vectors in one float32 matrix.

A search is one matrix-vector product, which finds who can be among the nearest, and an exact
second look at those few in float64, which finds who is. Vectors are kept as they were given, so
that equal vectors have equal distances and simple geometry comes out exact.

Formulas: the cosine distance is 1 - a·b / (|a| |b|), the inner-product distance 1 - a·b, and the
Euclidean distance is estimated by |a - b|² = |a|² - 2 a·b + |b|².
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent_memory.backend import Metric
from agent_memory_inmemory.growing import GrowingRows

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
RowNumbers = NDArray[np.int64]

RESOLUTION = 7
"""Distances are rounded to this many decimals, about the precision of the float32 given."""
_EPSILON = float(np.finfo(np.float32).eps)
_GATHER_BELOW = 0.3
"""Below this share of all vectors, gathering those to compare beats comparing all."""
_BLOCKS = 64
_LARGE = 1e15
_ORDINARY = 1e20
"""Squared lengths below this, and above its inverse, keep clear of the limits of float32."""
_CHUNK = 8_192


class Neighbours(NamedTuple):
    """The nearest rows, not yet in order of id where distances tie."""

    rows: RowNumbers
    distances: Doubles
    """In float64, rounded to `RESOLUTION` decimals, ascending."""
    within: int
    """How many of the rows compared lie within the largest distance asked for."""


class Matrix:
    """Vectors by row number; row numbers may have gaps, the matrix has none."""

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._growing = GrowingRows(dimensions)
        self._measure: NDArray[Any] = np.empty(0, np.float64 if metric is Metric.L2 else np.float32)
        """Beside each vector: 1 / |v| for cosine, |v|² for l2, nothing for ip."""
        self._row_at: RowNumbers = np.empty(0, np.int64)
        self._slot_of: RowNumbers = np.empty(0, np.int64)
        """By row number; -1 where there is no such row."""
        self._count = 0
        self._longest = 0.0
        """An upper bound of |v|."""

    def __len__(self) -> int:
        return self._count

    @property
    def _vectors(self) -> Floats:
        return self._growing.rows

    def reserve(self, rows: int, more: int) -> None:
        """Make room for row numbers below ``rows`` and ``more`` vectors, so `put` cannot fail."""
        if rows > len(self._slot_of):
            grown = np.full(max(rows, 2 * len(self._slot_of), 1_024), -1, np.int64)
            grown[: len(self._slot_of)] = self._slot_of
            self._slot_of = grown
        needed = self._count + more
        if needed > len(self._vectors):
            # Memory that is not touched yet costs nothing, so doubling is cheap.
            size = max(needed, 2 * len(self._vectors), 1_024)
            measure = _grown(self._measure, size, self._count)
            row_at = _grown(self._row_at, size, self._count)
            self._growing.grow(size)  # the last that can fail: all of them grow, or none
            self._measure, self._row_at = measure, row_at

    def put(self, rows: RowNumbers, vectors: Floats) -> None:
        """Store or replace the vectors of ``rows``, which are unique and have room reserved."""
        slots = self._slot_of[rows]
        new = slots < 0
        added = int(new.sum())
        slots[new] = np.arange(self._count, self._count + added)
        self._slot_of[rows] = slots
        self._row_at[slots] = rows
        self._count += added
        squares = _squared_lengths(vectors)
        if self._metric is Metric.COSINE and not (
            squares.min() > 1 / _ORDINARY and squares.max() < _ORDINARY
        ):
            vectors = _scaled_by_powers_of_two(vectors)
            squares = _squared_lengths(vectors)
        self._vectors[slots] = vectors
        if self._metric is Metric.COSINE:
            self._measure[slots] = 1.0 / np.sqrt(squares)
        elif self._metric is Metric.L2:
            self._measure[slots] = squares
        self._longest = max(self._longest, float(np.sqrt(squares.max())))

    def remove(self, rows: RowNumbers) -> None:
        """Forget ``rows``, which exist; the last vectors move into the gaps."""
        slots = self._slot_of[rows]
        left = self._count - len(rows)
        gaps = slots[slots < left]
        moved = np.setdiff1d(np.arange(left, self._count), slots)
        self._vectors[gaps] = self._vectors[moved]
        self._measure[gaps] = self._measure[moved]
        self._row_at[gaps] = self._row_at[moved]
        self._slot_of[rows] = -1
        self._slot_of[self._row_at[gaps]] = gaps
        self._count = left

    def nearest(
        self, query: Floats, count: int, *, rows: RowNumbers | None, max_distance: float | None
    ) -> Neighbours:
        """Return the ``count`` nearest, with all that tie with the last of them.

        Args:
            query: (dimensions,).
            count: how many; fewer if there are fewer.
            rows: compare these alone; all if ``None``.
            max_distance: leave out what lies farther.
        """
        slots = None if rows is None else self._slot_of[rows]
        estimates, error = self._estimates(query, slots)
        within = len(estimates)
        if max_distance is not None:
            # The bound is as exact as the distances are.
            limit = max_distance + 0.5 * 10.0**-RESOLUTION
            # As arrays, as float32 could not hold every number that a caller may give.
            outer, inner = np.array([[limit + error], [limit - error]])
            likely = np.flatnonzero(estimates <= outer)
            sure = estimates[likely] <= inner
            doubtful = likely[~sure]
            distances = self._exact(query, doubtful if slots is None else slots[doubtful])
            kept = np.sort(np.concatenate((likely[sure], doubtful[distances <= limit])))
            within = len(kept)
            estimates = estimates[kept]
            slots = kept if slots is None else slots[kept]
        candidates = _at_most(estimates, count, 2 * error)
        chosen = candidates if slots is None else slots[candidates]
        distances = self._exact(query, chosen)
        order = np.argsort(distances, kind="stable")
        if count < len(order):
            last = distances[order[count - 1]]
            order = order[: np.searchsorted(distances[order], last, side="right")]
        return Neighbours(self._row_at[chosen[order]], distances[order], within)

    def estimates(self, query: Floats, rows: RowNumbers) -> tuple[Floats, float]:
        """Return the distance of each of ``rows``, and by how much at most it may be wrong."""
        return self._estimates(query, self._slot_of[rows])

    def scores(self, distances: NDArray[Any]) -> Doubles:
        """Return distances as scores, as `Metric.score` does for one."""
        if self._metric is Metric.L2:
            scores: Doubles = 1.0 / (1.0 + np.maximum(distances, 0.0, dtype=np.float64))
            return scores
        return np.asarray(np.clip(1.0 - distances, 0.0, 1.0), np.float64)

    def distances(self, query: Floats, rows: RowNumbers) -> Doubles:
        """Return the exact distance of each of ``rows``, as `nearest` does."""
        return self._exact(query, self._slot_of[rows])

    def _estimates(self, query: Floats, slots: RowNumbers | None) -> tuple[Floats, float]:
        if slots is not None and len(slots) < _GATHER_BELOW * self._count:
            vectors, measure = self._vectors.take(slots, axis=0), self._measure[slots]
            slots = None
        else:
            vectors, measure = self._vectors[: self._count], self._measure[: self._count]
        length = _length(query)
        # Summing n products in float32 is off by at most n times the machine epsilon, relative to
        # |a| |b| (the usual bound, e.g. Higham, Accuracy and Stability of Numerical Algorithms,
        # section 3.1); the few more are the roundings before and after.
        relative = (len(query) + 8) * _EPSILON
        if self._metric is Metric.COSINE:
            estimates = vectors @ (query.astype(np.float64) / length).astype(np.float32)
            estimates *= measure
            np.subtract(1, estimates, out=estimates)
            error = relative
        else:
            reach = length + self._longest
            # Where squares could overflow float32, the slower sums in float64 do not.
            precision = np.float32 if reach < _LARGE else np.float64
            estimates = vectors @ query.astype(precision)
            if self._metric is Metric.IP:
                np.subtract(1, estimates, out=estimates)
                error = relative * (1 + length * self._longest)
            else:
                estimates *= -2
                estimates += measure.astype(precision)
                estimates += length * length
                np.sqrt(np.maximum(estimates, 0, out=estimates), out=estimates)
                # An error e of the square is at most e / d of the distance d, and at most its root.
                square_error = reach * reach * relative
                error = math.sqrt(square_error)
                least = float(estimates.min(initial=math.inf)) - error
                if least > error:
                    error = square_error / least
        error += 10.0**-RESOLUTION
        return (estimates if slots is None else estimates[slots]), error

    def _exact(self, query: Floats, slots: RowNumbers) -> Doubles:
        """Return the distances of ``slots`` in float64, each computed alone.

        Not by a matrix product: that may add up equal vectors in different orders, and equal
        vectors have to tie.
        """
        target = query.astype(np.float64)
        distances = np.empty(len(slots))
        for start in range(0, len(slots), _CHUNK):
            part = self._vectors[slots[start : start + _CHUNK]].astype(np.float64)
            if self._metric is Metric.L2:
                result = np.sqrt(np.square(part - target).sum(axis=1))
            else:
                result = (part * target).sum(axis=1)
                if self._metric is Metric.COSINE:
                    result /= np.sqrt(np.square(part).sum(axis=1)) * _length(query)
                    np.clip(result, -1.0, 1.0, out=result)
                result = 1.0 - result
            distances[start : start + _CHUNK] = result
        return np.round(distances, RESOLUTION) + 0.0  # + 0.0 makes -0.0 a plain 0.0


def _grown(values: NDArray[Any], size: int, used: int) -> NDArray[Any]:
    grown = np.empty((size, *values.shape[1:]), values.dtype)
    grown[:used] = values[:used]
    return grown


def _squared_lengths(vectors: Floats) -> Doubles:
    squares: Doubles = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return squares


def _scaled_by_powers_of_two(vectors: Floats) -> Floats:
    """Return vectors of the same direction whose largest part lies from 0.5 to 1.

    Exact, and squares of very large or small numbers then neither overflow nor vanish.
    """
    _, exponents = np.frexp(np.abs(vectors).max(axis=1, keepdims=True))
    scaled: Floats = np.ldexp(vectors, -exponents)
    return scaled


def _length(vector: Floats) -> float:
    return float(np.sqrt(np.square(vector, dtype=np.float64).sum()))


def _at_most(values: Floats, count: int, tolerance: float) -> RowNumbers:
    """Return the positions of all that may be among the ``count`` smallest."""
    size = len(values)
    if count >= size:
        return np.arange(size)
    if size >= _BLOCKS * _BLOCKS and count * _BLOCKS <= size:
        # The count-th smallest of the blocks' minima is an upper bound of the count-th smallest of
        # all, and much faster to find; a good one while there are more blocks than places.
        minima = values[: size - size % _BLOCKS].reshape(_BLOCKS, -1).min(axis=0)
        bound = np.partition(minima, count - 1)[count - 1]
    else:
        bound = np.partition(values, count - 1)[count - 1]
    return np.flatnonzero(values <= bound + tolerance)

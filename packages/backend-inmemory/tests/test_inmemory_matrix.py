"""Exact search: the matrix against every distance computed alone in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from agent_memory.backend import Metric
from agent_memory_inmemory.matrix import RESOLUTION, Matrix, _at_most

Vectors = dict[int, list[float]]

STEP = 10.0**-RESOLUTION
METRICS = list(Metric)

few_numbers = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5])
"""So few that vectors are equal, parallel, opposite and at right angles again and again."""
any_numbers = st.floats(-(2.0**100), 2.0**100, width=32)


def singles(values: Any) -> NDArray[np.float32]:
    """Return ``values`` as embeddings come in."""
    return np.array(values, np.float32)


def vectors_of(
    numbers: st.SearchStrategy[float], dimensions: int
) -> st.SearchStrategy[list[float]]:
    return st.lists(numbers, min_size=dimensions, max_size=dimensions).filter(
        lambda vector: bool(singles(vector).any())
    )


def filled(vectors: Vectors, metric: Metric) -> Matrix:
    matrix = Matrix(len(next(iter(vectors.values()))), metric)
    matrix.reserve(max(vectors) + 1, len(vectors))
    matrix.put(np.array(list(vectors), np.int64), singles(list(vectors.values())))
    return matrix


def distance(metric: Metric, one: Sequence[float], other: Sequence[float]) -> float:
    """Return the distance of two vectors of float32, by its definition."""
    a, b = (singles(each).astype(np.float64) for each in (one, other))
    if metric is Metric.L2:
        return float(np.sqrt(((a - b) ** 2).sum()))
    if metric is Metric.IP:
        return float(1 - (a * b).sum())
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(1 - (a * b).sum() / (np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())))


def about(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-9, abs=STEP)


def check_nearest(
    matrix: Matrix,
    metric: Metric,
    vectors: Vectors,
    query: Sequence[float],
    count: int,
    max_distance: float | None = None,
    among: Sequence[int] | None = None,
) -> None:
    """Compare one search with the brute force answer."""
    rows = None if among is None else np.array(among, np.int64)
    found = matrix.nearest(singles([query])[0], count, rows=rows, max_distance=max_distance)
    compared = list(vectors) if among is None else among
    exact = {row: distance(metric, vectors[row], query) for row in compared}
    distances = found.distances.tolist()
    assert distances == sorted(distances)
    assert len(set(found.rows.tolist())) == len(found.rows)
    for row, dist in zip(found.rows.tolist(), distances, strict=True):
        assert dist == about(exact[row])
    slack = STEP + 1e-9 * max(map(abs, exact.values()), default=0.0)
    if max_distance is None:
        assert found.within == len(compared)
        eligible = sorted(exact.values())
    else:
        assert all(dist <= max_distance + slack for dist in distances)
        surely = sum(dist <= max_distance - slack for dist in exact.values())
        perhaps = sum(dist <= max_distance + slack for dist in exact.values())
        assert surely <= found.within <= perhaps
        eligible = sorted(exact.values())[: found.within]
    assert len(found.rows) >= min(count, len(eligible))
    for dist, best in zip(distances[:count], eligible, strict=False):
        assert dist == pytest.approx(best, rel=1e-9, abs=2 * slack)
    if count < len(eligible):  # whoever ties with the last place is there as well
        last = distances[count - 1]
        assert all(dist <= last for dist in distances)
        ties = {row for row, dist in exact.items() if vectors[row] == vectors[int(found.rows[-1])]}
        assert ties <= set(found.rows.tolist())


class MatrixAgainstDict(RuleBasedStateMachine):
    """Puts, replacements and removals in any order, then searches of every kind."""

    @initialize(metric=st.sampled_from(METRICS))
    def make(self, metric: Metric) -> None:
        self.metric = metric
        self.matrix = Matrix(2, metric)
        self.vectors: Vectors = {}

    @rule(
        put=st.dictionaries(
            st.integers(1, 40), vectors_of(few_numbers, 2) | vectors_of(any_numbers, 2), min_size=1
        )
    )
    def put(self, put: Vectors) -> None:
        more = len(put.keys() - self.vectors.keys())
        self.matrix.reserve(max(put) + 1, more)
        self.matrix.put(np.array(list(put), np.int64), singles(list(put.values())))
        self.vectors |= put

    @precondition(lambda self: self.vectors)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(sorted(self.vectors)), min_size=1, unique=True))
        self.matrix.remove(np.array(rows, np.int64))
        for row in rows:
            del self.vectors[row]

    @rule(
        data=st.data(),
        query=vectors_of(few_numbers, 2) | vectors_of(any_numbers, 2),
        count=st.integers(1, 6),
    )
    def search(self, data: st.DataObject, query: list[float], count: int) -> None:
        rows = sorted(self.vectors)
        among = data.draw(
            st.none() | (st.lists(st.sampled_from(rows), unique=True) if rows else st.just([]))
        )
        exact = [distance(self.metric, each, query) for each in self.vectors.values()]
        limits = st.none() | st.sampled_from([*exact, 0.0, 1.0, -1e300, 1e300])
        limit = data.draw(limits)
        check_nearest(self.matrix, self.metric, self.vectors, query, count, limit, among)

    @invariant()
    def counts(self) -> None:
        assert len(self.matrix) == len(self.vectors)


MatrixAgainstDict.TestCase.settings = settings(
    deadline=None, max_examples=40, stateful_step_count=12
)
TestMatrixAgainstDict = MatrixAgainstDict.TestCase


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-3, 1.0, 1e14, 1e30, 3e37])
@pytest.mark.parametrize("dimensions", [1, 3, 100])
def test_every_scale_of_vectors_is_searched_exactly(
    metric: Metric, scale: float, dimensions: int
) -> None:
    generator = np.random.default_rng(7)
    values = generator.standard_normal((300, dimensions)) * scale
    vectors: Vectors = dict(enumerate(singles(values).tolist(), 1))
    matrix = filled(vectors, metric)
    for query in singles(generator.standard_normal((3, dimensions)) * scale).tolist():
        exact = sorted(distance(metric, each, query) for each in vectors.values())
        for limit in (None, exact[40], exact[0], math.inf):
            check_nearest(matrix, metric, vectors, query, 10, limit)
            check_nearest(matrix, metric, vectors, query, 10, limit, among=range(1, 60))
            check_nearest(matrix, metric, vectors, query, 10, limit, among=range(1, 250))


@pytest.mark.parametrize("metric", METRICS)
def test_one_vector_of_another_scale_hides_no_difference_between_the_others(
    metric: Metric,
) -> None:
    generator = np.random.default_rng(8)
    values = singles(generator.standard_normal((200, 4)))
    values[0] *= np.float32(1e12)
    vectors: Vectors = dict(enumerate(values.tolist(), 1))
    matrix = filled(vectors, metric)
    check_nearest(matrix, metric, vectors, generator.standard_normal(4).tolist(), 10)


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_that_float32_cannot_tell_apart_are_told_apart(metric: Metric) -> None:
    """Far from the origin, the estimates are off by more than the distances differ."""
    generator = np.random.default_rng(12)
    centre = 1_000 * generator.standard_normal(100)
    values = singles(centre + generator.standard_normal((5_000, 100)) / 100)
    vectors: Vectors = dict(enumerate(values.tolist(), 1))
    matrix = filled(vectors, metric)
    for count in (1, 200):
        check_nearest(matrix, metric, vectors, singles(centre).tolist(), count)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_tie_wherever_they_stand(metric: Metric) -> None:
    generator = np.random.default_rng(9)
    query = singles(generator.standard_normal(37))
    values = singles(generator.standard_normal((5_000, 37)))
    copies = [0, 1, 63, 64, 999, 2_500, 4_095, 4_096, 4_999]
    values[copies] = query + np.float32(0.01)
    matrix = filled(dict(enumerate(values.tolist(), 1)), metric)
    expected = {each + 1 for each in copies}
    if metric is Metric.IP:  # nearness by inner product is not likeness: ask about these alone
        rows = np.array(sorted(expected), np.int64)
        assert len(set(matrix.distances(query, rows).tolist())) == 1
        return
    for count in (1, 3, 9):
        found = matrix.nearest(query, count, rows=None, max_distance=None)
        assert set(found.rows.tolist()) == expected  # all that tie with the last place
        assert len(set(found.distances.tolist())) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_large_spaces_are_searched_exactly(metric: Metric) -> None:
    generator = np.random.default_rng(10)
    values = singles(generator.standard_normal((6_000, 4)))
    vectors: Vectors = dict(enumerate(values.tolist(), 1))
    matrix = filled(vectors, metric)
    query = generator.standard_normal(4).tolist()
    for count in (10, 93, 94):
        check_nearest(matrix, metric, vectors, query, count)


@pytest.mark.parametrize("metric", METRICS)
def test_estimates_are_off_by_less_than_they_say(metric: Metric) -> None:
    generator = np.random.default_rng(11)
    for scale in (1e-20, 1.0, 1e4, 1e20):
        values = singles(generator.standard_normal((500, 300)) * scale)
        matrix = filled(dict(enumerate(values.tolist(), 1)), metric)
        query = singles(generator.standard_normal(300) * scale)
        rows = np.arange(1, 501)
        estimates, error = matrix.estimates(query, rows)
        off = estimates.astype(np.float64) - matrix.distances(query, rows)
        assert float(np.abs(off).max()) <= error


def test_the_distance_asked_for_is_included() -> None:
    matrix = filled({1: [3.0, 4.0], 2: [3.0, 4.001]}, Metric.L2)
    origin = singles([[0.0, 0.0]])[0]
    assert matrix.nearest(origin, 10, rows=None, max_distance=5.0).rows.tolist() == [1]
    assert matrix.nearest(origin, 10, rows=None, max_distance=4.9999999).within == 0
    assert matrix.nearest(origin, 10, rows=None, max_distance=5.0008).rows.tolist() == [1, 2]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_many_are_those_of_each(metric: Metric) -> None:
    distances = [-3.0, 0.0, 0.25, 1.0, 1.5, 2.0, 1e9]
    scores = Matrix(1, metric).scores(np.array(distances))
    if metric is Metric.L2:
        distances = [max(each, 0.0) for each in distances]
    assert scores.tolist() == [metric.score(each) for each in distances]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9_000), st.integers(1, 9_000), st.floats(0, 0.1), st.integers(0, 2**32 - 1))
def test_at_most_leaves_out_none_of_the_smallest(
    size: int, count: int, tolerance: float, seed: int
) -> None:
    values = singles(np.random.default_rng(seed).integers(0, 1_000, size) / 100)
    chosen = _at_most(values, count, tolerance)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    if count < size:
        bound = np.sort(values)[count - 1]
        assert set(np.flatnonzero(values <= bound)) <= set(chosen)
        assert set(np.flatnonzero(values <= bound + np.float32(tolerance))) <= set(chosen)
        if count * 100 < size:
            assert len(chosen) < size  # it does choose
    else:
        assert len(chosen) == size

"""Vectors on their way in: packed as float32, or refused with a reason."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_memory import EmbeddingError
from agent_memory.vectors import PackedVectors, Vector, pack_vectors

# A busy machine is slow, not wrong.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pack(
    vectors: Any, *, texts: int = 1, dimensions: int = 2, zero: bool = False
) -> Sequence[Vector]:
    return pack_vectors(
        vectors,
        texts=[f"text {each}" for each in range(texts)],
        dimensions=dimensions,
        model="some-model",
        zero_allowed=zero,
    )


singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@patient
@given(st.lists(st.lists(singles, min_size=3, max_size=3), max_size=5))
def test_vectors_keep_their_numbers_and_their_order(vectors: list[list[float]]) -> None:
    for form in (
        vectors,
        tuple(tuple(each) for each in vectors),
        [np.array(each, np.float32) for each in vectors],
        [np.array(each, np.float64) for each in vectors],
        np.array(vectors, np.float32).reshape(len(vectors), 3),
        pack(vectors, texts=len(vectors), dimensions=3, zero=True),
    ):
        packed = pack(form, texts=len(vectors), dimensions=3, zero=True)
        assert [each.tolist() for each in packed] == vectors
        assert [each.tobytes() for each in packed] == [struct.pack("3f", *each) for each in vectors]


@patient
@given(
    st.lists(st.lists(singles, min_size=3, max_size=3), min_size=1, max_size=5),
    st.slices(5),
    st.integers(-6, 5),
)
def test_vectors_in_one_buffer_are_a_sequence_like_any_other(
    vectors: list[list[float]], part: slice, place: int
) -> None:
    packed = pack(np.array(vectors, np.float32), texts=len(vectors), dimensions=3, zero=True)
    assert isinstance(packed, PackedVectors)
    assert packed.buffer.readonly
    assert [each.tolist() for each in packed[part]] == vectors[part]
    assert len(packed[part]) == len(vectors[part])
    try:
        should = vectors[place]
    except IndexError:
        with pytest.raises(IndexError):
            packed[place]
    else:
        assert packed[place].tolist() == should
        assert packed[place].readonly


def test_what_the_embeddings_do_to_their_array_later_is_not_seen() -> None:
    array = np.ones((2, 2), np.float32)
    packed = pack(array, texts=2)
    array[:] = 7
    assert [each.tolist() for each in packed] == [[1, 1], [1, 1]]


anything = (
    st.floats()
    | st.integers(-(2**200), 2**200)
    | st.sampled_from(
        [True, None, "1", np.float32(0.5), np.float64(1e300), 10**400, 0, -0.0, 1e-60]
    )
)


@patient
@given(
    st.lists(
        st.lists(anything, min_size=2, max_size=2) | st.lists(anything, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_lists_of_anything_are_packed_as_single_numbers_are_or_refused(
    vectors: list[list[Any]], zero: bool
) -> None:
    try:
        should = [array("f", each) for each in vectors]
        refused = any(
            len(each) != 2 or not all(map(math.isfinite, each)) or not (zero or any(each))
            for each in should
        )
    except (TypeError, OverflowError):
        refused = True
    try:
        packed = pack(vectors, texts=len(vectors), zero=zero)
    except EmbeddingError:
        assert refused
    else:
        assert not refused
        assert [each.tobytes() for each in packed] == [each.tobytes() for each in should]


words = st.binary(min_size=4, max_size=4) | st.sampled_from(
    [struct.pack("f", each) for each in (0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, 3e38)]
)


@patient
@given(st.lists(words, min_size=1, max_size=5))
def test_any_bits_are_packed_as_they_are_or_refused(bits: list[bytes]) -> None:
    vector = np.frombuffer(b"".join(bits), np.float32)
    refused = not np.isfinite(vector).all() or not vector.any()
    try:
        [packed] = pack([vector], dimensions=len(bits))
    except EmbeddingError:
        assert refused
    else:
        assert not refused
        assert packed.tobytes() == vector.tobytes()


def test_a_packed_vector_cannot_be_changed_and_shares_nothing() -> None:
    source = np.array([[1.0, 2.0]], np.float32)
    (packed,) = pack(source)
    source[0, 0] = 9.0
    assert packed.tolist() == [1.0, 2.0]
    assert packed.readonly
    assert (packed.format, packed.ndim, packed.nbytes) == ("f", 1, 8)
    view = np.asarray(packed)
    assert view.dtype == np.float32
    assert view.tolist() == [1.0, 2.0]
    assert not view.flags.owndata


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (None, "'some-model' returned a NoneType; expected a list of vectors"),
        (5, "'some-model' returned a int; expected a list of vectors"),
        (iter([[1.0, 2.0]]), "expected a list of vectors"),
        ([], "'some-model' returned 0 vectors for 1 texts"),
        ([[1.0, 2.0]] * 2, "'some-model' returned 2 vectors for 1 texts"),
        ([[1.0]], "'some-model' returned 1 dimensions for 'text 0', expected 2"),
        ([[1.0, 2.0, 3.0]], "returned 3 dimensions for 'text 0', expected 2"),
        ([[]], "returned 0 dimensions for 'text 0', expected 2"),
        ([None], "'some-model' returned no vector of numbers for 'text 0'"),
        ([[1.0, None]], "returned no vector of numbers for 'text 0'"),
        ([["1", "2"]], "returned no vector of numbers for 'text 0'"),
        ([[[1.0, 2.0]]], "returned no vector of numbers for 'text 0'"),
        (["ab"], "returned no vector of numbers for 'text 0'"),
        ([[10**400, 1.0]], "returned no vector of numbers for 'text 0'"),
        ([[1j, 1.0]], "returned no vector of numbers for 'text 0'"),
        ([[math.nan, 1.0]], "returned a vector with an infinite value or NaN for 'text 0'"),
        ([[math.inf, -math.inf]], "an infinite value or NaN"),
        ([[-math.inf, 1.0]], "an infinite value or NaN"),
        ([[1e39, 1.0]], "an infinite value or NaN"),
        ([np.array([np.nan, 1.0])], "an infinite value or NaN"),
        ([[0.0, -0.0]], "returned a vector of zeros for 'text 0', which has no direction"),
        ([[1e-60, 0.0]], "returned a vector of zeros"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value).partition(" at 0x")[0][:30],
)
def test_what_is_no_vector_is_refused_with_the_model_and_the_text(
    vectors: Any, message: str
) -> None:
    with pytest.raises(EmbeddingError) as caught:
        pack(vectors)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["e", "f", "d", ">f", ">d", "b", "l", "L"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_of_any_kind_of_number_is_packed_row_by_row(kind: str, order: Any) -> None:
    matrix = np.array([[1, 2], [3, 4], [5, 0]], kind, order=order)
    packed = pack(matrix, texts=3)
    assert [each.tolist() for each in packed] == [[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]
    assert all(each.readonly and each.format == "f" for each in packed)
    matrix[:] = 9
    assert packed[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (math.nan, "an infinite value or NaN for 'text 1'"),
        (math.inf, "an infinite value or NaN for 'text 1'"),
        (-math.inf, "an infinite value or NaN for 'text 1'"),
        (1e39, "an infinite value or NaN for 'text 1'"),
        (0.0, "a vector of zeros for 'text 1'"),
        (1e-60, "a vector of zeros for 'text 1'"),  # what float32 makes of it
    ],
)
def test_a_matrix_is_refused_for_one_row(wrong: float, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        pack(np.array([[1.0, 2.0], [wrong, 0.0]]), texts=2)
    for shape in ((2, 3), (2,), (2, 2, 1)):
        with pytest.raises(EmbeddingError):
            pack(np.ones(shape), texts=2)
    with pytest.raises(EmbeddingError):
        pack(np.array([["1", "2"], ["3", "4"]]), texts=2)


class _Shrinking(list[list[float]]):
    """A list that has lost a vector by the time it is read."""

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self[:-1])


def test_a_list_that_changes_meanwhile_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="returned 1 vectors for 2 texts"):
        pack(_Shrinking([[1.0, 2.0], [3.0, 4.0]]), texts=2)


class _Tensor:
    """What tensors have in common: NumPy's names, other types, no buffer."""

    dtype = "float32"

    def __init__(self, numbers: list[Any]) -> None:
        self.numbers = numbers
        self.ndim = 1 + isinstance(numbers[0], list)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> _Tensor:
        return _Tensor(self.numbers[index])

    def tolist(self) -> list[Any]:
        return self.numbers


def test_a_tensor_is_packed_row_by_row() -> None:
    packed = pack(_Tensor([[1.0, 2.0], [3.0, 4.0]]), texts=2)
    assert [each.tolist() for each in packed] == [[1.0, 2.0], [3.0, 4.0]]


def test_the_message_names_the_text_of_the_wrong_vector() -> None:
    with pytest.raises(EmbeddingError, match="'text 2'"):
        pack([[1.0, 1.0], [1.0, 1.0], [math.nan, 1.0]], texts=3)


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(EmbeddingError) as caught:
        pack_vectors([[]], texts=["x" * 10_000], dimensions=1, model="m", zero_allowed=True)
    assert len(str(caught.value)) < 200


def test_zeros_are_allowed_where_they_have_a_distance() -> None:
    assert pack([[0.0, 0.0]], zero=True)[0].tolist() == [0.0, 0.0]


def test_the_largest_numbers_do_not_overflow_the_check() -> None:
    largest = float(np.finfo(np.float32).max)
    packed = pack([[largest] * 4096], dimensions=4096)
    assert packed[0].tolist() == [largest] * 4096

"""Vectors on their way from embeddings to an engine: checked, and packed as float32.

NumPy is not needed here: embeddings may return lists of floats or arrays, and engines take a
`Vector` as they like it.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias, overload

from agent_memory.errors import EmbeddingError

_HIGH_BYTE = 3 if sys.byteorder == "little" else 0
_LARGEST_FLOAT32 = 3.4028234663852886e38

Vector: TypeAlias = "memoryview[float]"
"""One vector: a one-dimensional, read-only buffer of float32 in the machine's byte order.

``vector.tolist()`` gives floats, ``vector.tobytes()`` the packed bytes,
``numpy.asarray(vector)`` an array without copying. Copy what is to be kept: it may be a part of a
buffer that holds many vectors.
"""


class PackedVectors(Sequence[Vector]):
    """Vectors that lie one behind the other in one buffer; each is made when it is looked at.

    Attributes:
        buffer: all their numbers, read-only.
        dimensions: how many of them each vector has.
    """

    def __init__(self, buffer: Vector, dimensions: int) -> None:
        self.buffer = buffer
        self.dimensions = dimensions

    def __len__(self) -> int:
        return len(self.buffer) // self.dimensions

    @overload
    def __getitem__(self, index: int) -> Vector: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Vector]: ...

    def __getitem__(self, index: int | slice) -> Vector | Sequence[Vector]:
        size = self.dimensions
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self[each] for each in range(start, stop, step)]
            return PackedVectors(self.buffer[start * size : stop * size], size)
        place = range(len(self))[index]
        return self.buffer[place * size : (place + 1) * size]


def pack_vectors(
    vectors: Any, *, texts: Sequence[str], dimensions: int, model: str, zero_allowed: bool
) -> Sequence[Vector]:
    """Return what embeddings returned as packed vectors, one for each of ``texts``.

    Args:
        vectors: a sequence of lists of floats or of arrays, or one two-dimensional array.
        texts: what was embedded, for the messages.
        dimensions: how many numbers each vector must have.
        model: the name of the embeddings, for the messages.
        zero_allowed: whether a vector of zeros has a distance to others (by cosine it has none).

    Raises:
        EmbeddingError: the wrong number or size of vectors, a value that float32 cannot hold.
    """
    try:
        count = len(vectors)
    except TypeError:
        raise EmbeddingError(
            f"{model!r} returned a {type(vectors).__name__}; expected a list of vectors"
        ) from None
    if count == len(texts):
        packed = _array_if_clean(vectors, dimensions, zero_allowed=zero_allowed)
        if packed is not None:
            return packed
        vectors = [*vectors]  # embeddings may keep their list, and change it meanwhile
        count = len(vectors)
    if count != len(texts):
        raise EmbeddingError(f"{model!r} returned {count} vectors for {len(texts)} texts")
    return _lists_if_clean(vectors, dimensions, zero_allowed=zero_allowed) or [
        pack_vector(vector, text, dimensions=dimensions, model=model, zero_allowed=zero_allowed)
        for vector, text in zip(vectors, texts, strict=True)
    ]


def _array_if_clean(vectors: Any, dimensions: int, *, zero_allowed: bool) -> PackedVectors | None:
    """Return a copy of ``vectors`` if they are one array in which no vector can be refused."""
    if getattr(vectors, "ndim", 0) != 2 or not len(vectors):
        return None
    if getattr(getattr(vectors, "dtype", None), "kind", "none of NumPy's") not in "fiu":
        return None
    if vectors.shape[1] != dimensions or not _fits_float32(vectors):
        return None
    packed = vectors.astype("float32", order="C")
    if not zero_allowed and not packed.any(axis=1).all():  # tiny ones have become zero
        return None
    return PackedVectors(memoryview(packed).toreadonly().cast("B").cast("f"), dimensions)


def _lists_if_clean(
    vectors: list[Any], dimensions: int, *, zero_allowed: bool
) -> PackedVectors | None:
    """Return ``vectors`` if they are lists of numbers in which no vector can be refused."""
    if {*map(type, vectors)} != {list}:
        return None
    pack = struct.Struct(f"{dimensions}f").pack
    try:
        packed = [pack(*each) for each in vectors]
    except struct.error:
        return None
    buffer = b"".join(packed)
    if not _is_finite(buffer) or not (zero_allowed or all(map(_is_nonzero, packed))):
        return None
    return PackedVectors(memoryview(buffer).cast("f"), dimensions)


def _fits_float32(vectors: Any) -> bool:
    # Not the largest of absolute values, which would be a copy of all. NaN passes no comparison.
    return bool(
        float(vectors.max()) <= _LARGEST_FLOAT32 and float(vectors.min()) >= -_LARGEST_FLOAT32
    )


def pack_vector(
    vector: Any, text: str, *, dimensions: int, model: str, zero_allowed: bool
) -> Vector:
    """Return what embeddings returned for one text as a packed vector; see `pack_vectors`."""
    try:
        packed = _packed_floats(vector)
    except (TypeError, ValueError, OverflowError) as error:
        raise EmbeddingError(
            f"{model!r} returned no vector of numbers for {_shown(text)}: {error}"
        ) from error
    values: Vector = memoryview(packed).cast("f")
    if len(values) != dimensions:
        raise EmbeddingError(
            f"{model!r} returned {len(values)} dimensions for {_shown(text)}, expected {dimensions}"
        )
    # The sum of finite float32 is a finite float64, and anything else spoils it.
    if not _is_finite(packed) and not math.isfinite(sum(values)):
        raise EmbeddingError(
            f"{model!r} returned a vector with an infinite value or NaN for {_shown(text)}"
        )
    if not zero_allowed and not _is_nonzero(packed) and not any(values):
        raise EmbeddingError(
            f"{model!r} returned a vector of zeros for {_shown(text)}, which has no direction"
        )
    return values


def _is_finite(packed: bytes) -> bool:
    """Tell whether one byte of each number shows that all of them are finite.

    ``False`` says nothing; nearly all vectors are that plain, and to look at whole numbers takes
    longer than all else that is done to a query.

    Args:
        packed: float32 in the machine's byte order.
    """
    # Sign and exponent but for its last bit, which are all ones for infinity, NaN and huge numbers.
    high = packed[_HIGH_BYTE::4]
    return 0x7F not in high and 0xFF not in high


def _is_nonzero(packed: bytes) -> bool:
    """Tell whether a byte shows that not all numbers are zero; ``False`` says nothing, either."""
    return bool(packed.lstrip(b"\x00\x80"))  # 0.0 and -0.0 are made of these


def _packed_floats(vector: Any) -> bytes:
    if type(vector) is list:
        with suppress(struct.error):  # what follows says it better
            return struct.pack(f"{len(vector)}f", *vector)  # takes half as long
    if not hasattr(vector, "tolist"):
        return array("f", vector).tobytes()
    try:
        buffer = memoryview(vector)
    except (TypeError, ValueError):  # a tensor, or an array of a type that buffers cannot have
        return array("f", vector.tolist()).tobytes()
    if buffer.format != "f" or buffer.ndim != 1:
        return array("f", vector.tolist()).tobytes()
    return buffer.tobytes()


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

"""Embeddings whose geometry is known exactly, which count their calls and fail on demand.

`ExactEmbeddings` puts texts on a palette of vectors whose distances from every query are exact:
order and ties can be checked to the last record. `ScatteredEmbeddings` spreads texts as real
models do, for recall. Both need neither a model nor a network.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import math
import re
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Literal

Numbers = tuple[float, ...]
Container = Literal["lists", "tuples", "arrays"]
"""What vectors are returned as; ``arrays`` needs NumPy."""

POISON = "poison"
"""A text that holds this word is the one that a `Fault` hits."""

NUMPY_IS_INSTALLED = importlib.util.find_spec("numpy") is not None


class Fault(StrEnum):
    """A way in which embedding goes wrong."""

    RAISES = "raises"
    ONE_TOO_FEW = "one vector too few"
    ONE_TOO_MANY = "one vector too many"
    TOO_SHORT = "a vector too short"
    TOO_LONG = "a vector too long"
    NOT_A_NUMBER = "a vector with NaN"
    INFINITE = "a vector with infinity"
    NO_DIRECTION = "a vector of zeros"
    """An error where the metric is cosine, which is not defined for it."""


class EmbeddingServiceDown(Exception):
    """What `Fault.RAISES` raises: some exception that is not of this ecosystem."""


class CountingEmbeddings(ABC):
    """Embeddings that count their calls, and fail as long as ``fault`` is set."""

    def __init__(self, *, model: str, dimensions: int, container: Container = "lists") -> None:
        self.model = model
        self.dimensions = dimensions
        self.container = container
        self.fault: Fault | None = None
        self.document_batches: list[int] = []
        """How many texts each call of ``aembed_documents`` had."""
        self.query_calls = 0

    @property
    def texts_embedded(self) -> int:
        """How many texts have been embedded as documents."""
        return sum(self.document_batches)

    def forget_calls(self) -> None:
        """Start counting anew."""
        self.document_batches.clear()
        self.query_calls = 0

    @abstractmethod
    def document_vector(self, text: str) -> Numbers:
        """Return the vector that ``text`` has as a document."""

    @abstractmethod
    def query_vector(self, text: str) -> Numbers:
        """Return the vector that ``text`` has as a query."""

    async def aembed_documents(self, texts: list[str]) -> Any:
        self.document_batches.append(len(texts))
        vectors: list[Numbers] = []
        for number, text in enumerate(texts):
            if number % 500 == 0:
                await asyncio.sleep(0)  # as a service would, and so as not to block the loop
            vectors.extend(self._spoilt(text, self.document_vector(text)))
        return self._contained(vectors)

    async def aembed_query(self, text: str) -> Any:
        self.query_calls += 1
        await asyncio.sleep(0)
        vectors = self._spoilt(text, self.query_vector(text))
        return self._contained(vectors)[0]

    def _spoilt(self, text: str, vector: Numbers) -> list[Numbers]:
        if self.fault is None or POISON not in text:
            return [vector]
        match self.fault:
            case Fault.RAISES:
                raise EmbeddingServiceDown("the embedding service is down")
            case Fault.ONE_TOO_FEW:
                return []
            case Fault.ONE_TOO_MANY:
                return [vector, vector]
            case Fault.TOO_SHORT:
                return [vector[:-1]]
            case Fault.TOO_LONG:
                return [(*vector, 1.0)]
            case Fault.NOT_A_NUMBER:
                return [(math.nan, *vector[1:])]
            case Fault.INFINITE:
                return [(math.inf, *vector[1:])]
            case Fault.NO_DIRECTION:
                return [(0.0,) * len(vector)]

    def _contained(self, vectors: Sequence[Numbers]) -> Sequence[Any]:
        if self.container == "tuples":
            return tuple(vectors)
        if self.container == "arrays":
            import numpy as np

            return [np.array(each) for each in vectors]
        return [list(each) for each in vectors]


# --- exact geometry --------------------------------------------------------------------------

EXACT_DIMENSIONS = 8
AXES = 2 * EXACT_DIMENSIONS
"""Vectors number 0 to 7 are the axes, 8 to 15 their opposites; queries have these alone."""
_HALVES = EXACT_DIMENSIONS
_TRIPLES = ((3, 4), (5, 12), (8, 15), (7, 24))
_SCALES = (1.0, 2.0, 0.5)
_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
_MARK = re.compile(r"<(\d{1,5})>")


def _count_of_vectors() -> int:
    places = EXACT_DIMENSIONS * (EXACT_DIMENSIONS - 1)
    return AXES + _HALVES + places * len(_TRIPLES) * len(_SIGNS) * len(_SCALES)


VECTORS = _count_of_vectors()
"""How many different vectors `exact_vector` knows."""


@cache
def exact_vector(number: int) -> Numbers:
    """Return vector ``number`` (0 to `VECTORS` - 1) of the palette.

    First the axes, then their opposites, then eight of four ones (cosine 1/2 with four axes), then
    the legs of Pythagorean triples on two axes, with all signs and three lengths. All numbers are
    exact in float32, all lengths are rational, and the distances from an axis are either equal in
    any sane floating-point arithmetic or at least 1e-3 apart, by cosine, L2 and inner product.
    """
    vector = [0.0] * EXACT_DIMENSIONS
    if number < AXES:
        vector[number % EXACT_DIMENSIONS] = 1.0 if number < EXACT_DIMENSIONS else -1.0
        return tuple(vector)
    number -= AXES
    if number < _HALVES:
        for step in range(4):
            vector[(number + step) % EXACT_DIMENSIONS] = 1.0
        return tuple(vector)
    number -= _HALVES
    number, first = divmod(number, EXACT_DIMENSIONS)
    number, further = divmod(number, EXACT_DIMENSIONS - 1)
    number, triple = divmod(number, len(_TRIPLES))
    scale, signs = divmod(number, len(_SIGNS))
    legs = _TRIPLES[triple]
    second = (first + 1 + further) % EXACT_DIMENSIONS
    vector[first] = legs[0] * _SIGNS[signs][0] * _SCALES[scale]
    vector[second] = legs[1] * _SIGNS[signs][1] * _SCALES[scale]
    return tuple(vector)


class ExactEmbeddings(CountingEmbeddings):
    """Texts on the palette of `exact_vector`.

    A mark in the text chooses the vector: ``"<3> likes tea"`` has number 3. A text without a mark
    has one by its checksum. A query always has an axis, so that ties are exact.
    """

    def __init__(
        self,
        *,
        model: str = "testkit-exact",
        dimensions: int = EXACT_DIMENSIONS,
        container: Container = "lists",
    ) -> None:
        super().__init__(model=model, dimensions=dimensions, container=container)

    def document_vector(self, text: str) -> Numbers:
        return self._padded(exact_vector(_number(text) % VECTORS))

    def query_vector(self, text: str) -> Numbers:
        return self._padded(exact_vector(_number(text) % AXES))

    def _padded(self, vector: Numbers) -> Numbers:
        return vector + (0.0,) * (self.dimensions - EXACT_DIMENSIONS)


def _number(text: str) -> int:
    marked = _MARK.search(text)
    return int(marked[1]) if marked else zlib.crc32(text.encode())


# --- scattered texts -------------------------------------------------------------------------

SCATTERED_DIMENSIONS = 16


class ScatteredEmbeddings(CountingEmbeddings):
    """Every text has a vector of its own, spread evenly; equal texts have equal vectors."""

    def __init__(self) -> None:
        super().__init__(model="testkit-scattered", dimensions=SCATTERED_DIMENSIONS)

    def document_vector(self, text: str) -> Numbers:
        digest = hashlib.shake_128(text.encode()).digest(2 * SCATTERED_DIMENSIONS)
        return tuple(map(float, array("h", digest)))

    def query_vector(self, text: str) -> Numbers:
        return self.document_vector(text)

"""The memories, vectors and queries that every store of the benchmarks is given, made by seed.

Vectors lie in files, so that every process reads the same ones; texts and the other fields are made
again where they are needed, batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BATCH = 1_000
DIMENSIONS = 384
QUERIES = 500
NEAREST = 10
USERS = 100
"""Each has the same share of every batch, so a filter for one user keeps 1 % of the memories."""
NEWEST = datetime(2026, 1, 1, tzinfo=UTC)

_SEED = 20_260_101
_PER_CLUSTER = 50
_SPREAD = 0.8
"""The standard deviation of a vector around its centre, in those of the centres."""
_VOCABULARY = 5_000
_WORDS_OF_TEXT = 14
_WORDS_OF_QUERY = 3
_TOPICS = 50


class Memory(NamedTuple):
    """One memory, in no library's own form."""

    number: int
    text: str
    user_id: str
    session_id: str
    topics: list[str]
    created_at: datetime

    @property
    def id(self) -> str:
        return f"memory-{self.number:07d}"


@dataclass(frozen=True)
class Material:
    """What one run of the benchmarks measures with."""

    folder: Path
    records: int

    @classmethod
    def make(cls, folder: Path, records: int, *, clustered: bool) -> Material:
        """Write vectors and queries into ``folder``, all of length one.

        Args:
            folder: exists.
            records: how many vectors; a multiple of `BATCH`.
            clustered: Gaussian around random centres, of which there is one for every 50 vectors;
                else Gaussian around the origin, so that no direction is preferred.
        """
        random = np.random.default_rng(_SEED)
        centres = np.zeros((1, DIMENSIONS), np.float32)
        if clustered:
            centres = random.standard_normal((records // _PER_CLUSTER, DIMENSIONS), np.float32)

        def drawn(count: int) -> Floats:
            around = centres[random.integers(len(centres), size=count)]
            vectors = around + _SPREAD * random.standard_normal((count, DIMENSIONS), np.float32)
            unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            return unit

        np.save(folder / "queries.npy", drawn(QUERIES))
        vectors = np.lib.format.open_memmap(
            folder / "vectors.npy", "w+", np.float32, (records, DIMENSIONS)
        )
        for start in range(0, records, BATCH):
            vectors[start : start + BATCH] = drawn(BATCH)
        vectors.flush()
        return cls(folder, records)

    def vectors(self, start: int, stop: int) -> Floats:
        """Return a copy of part of the vectors; the file does not stay mapped."""
        mapped: Floats = np.load(self.folder / "vectors.npy", mmap_mode="r")
        return np.array(mapped[start:stop])

    def queries(self) -> Floats:
        """Return the vectors of the queries."""
        queries: Floats = np.load(self.folder / "queries.npy")
        return queries


def query_texts() -> list[str]:
    """Return the words of the queries, no two alike."""
    random = np.random.default_rng([_SEED, 2])
    texts: dict[str, None] = {}
    while len(texts) < QUERIES:
        texts[" ".join(_words(random, 1, _WORDS_OF_QUERY)[0])] = None
    return list(texts)


def memories(start: int) -> list[Memory]:
    """Return one batch of memories, whose first number is ``start``."""
    random = np.random.default_rng([_SEED, 3, start])
    users = random.permutation(BATCH) % USERS
    topics = random.integers(_TOPICS, size=(BATCH, 2)).tolist()
    ages = random.integers(365 * 86_400, size=BATCH).tolist()
    return [
        Memory(
            number=number,
            text=f"{' '.join(words)} {number}",
            user_id=f"user-{user:02d}",
            session_id=f"session-{number // 20}",
            topics=[f"topic-{topic}" for topic in of_topics],
            created_at=NEWEST - timedelta(seconds=age),
        )
        for number, words, user, of_topics, age in zip(
            range(start, start + BATCH),
            _words(random, BATCH, _WORDS_OF_TEXT),
            users.tolist(),
            topics,
            ages,
            strict=True,
        )
    ]


def exact_answers(material: Material, *, queries: int) -> list[set[int]]:
    """Return the numbers of the nearest vectors of each of the first ``queries``."""
    similarities = material.queries()[:queries] @ material.vectors(0, material.records).T
    nearest = np.argpartition(similarities, -NEAREST, axis=1)[:, -NEAREST:]
    return [set(row) for row in nearest.tolist()]


@cache
def _vocabulary() -> tuple[list[str], NDArray[np.float64]]:
    """Return words and how often each occurs: the n-th one 1/n times as often as the first."""
    random = np.random.default_rng([_SEED, 1])
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words: dict[str, None] = {}
    while len(words) < _VOCABULARY:
        words["".join(random.choice(syllables, size=random.integers(2, 5)))] = None
    shares = 1.0 / np.arange(1, _VOCABULARY + 1)
    return list(words), shares / shares.sum()


def _words(random: np.random.Generator, texts: int, length: int) -> Sequence[list[str]]:
    words, shares = _vocabulary()
    chosen = random.choice(_VOCABULARY, size=(texts, length), p=shares)
    return [[words[each] for each in row] for row in chosen.tolist()]

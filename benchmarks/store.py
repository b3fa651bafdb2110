"""What the benchmarks ask of a store, ours or a peer's, and vectors that are only looked up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from material import Floats, Material, Memory


class Store(ABC):
    """One library with memories in it. Lives in a process of its own."""

    def __init__(self, material: Material) -> None:
        self.material = material

    @abstractmethod
    def prepared(self, memories: Sequence[Memory], vectors: Floats) -> Any:
        """Return a batch in the form that the library's interface asks for; not timed."""

    @abstractmethod
    def add(self, batch: Any) -> None:
        """Store what `prepared` returned."""

    @abstractmethod
    def search(self, query: int) -> list[int]:
        """Find the ten nearest of a query, with their texts and fields; return their numbers."""

    def undoing(self, operation: str, query: int) -> AbstractContextManager[None]:
        """Undo afterwards what an operation does, so that it can be measured again; not timed."""
        return nullcontext()


class KnownVectors:
    """Texts and their vectors: what embeddings return without computing anything."""

    def __init__(self, texts: Sequence[str], vectors: Floats | list[list[float]]) -> None:
        self._position = {text: position for position, text in enumerate(texts)}
        self._vectors = vectors

    def of(self, texts: Sequence[str]) -> Any:
        """Return the vectors of texts, as one array or as lists, whichever they are kept as."""
        positions = [self._position[text] for text in texts]
        if isinstance(self._vectors, list):
            return [self._vectors[position] for position in positions]
        return self._vectors[positions]

    def one(self, text: str) -> Any:
        """Return the vector of a text."""
        return self._vectors[self._position[text]]

"""What a backend needs of whatever turns text into vectors."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Embeddings(Protocol):
    """Turns text into vectors. Any object with these four members will do.

    Vectors are lists of floats or NumPy arrays, all of ``dimensions`` finite numbers, not
    necessarily of length one. Reading ``dimensions`` may take a while (a library to import, a
    registry to ask), so backends read it outside the event loop.
    """

    @property
    def model(self) -> str:
        """The name that a space remembers its vectors by."""
        ...

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        ...

    async def aembed_documents(self, texts: list[str]) -> Any:
        """Return one vector for each text, in order; any number of texts in one call.

        A sequence of vectors, or one array of two dimensions.
        """
        ...

    async def aembed_query(self, text: str) -> Any:
        """Return the vector of a search query."""
        ...

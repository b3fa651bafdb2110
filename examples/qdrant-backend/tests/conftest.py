"""One stand-in for a server for the whole run, and embeddings that need no model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import pytest

import stand_in


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with stand_in.running() as url:
        yield url


class HashEmbeddings:
    """Another direction for each text."""

    model = "sha256"
    dimensions = 8

    async def aembed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [await self.aembed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        numbers = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]
        length = math.sqrt(sum(number * number for number in numbers))
        return [number / length for number in numbers]


@pytest.fixture
def embeddings() -> HashEmbeddings:
    return HashEmbeddings()

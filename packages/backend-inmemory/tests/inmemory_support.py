"""What the tests of this backend share; as a program, a process that writes until it is killed."""

from __future__ import annotations

import asyncio
import sys
import zlib
from typing import Any

import numpy as np

from agent_memory import MemoryRecord
from agent_memory_inmemory import create


class DrawnEmbeddings:
    """Draws a vector for each text: the same text always has the same one."""

    def __init__(self, model: str = "drawn", dimensions: int = 8) -> None:
        self.model = model
        self.dimensions = dimensions

    def vector(self, text: str) -> Any:
        generator = np.random.default_rng(zlib.crc32(text.encode()))
        return generator.standard_normal(self.dimensions)

    async def aembed_documents(self, texts: list[str]) -> Any:
        return np.array([self.vector(each) for each in texts])

    async def aembed_query(self, text: str) -> Any:
        return self.vector(text)


class GivenEmbeddings(DrawnEmbeddings):
    """Reads the vector from the text: numbers with blanks between them."""

    def vector(self, text: str) -> Any:
        return np.array([float(each) for each in text.split()])


def numbered(start: int, stop: int, **fields: Any) -> list[MemoryRecord]:
    return [MemoryRecord(id=f"m{n}", text=f"text {n}", **fields) for n in range(start, stop)]


async def write_until_killed(path: str) -> None:
    """Add, change and delete; print a line for what was acknowledged, once it was."""
    db = create(DrawnEmbeddings(), path=path)
    for start in range(0, 1_000_000, 20):
        await db.add_memories(numbered(start, start + 20, topics=["fresh"]))
        print("added", start, flush=True)  # noqa: T201 - it is how the test hears of it
        await db.update_memories(numbered(start, start + 5, topics=["changed"]))
        print("changed", start, flush=True)  # noqa: T201
        await db.delete_memories([f"m{n}" for n in range(start + 5, start + 10)])
        print("deleted", start, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(write_until_killed(sys.argv[1]))

"""What the tests of this backend share; as a program, a process that uses a space as it is told."""

from __future__ import annotations

import asyncio
import sys
import zlib
from typing import Any

import numpy as np

from agent_memory import MemoryRecord
from agent_memory_redis import create
from agent_memory_redis.schema import Layout


class DrawnEmbeddings:
    """Draws a vector for each text: the same text always has the same one."""

    def __init__(self, model: str = "drawn", dimensions: int = 8) -> None:
        self.model = model
        self.dimensions = dimensions

    def vector(self, text: str) -> Any:
        generator = np.random.default_rng(zlib.crc32(text.encode()))
        return generator.standard_normal(self.dimensions, dtype=np.float32)

    async def aembed_documents(self, texts: list[str]) -> Any:
        return np.array([self.vector(each) for each in texts])

    async def aembed_query(self, text: str) -> Any:
        return self.vector(text)


def numbered(start: int, end: int) -> list[MemoryRecord]:
    """Return records whose ids and texts are numbers, each of its own user."""
    return [
        MemoryRecord(id=f"m{n}", text=f"memory number {n}", user_id=f"user {n}")
        for n in range(start, end)
    ]


async def drop_space(client: Any, layout: Layout) -> None:
    """Delete all that a space has on the server, as the documentation says, if it is there."""
    await client.delete(layout.fingerprint_key)
    for command in (("FT.DROPINDEX", layout.index, "DD"), ("FT.DROPINDEX", layout.counting_index)):
        if command[1].encode() in await client.execute_command("FT._LIST"):
            await client.execute_command(*command)


async def _add_one_by_one(url: str, space: str, start: int, end: int) -> None:
    async with create(DrawnEmbeddings(), space=space, url=url) as db:
        for record in numbered(start, end):
            await db.add_memories([record])
            sys.stdout.write(f"{record.id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    # Adds numbered records and prints the id of each as soon as it is acknowledged.
    asyncio.run(_add_one_by_one(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

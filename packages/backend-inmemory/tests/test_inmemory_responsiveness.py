"""The event loop stays free while the engine works (rule CONC-3)."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_memory_inmemory import create
from inmemory_support import DrawnEmbeddings, numbered

SIZE = 5_000


class FastEmbeddings(DrawnEmbeddings):
    """Draws all vectors at once, off the loop."""

    async def aembed_documents(self, texts: list[str]) -> Any:
        return await asyncio.to_thread(
            lambda: self.vector("all").repeat(len(texts)).reshape(len(texts), -1)
        )


@dataclass
class Turns:
    """What the turns of the loop were like while a call ran, in seconds."""

    busiest: float = 0.0
    """The most processor time that one took; a busy machine does not make it longer."""
    longest: float = 0.0
    """The longest, until the loop's thread ran again."""
    whole: float = 0.0


async def turns_during(call: Awaitable[Any]) -> Turns:
    turns = Turns()
    started = last = time.perf_counter()
    used = time.thread_time()
    task = asyncio.ensure_future(call)
    while not task.done():
        await asyncio.sleep(0.001)
        now, now_used = time.perf_counter(), time.thread_time()
        turns.longest = max(turns.longest, now - last)
        turns.busiest = max(turns.busiest, now_used - used)
        last, used = now, now_used
    await task
    turns.whole = last - started
    return turns


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """Its pauses depend on all that the test process holds."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collection")
def test_calls_work_beside_the_loop_not_on_it(tmp_path: Path) -> None:
    async def run() -> None:
        db = create(FastEmbeddings(dimensions=64), path=tmp_path)
        memories = numbered(0, SIZE, user_id="ada", topics=["tea"])
        ids = [each.id for each in memories]
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "add": lambda: db.add_memories(memories),
            "first keyword search": lambda: db.search_memories("text", search_mode="keyword"),
            "hybrid search": lambda: db.search_memories("text", search_mode="hybrid"),
            "list": lambda: db.list_memories(limit=SIZE),
            "search where all tie": lambda: db.search_memories("x", topics="tea"),
            "get": lambda: db.get_memories(ids),
            "update": lambda: db.update_memories(memories),
            "delete": lambda: db.delete_memories(ids[::2]),
            "close": db.aclose,
        }
        for name, call in calls.items():
            check(name, await turns_during(call()))
        again = create(FastEmbeddings(dimensions=64), path=tmp_path)
        check("open", await turns_during(again.count_memories()))
        await again.aclose()

    def check(name: str, turns: Turns) -> None:
        assert turns.busiest < 0.05, (name, turns)
        assert turns.longest < 0.5 + turns.whole / 2, (name, turns)

    asyncio.run(run())


def test_other_tasks_run_while_the_engine_waits_for_a_lock(tmp_path: Path) -> None:
    async def run() -> None:
        async with create(DrawnEmbeddings(), path=tmp_path) as owner:
            await owner.count_memories()
            second = create(DrawnEmbeddings(), path=tmp_path)
            waiting = asyncio.create_task(second.count_memories())
            turns = 0
            while not waiting.done():
                await asyncio.sleep(0.01)
                turns += 1
            assert waiting.exception() is not None
            assert turns > 10
            await second.aclose()

    asyncio.run(run())

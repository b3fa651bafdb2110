"""Rule LIFE-2, and what remains of a run: nothing that was opened, no record in any space."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent_memory import Capability
from agent_memory_testkit.samples import memory
from agent_memory_testkit.suite.base import Case, SuiteBase, checked

_HANDLES = 8
_AT_ONCE = 8
"""How many spaces are opened at once to see whether they are empty: most of it is waiting."""
_PATIENCE_SECONDS = 2.0
_OF_THE_KIT = "asyncio_"
"""How the names of the event loop's own threads begin."""


class LeftoverRules(SuiteBase):
    """LIFE-2, and the check of all spaces, which is collected after all other tests."""

    @checked
    async def test_life_2_closing_releases_what_the_handle_opened(self, case: Case) -> None:
        """Handles opened, used and closed one after the other leave nothing open behind them.

        Usual causes: a client, a pool or an executor that ``aclose`` forgets, a background task
        that nobody cancels.
        """
        await self._used_and_closed(case)  # so that what a process opens once is open
        before = _open_now()
        for _ in range(_HANDLES):
            await self._used_and_closed(case)
        more = Counter[str]()
        for _ in range(20):
            more = _open_now() - before
            if max(more.values(), default=0) < _HANDLES:
                return
            await asyncio.sleep(_PATIENCE_SECONDS / 20)
        case.check(
            False,
            f"what is open more than before, after {_HANDLES} handles were closed",
            got=dict(more),
            should="nothing for each of them",
        )

    async def _used_and_closed(self, case: Case) -> None:
        db = await case.open()
        await db.add_memories([memory("m")])
        await db.search_memories("<0>")
        await db.aclose()

    def test_nothing_is_left_behind(self) -> None:
        """No space that this class has opened holds a record after it was cleaned up.

        Usual causes: a ``clean_up`` that drops an index but not its records, or another name than
        the one that ``open`` derives; a ``delete_memories`` that leaves some.
        """
        __tracebackhide__ = True
        self.close_large_space()
        self._no_space_holds_records()

    @checked
    async def _no_space_holds_records(self, case: Case) -> None:
        if not self.profile.capabilities & {Capability.PERSISTENT, Capability.SHARED}:
            return  # records live as long as their handle, and all handles are closed
        left: dict[str, int] = {}
        spaces = iter(list(self._opened.items()))
        await asyncio.gather(*(self._count_what_is_left(spaces, left) for _ in range(_AT_ONCE)))
        case.equal(left, {}, f"records left in {len(self._opened)} spaces, by the space's name")

    async def _count_what_is_left(
        self, spaces: Iterator[tuple[str, Any]], left: dict[str, int]
    ) -> None:
        for space, embeddings in spaces:
            async with await self.open(space, embeddings) as db:
                count = await db.count_memories()
            if count:
                left[space] = count
            if type(self).clean_up is not SuiteBase.clean_up:
                await self.clean_up(space, embeddings)  # opening may have made the space anew


def _open_now() -> Counter[str]:
    """Return how many tasks, threads and, where the system tells, files and sockets are open."""
    threads = [each for each in threading.enumerate() if not each.name.startswith(_OF_THE_KIT)]
    found = Counter({"tasks": len(asyncio.all_tasks()), "threads": len(threads)})
    open_files = Path("/proc/self/fd")
    if open_files.exists():
        found["files and sockets"] = sum(1 for _ in open_files.iterdir())
    return found

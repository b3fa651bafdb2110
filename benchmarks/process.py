"""Each store in a process of its own, so that none pays for another's garbage, threads or memory.

The processes take turns: only one of them works at any moment. Times are taken inside them.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil
from material import BATCH, Material, memories
from store import Store

_SETTLE_SECONDS = 0.05
"""Threads of linear algebra spin for a while after their work; the next turn waits that out."""


class Turn(NamedTuple):
    """The times of one turn, in seconds."""

    first: float
    """Of the call that warms up; on the very first turn it also makes what is made lazily."""
    others: list[float]


class StoreProcess:
    """A store that lives in another process. Close it, or use it with ``with``."""

    def __init__(self, kind: type[Store], material: Material) -> None:
        self.material = material
        ours, theirs = multiprocessing.Pipe()
        # Spawned, not forked: nothing is inherited from this process.
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, kind, material), daemon=True
        )
        self._connection = ours
        self._process.start()
        theirs.close()

    def add(self, start: int) -> float:
        """Add the batch that begins with ``start``; return the seconds."""
        return float(self._ask("add", start))

    def load(self) -> None:
        """Add all of the material."""
        for start in range(0, self.material.records, BATCH):
            self.add(start)

    def turn(self, operation: str, first_query: int, *, repeats: int, seconds: float) -> Turn:
        """Call an operation once to warm up, then up to ``repeats`` times in some ``seconds``."""
        return Turn(*self._ask("turn", operation, first_query, repeats, seconds))

    def answers(self, operation: str, queries: int) -> list[list[int]]:
        """Return what a search finds for each of the first ``queries``."""
        found: list[list[int]] = self._ask("answers", operation, queries)
        return found

    def resident_bytes(self) -> int:
        """Return the memory of the process, after collecting its garbage."""
        return int(self._ask("resident_bytes"))

    def close(self) -> None:
        """End the process, which holds nothing that has to be saved."""
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._connection.send((name, arguments))
        succeeded, answer = self._connection.recv()
        if not succeeded:
            raise RuntimeError(f"a store failed in its process:\n{answer}")
        return answer


class _Server:
    """The other end: what each request does."""

    def __init__(self, kind: type[Store], material: Material) -> None:
        self._material = material
        self._store = kind(material)

    def add(self, start: int) -> float:
        batch = self._store.prepared(memories(start), self._material.vectors(start, start + BATCH))
        begin = time.perf_counter()
        self._store.add(batch)
        return time.perf_counter() - begin

    def turn(
        self, operation: str, first_query: int, repeats: int, seconds: float
    ) -> tuple[float, list[float]]:
        time.sleep(_SETTLE_SECONDS)
        first = self._timed(operation, first_query)
        others: list[float] = []
        while len(others) < repeats and (not others or sum(others) < seconds):
            others.append(self._timed(operation, first_query + len(others)))
        return first, others

    def answers(self, operation: str, queries: int) -> list[Sequence[int]]:
        search = getattr(self._store, operation)
        return [search(query) for query in range(queries)]

    def resident_bytes(self) -> int:
        gc.collect()
        resident: int = psutil.Process().memory_info().rss
        return resident

    def _timed(self, operation: str, query: int) -> float:
        call = getattr(self._store, operation)
        with self._store.undoing(operation, query):
            begin = time.perf_counter()
            call(query)
            return time.perf_counter() - begin


def _serve(connection: Connection, kind: type[Store], material: Material) -> None:
    server: _Server | None = None
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            sys.exit()
        try:
            server = server or _Server(kind, material)
            connection.send((True, getattr(server, name)(*arguments)))
        except Exception:
            connection.send((False, traceback.format_exc()))

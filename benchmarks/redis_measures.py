"""The sections about the Redis backend, each on a server of its own.

The goals are ratios to the same commands, sent by redis-py alone to the same index.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import redis
from material import BATCH, NEAREST, exact_answers, memories
from measures import Bench, compared, recall
from ours import FEW, records_of
from redis_peers import (
    NEAR_TENANTS,
    TENANT,
    LangChainRedis,
    LangChainRedisOther,
    Mem0Redis,
    Mem0RedisOther,
    OursAmongTenants,
    OursOther,
    tenants,
)
from redis_stores import (
    IN_A_ROW,
    TOGETHER,
    URL_VARIABLE,
    BareRedis,
    OursOnRedis,
    OursOnRedisCompared,
)
from report import Goal, Row, milliseconds
from store import Store
from timing import ratio, typical, undisturbed_ratio

from agent_memory_redis import create

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from redis_server import RedisServer

_RECORDS = 10_000
_ITERATED = (10_000, 100_000)
_QUERIES = 200
_GRAPHS = ((8, 100), (16, 200), (32, 400))
"""M and ef_construction; the second is the default."""
_EFFORTS = (10, 32, 64, 128, 256, 512)
_SIZES = (256, 768, 1_536)


def reading(bench: Bench) -> list[Row]:
    """Search, count, list and get, against the bare commands."""
    with _server(), _small(bench, clustered=True) as small:
        small.load([OursOnRedis])
        small.processes |= small.opened([BareRedis], small.material)
        times = small.times(
            {
                "search": (OursOnRedis, "search_without_total"),
                "search with total": (OursOnRedis, "search"),
                "bare search": (BareRedis, "search"),
            }
        )
        together = small.times(
            {"ours": (OursOnRedis, "search_together"), "bare": (BareRedis, "search_together")}
        )
        others = {
            operation: small.times(
                {"ours": (OursOnRedis, operation), "bare": (BareRedis, operation)}
            )
            for operation in ("count", "list_near_end", "get")
        }
    bare = "bare FT.SEARCH"
    return [
        compared(
            "search, no total", times["search"], bare, times["bare search"], Goal(1.1, at_most=True)
        ),
        compared(
            "search, exact total",
            times["search with total"],
            bare,
            times["bare search"],
            Goal(1.35, at_most=True),
        ),
        Row(
            f"search, {TOGETHER} at once",
            f"{TOGETHER * IN_A_ROW / typical(together['ours']):,.0f}/s",
            bare,
            f"{TOGETHER * IN_A_ROW / typical(together['bare']):,.0f}/s",
            ratio(together["bare"], together["ours"]),
            goal=Goal(0.95, at_most=False),
            undisturbed=undisturbed_ratio(together["bare"], together["ours"]),
        ),
        *(
            compared(
                what,
                others[operation]["ours"],
                against,
                others[operation]["bare"],
                Goal(bound, at_most=True),
            )
            for operation, what, against, bound in (
                ("count", "count", f"{bare} LIMIT 0 0", 1.2),
                ("list_near_end", f"list {FEW}, offset 9,000", f"{bare} SORTBY", 1.3),
                ("get", f"get {FEW} by id", "bare pipeline of HGET", 1.5),
            )
        ),
    ]


def writing(bench: Bench) -> list[Row]:
    """Add and delete, against the bare commands."""
    with _server(), _small(bench, clustered=True) as small:
        both: list[type[Store]] = [OursOnRedis, BareRedis]
        adding = small.load(both)
        deleting = dict.fromkeys(both, 0.0)
        # What is deleted first has more neighbours to be taken out of, so each is once first.
        for half in range(2):
            for kind in both[half:] + both[:half]:
                # The first call of a turn warms up; here it is the only one.
                turn = small.processes[kind].turn("delete_half", half, repeats=0, seconds=0)
                deleting[kind] += turn.first
    return [
        Row(
            "add",
            f"{_RECORDS / adding[OursOnRedis]:,.0f}/s",
            "bare pipelined HSET of the same fields",
            f"{_RECORDS / adding[BareRedis]:,.0f}/s",
            adding[BareRedis] / adding[OursOnRedis],
            goal=Goal(0.7, at_most=False),
        ),
        Row(
            f"delete {_RECORDS:,}, 5,000 in a call",
            milliseconds(deleting[OursOnRedis]),
            "bare pipelined UNLINK",
            milliseconds(deleting[BareRedis]),
            deleting[OursOnRedis] / deleting[BareRedis],
            goal=Goal(1.5, at_most=True),
        ),
    ]


def iterating(bench: Bench) -> list[Row]:
    """Reading all memories, against a bare cursor; vectors do not matter here."""
    rows = []
    for records in _ITERATED:
        with _server(), _small(bench, clustered=True, records=records) as some:
            some.load([OursOnRedisCompared])
            some.processes |= some.opened([BareRedis], some.material)
            times = some.times(
                {
                    "ours": (OursOnRedisCompared, "iterate"),
                    "sorted": (BareRedis, "iterate"),
                    "unsorted": (BareRedis, "iterate_unsorted"),
                }
            )
        what = f"iter_memories, {records:,} records"
        rows += [
            compared(
                what, times["ours"], "bare cursor, sorted", times["sorted"], Goal(1.5, at_most=True)
            ),
            compared(what, times["ours"], "bare cursor, unsorted", times["unsorted"]),
        ]
    return rows


def against_peers(bench: Bench) -> list[Row]:
    """Other libraries' Redis stores on the same server: speed, and what was not asked for."""
    kinds: list[type[Store]] = [OursAmongTenants, *(kind for kind, _ in _PEERS.values())]
    rows = []
    with _server(), _small(bench, clustered=True) as small:
        seconds = small.load(kinds)
        for operation, what in (("search", "search"), ("search_filtered", "search, filter 1 %")):
            times = small.times({kind.__name__: (kind, operation) for kind in kinds})
            ours = times[OursAmongTenants.__name__]
            rows += [
                compared(what, ours, name, times[kind.__name__])
                for name, (kind, _) in _PEERS.items()
            ]
        rows += [
            Row(
                "add",
                f"{_RECORDS / seconds[OursAmongTenants]:,.0f}/s",
                name,
                f"{_RECORDS / seconds[kind]:,.0f}/s",
                seconds[kind] / seconds[OursAmongTenants],
            )
            for name, (kind, _) in _PEERS.items()
        ]
        exact = exact_answers(small.material, queries=_QUERIES)
        recalls = {
            kind: recall(small.loaded(kind).answers("search", _QUERIES), exact) for kind in kinds
        }
        rows += [
            _counted(f"recall@{NEAREST}", recalls[OursAmongTenants], name, recalls[kind])
            for name, (kind, _) in _PEERS.items()
        ]
    mistakes = [_mistakes(bench, *pair) for pair in (_OURS, *_PEERS.values())]
    for number, what in enumerate(
        (
            f"user {TENANT!r}: memories of {', '.join(map(repr, NEAR_TENANTS[1:]))}",
            "memories of another collection, whose name begins alike",
        )
    ):
        rows += [
            _counted(what, mistakes[0][number], name, theirs[number])
            for name, theirs in zip(_PEERS, mistakes[1:], strict=True)
        ]
    return rows


def recall_table(bench: Bench) -> list[Row]:
    """What the parameters of the index do, on directions without any clusters: the hard case."""
    rows = []
    for m, ef_construction in _GRAPHS:
        with _server(), _small(bench, clustered=False) as small:
            exact = exact_answers(small.material, queries=_QUERIES)
            OursOnRedis.options = {"m": m, "ef_construction": ef_construction}
            store = OursOnRedis(small.material)
            built = _loaded(store)
            for ef_runtime in _EFFORTS:
                OursOnRedis.options = {"ef_runtime": ef_runtime}
                other = OursOnRedis(small.material)
                seconds, found = [], []
                for query in range(_QUERIES):
                    begin = time.perf_counter()
                    found.append(other.search_without_total(query))
                    seconds.append(time.perf_counter() - begin)
                rows.append(
                    Row(
                        f"recall@{NEAREST}: m={m}, ef_construction={ef_construction}, "
                        f"ef_runtime={ef_runtime}",
                        milliseconds(median(seconds)),
                        "added with embeddings at hand",
                        f"{_RECORDS / built:,.0f}/s",
                        recall(found, exact),
                        "",
                    )
                )
    return rows


def sizes(_: Bench) -> list[Row]:
    """Memory of the server for each record."""
    rows = []
    for dimensions in _SIZES:
        for algorithm in ("hnsw", "flat"):
            with _server() as url:
                bytes_each = asyncio.run(_bytes_each(url, dimensions, algorithm))
            rows.append(
                Row(
                    f"memory a record, {algorithm}, {dimensions} dimensions",
                    f"{bytes_each:,.0f} B",
                    "the bare vector",
                    f"{4 * dimensions:,} B",
                    bytes_each / (4 * dimensions),
                )
            )
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "redis": reading,
    "redis-write": writing,
    "redis-iter": iterating,
    "redis-peers": against_peers,
    "redis-recall": recall_table,
    "redis-memory": sizes,
}


_OURS: tuple[type[Store], type[Store]] = (OursAmongTenants, OursOther)
_PEERS: dict[str, tuple[type[Store], type[Store]]] = {
    "langchain-redis": (LangChainRedis, LangChainRedisOther),
    "mem0": (Mem0Redis, Mem0RedisOther),
}
"""Each with another collection beside it."""


def _mistakes(bench: Bench, kind: type[Store], other: type[Store]) -> tuple[int, int]:
    """Return how many memories of other tenants, and of another collection, a search returns."""
    material = bench.material
    with _server():
        asked: Any = kind(material)
        beside = other(material)
        vectors = material.vectors(0, len(NEAR_TENANTS))
        asked.add(asked.prepared(tenants(), vectors))
        strangers = set(asked.strangers(0)) - {0}
        moved = [each._replace(number=each.number + 100) for each in tenants()]
        beside.add(beside.prepared(moved, vectors))
        from_beside = [each for each in asked.search(0) if each >= 100]
    return len(strangers), len(from_beside)


def _counted(what: str, ours: float, name: str, theirs: float) -> Row:
    return Row(what, f"{ours:.4g}", name, f"{theirs:.4g}", theirs, "")


def _loaded(store: OursOnRedis) -> float:
    """Fill a store and return the seconds that it took."""
    seconds = 0.0
    for start in range(0, store.material.records, BATCH):
        batch = store.prepared(memories(start), store.material.vectors(start, start + BATCH))
        begin = time.perf_counter()
        store.add(batch)
        seconds += time.perf_counter() - begin
    return seconds


@contextmanager
def _server() -> Iterator[str]:
    with RedisServer() as server:
        os.environ[URL_VARIABLE] = server.url
        OursOnRedis.options = {}
        yield server.url


@contextmanager
def _small(bench: Bench, *, clustered: bool, records: int = _RECORDS) -> Iterator[Bench]:
    """A bench with material of its own."""
    small = Bench(
        bench.folder,
        bench.other_material(records, clustered=clustered),
        bench.rounds,
        bench.progress,
    )
    try:
        yield small
    finally:
        small.close()


class _DrawnEmbeddings:
    """Draws a vector for each text."""

    model = "drawn"

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._random = np.random.default_rng(0)

    async def aembed_documents(self, texts: list[str]) -> Any:
        return self._random.standard_normal((len(texts), self.dimensions), np.float32)

    async def aembed_query(self, text: str) -> Any:
        return self._random.standard_normal(self.dimensions, np.float32)


async def _bytes_each(url: str, dimensions: int, algorithm: Any) -> float:
    embeddings = _DrawnEmbeddings(dimensions)
    client = redis.Redis.from_url(url)
    async with create(embeddings, space="sizes", url=url, algorithm=algorithm) as db:
        await db.ping()
        before = client.info("memory")["used_memory"]
        for start in range(0, _RECORDS, BATCH):
            await db.add_memories(records_of(memories(start)))
        after = client.info("memory")["used_memory"]
    client.close()
    return float(after - before) / _RECORDS

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
from ours import records_of
from redis_stores import TOGETHER, URL_VARIABLE, BareRedis, OursOnRedis
from report import Goal, Row, milliseconds
from timing import ratio, typical

from agent_memory_redis import create

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from redis_server import RedisServer

_RECORDS = 10_000
_QUERIES = 200
_GRAPHS = ((8, 100), (16, 200), (32, 400))
"""M and ef_construction; the second is the default."""
_EFFORTS = (10, 32, 64, 128, 256, 512)
_SIZES = (256, 768, 1_536)


def against_redis(bench: Bench) -> list[Row]:
    """Search, count and add, against the bare commands."""
    return [*_reading(bench), _adding(bench)]


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
    "redis": against_redis,
    "redis-recall": recall_table,
    "redis-memory": sizes,
}


def _reading(bench: Bench) -> list[Row]:
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
        counts = small.times({"ours": (OursOnRedis, "count"), "bare": (BareRedis, "count")})
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
            f"{TOGETHER / typical(together['ours']):,.0f}/s",
            bare,
            f"{TOGETHER / typical(together['bare']):,.0f}/s",
            ratio(together["bare"], together["ours"]),
            goal=Goal(0.95, at_most=False),
        ),
        compared(
            "count", counts["ours"], f"{bare} LIMIT 0 0", counts["bare"], Goal(1.2, at_most=True)
        ),
    ]


def _adding(bench: Bench) -> Row:
    with _server(), _small(bench, clustered=True) as small:
        seconds = small.load([OursOnRedis, BareRedis])
    return Row(
        "add",
        f"{_RECORDS / seconds[OursOnRedis]:,.0f}/s",
        "bare pipelined HSET of the same fields",
        f"{_RECORDS / seconds[BareRedis]:,.0f}/s",
        seconds[BareRedis] / seconds[OursOnRedis],
        goal=Goal(0.7, at_most=False),
    )


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
def _small(bench: Bench, *, clustered: bool) -> Iterator[Bench]:
    """A bench with `_RECORDS` records."""
    small = Bench(
        bench.folder,
        bench.other_material(_RECORDS, clustered=clustered),
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

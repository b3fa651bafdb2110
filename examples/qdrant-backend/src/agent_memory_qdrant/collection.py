"""One collection of Qdrant: its requests, in the sizes that Qdrant takes, with the options set.

What a space means by them is in `agent_memory_qdrant.backend`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from qdrant_client import AsyncQdrantClient, models

from agent_memory_qdrant import filters, points
from agent_memory_qdrant.connection import Connection
from agent_memory_qdrant.settings import Settings

T = TypeVar("T")
Payload = Mapping[str, Any]

PAGE: Final = 1_000
"""Points in one answer of a server: reading one must not hold up the event loop for long."""
_BATCH_POINTS: Final = 500
_WRITTEN_POINTS: Final = 100
"""In one request: the client writes them as JSON on the event loop."""
_BATCH_BYTES: Final = 8_000_000
"""Of texts in one request; a server takes 32 MB by default."""


class Scored(NamedTuple):
    payload: Payload
    score: float


class Collection:
    """The requests that a space needs. Nothing here looks into what is stored."""

    def __init__(self, name: str, connection: Connection, settings: Settings) -> None:
        self.name = name
        self._connection = connection
        self._settings = settings
        self._consistency = _consistency(settings.read_consistency)
        self._ordering = models.WriteOrdering(settings.write_ordering or "weak")

    async def _send(self, request: Callable[[AsyncQdrantClient], Awaitable[T]]) -> T:
        return await self._connection.send(lambda: request(self._connection.client))

    # --- the collection as a whole -----------------------------------------------------------

    async def server_version(self) -> str:
        """Return the version of the server, or of the client in local mode."""
        return (await self._send(lambda to: to.info())).version

    async def exists(self) -> bool:
        """Tell whether there is such a collection."""
        return await self._send(lambda to: to.collection_exists(self.name))

    async def create(self, vectors: models.VectorParams, metadata: dict[str, Any]) -> None:
        """Create the collection, unless another writer is first."""
        try:
            await self._send(
                lambda to: to.create_collection(
                    self.name,
                    vectors_config=vectors,
                    metadata=metadata,
                    shard_number=self._settings.shard_number,
                    replication_factor=self._settings.replication_factor,
                    write_consistency_factor=self._settings.write_consistency_factor,
                )
            )
        except Exception:
            # That it exists is no failure: somebody else was first, or the answer to an earlier
            # attempt of ours was lost.
            if not await self.exists():
                raise

    async def info(self) -> models.CollectionInfo:
        """Return what Qdrant knows of the collection."""
        return await self._send(lambda to: to.get_collection(self.name))

    async def index(self, key: str, schema: Any) -> None:
        """Index the values under ``key``; doing so twice does no harm."""
        await self._send(lambda to: to.create_payload_index(self.name, key, schema, wait=True))

    # --- writing -----------------------------------------------------------------------------

    async def upsert(
        self,
        new: Sequence[models.PointStruct],
        condition: Callable[[Sequence[models.PointStruct]], models.Filter],
        mode: models.UpdateMode,
    ) -> None:
        """Write points; those that exist only if they meet the condition made for their batch."""
        for batch in _batches(new):
            await self._upsert(batch, condition(batch), mode)

    async def _upsert(
        self, batch: list[models.PointStruct], condition: models.Filter, mode: models.UpdateMode
    ) -> None:
        await self._send(
            lambda to: to.upsert(
                self.name,
                batch,
                update_filter=condition,
                update_mode=mode,
                wait=True,
                ordering=self._ordering,
            )
        )

    async def delete(self, numbers: Sequence[str], condition: models.Filter | None) -> None:
        """Delete the points of these ids, if they meet the condition."""
        for batch in _slices(numbers, PAGE):
            await self._delete(batch, condition)

    async def _delete(self, batch: Sequence[str], condition: models.Filter | None) -> None:
        selector: models.PointIdsList | models.FilterSelector
        if condition is None:
            selector = models.PointIdsList(points=list(batch))
        else:
            selector = models.FilterSelector(filter=filters.both(condition, filters.has_id(batch)))
        await self._send(
            lambda to: to.delete(
                self.name, points_selector=selector, wait=True, ordering=self._ordering
            )
        )

    # --- reading -----------------------------------------------------------------------------

    async def retrieve(
        self, numbers: Sequence[str], keys: Sequence[str], *, with_vectors: bool = False
    ) -> list[tuple[Payload, list[float] | None]]:
        """Return parts of the points with these ids, in any order, without the missing ones."""
        found: list[tuple[Payload, list[float] | None]] = []
        for batch in _slices(numbers, _BATCH_POINTS):
            for record in await self._retrieve(batch, keys, with_vectors):
                vector: Any = record.vector
                found.append((record.payload or {}, vector))
        return found

    async def _retrieve(
        self, batch: Sequence[str], keys: Sequence[str], with_vectors: bool
    ) -> list[models.Record]:
        return await self._send(
            lambda to: to.retrieve(
                self.name,
                list(batch),
                with_payload=list(keys),
                with_vectors=with_vectors,
                consistency=self._consistency,
            )
        )

    async def count(self, condition: models.Filter | None) -> int:
        """Return exactly how many points meet the condition."""
        answer = await self._send(
            lambda to: to.count(self.name, count_filter=condition, exact=True)
        )
        return int(answer.count)

    async def nearest(
        self,
        vector: Sequence[float],
        condition: models.Filter | None,
        keys: Sequence[str],
        *,
        limit: int,
        bound: float | None = None,
    ) -> list[Scored]:
        """Return the nearest points, measured one by one: no graph, nothing missed."""
        # Local mode has no graph, and warns of a parameter that is about one.
        exact = models.SearchParams(exact=True) if self._connection.is_server else None
        answer = await self._send(
            lambda to: to.query_points(
                self.name,
                query=list(vector),
                query_filter=condition,
                search_params=exact,
                limit=limit,
                score_threshold=bound,
                with_payload=list(keys),
                consistency=self._consistency,
            )
        )
        return [Scored(each.payload or {}, each.score) for each in answer.points]

    async def measured(
        self,
        vector: Sequence[float],
        numbers: Sequence[str],
        condition: models.Filter | None,
        keys: Sequence[str],
    ) -> list[Scored]:
        """Return those of the points with these ids that meet the condition, with scores."""
        found: list[Scored] = []
        for batch in _slices(numbers, _BATCH_POINTS):
            only = filters.both(condition, filters.has_id(batch))
            found += await self.nearest(vector, only, keys, limit=len(batch))
        return found

    async def newest(
        self, condition: models.Filter | None, keys: Sequence[str], *, offset: int, limit: int
    ) -> list[Payload]:
        """Return parts of points by the time of creation, the last first."""
        found: list[Payload] = []
        while len(found) < limit:
            size = min(limit - len(found), PAGE if self._connection.is_server else limit)
            page = await self._newest(condition, keys, offset=offset + len(found), limit=size)
            found += [each.payload or {} for each in page]
            if len(page) < size:
                break
        return found

    async def _newest(
        self, condition: models.Filter | None, keys: Sequence[str], *, offset: int, limit: int
    ) -> list[models.ScoredPoint]:
        order = models.OrderBy(key=points.CREATED, direction=models.Direction.DESC)
        answer = await self._send(
            lambda to: to.query_points(
                self.name,
                query=models.OrderByQuery(order_by=order),
                query_filter=condition,
                offset=offset,
                limit=limit,
                with_payload=list(keys),
                consistency=self._consistency,
            )
        )
        return answer.points

    async def all(self, condition: models.Filter | None, keys: Sequence[str]) -> list[Payload]:
        """Return parts of all points that meet the condition, in any order."""
        if not self._connection.is_server:
            # Local mode scrolls by sorting all ids at once, for which no other thread can run;
            # numbers are sorted in a fraction of the time.
            return await self.newest(condition, keys, offset=0, limit=sys.maxsize)
        found: list[Payload] = []
        page, after = await self._scroll(condition, keys, None)
        while True:
            found += [each.payload or {} for each in page]
            if after is None:
                return found
            page, after = await self._scroll(condition, keys, after)

    async def some(
        self, numbers: Sequence[str], condition: models.Filter | None, keys: Sequence[str]
    ) -> list[Payload]:
        """Return parts of those points with these ids that meet the condition, in any order."""
        found: list[Payload] = []
        for batch in _slices(numbers, _BATCH_POINTS):
            found += await self.all(filters.both(condition, filters.has_id(batch)), keys)
        return found

    async def _scroll(
        self, condition: models.Filter | None, keys: Sequence[str], start: Any
    ) -> tuple[list[models.Record], Any]:
        return await self._send(
            lambda to: to.scroll(
                self.name,
                scroll_filter=condition,
                limit=PAGE,
                offset=start,
                with_payload=list(keys),
                consistency=self._consistency,
            )
        )


def _consistency(wanted: int | str | None) -> int | models.ReadConsistencyType | None:
    return models.ReadConsistencyType(wanted) if isinstance(wanted, str) else wanted


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _batches(new: Sequence[models.PointStruct]) -> Iterator[list[models.PointStruct]]:
    """Cut points into batches of a size that a server takes."""
    batch: list[models.PointStruct] = []
    size = 0
    for point in new:
        # A number of a vector is some ten characters, and JSON may write one as six.
        more = 6 * len((point.payload or {})[points.RECORD]) + 12 * len(point.vector)  # type: ignore[arg-type]
        if batch and (len(batch) == _WRITTEN_POINTS or size + more > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += more
    if batch:
        yield batch

"""The handle: opening a space, writing, finding.

What a record looks like as a point is in `points`, a predicate as a filter in `filters`; how Qdrant
is reached is in `connection` and `settings`, and its requests are in `collection`.

Qdrant writes points one by one: there are no transactions. In local mode a primitive runs alone in
its thread, so that nothing comes between. On a server the writes of one handle wait for each other,
and each carries a condition that the server checks together with it, because of other handles: the
id, and the scope.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from agent_memory import (
    AgentMemoryError,
    BackendError,
    Capability,
    Embeddings,
    MemoryRecord,
)
from agent_memory.backend import (
    LIST_TAG_FIELDS,
    SCALAR_TAG_FIELDS,
    TIME_FIELDS,
    Backend,
    Fingerprint,
    Hit,
    Listing,
    Metric,
    Predicate,
    Ranking,
    Replaced,
    Row,
    Rows,
    Scope,
    SemanticQuery,
)
from agent_memory.predicates import matches
from packaging.version import Version
from qdrant_client import models

from agent_memory_qdrant import filters, points
from agent_memory_qdrant.collection import PAGE, Collection, Payload
from agent_memory_qdrant.errors import translated
from agent_memory_qdrant.settings import (
    Settings,
    collection_name,
    key_from_environment,
    url_from_environment,
)

_T = TypeVar("_T", bound=tuple[Any, ...])

OLDEST_SERVER: Final = "1.19"
"""The first that compares prefixes of keywords."""
_METADATA: Final = "agent_memory"
_SCHEMA: Final = 1
_SCOPE_FIELDS: Final = ("namespace", "user_id", "session_id")
_PART: Final = 5_000
_FEW: Final = 100
_EXACT: Final = 2**53
"""Whole numbers up to here are exact as the floats that ranges of numbers have in Qdrant."""


def create(
    embeddings: Embeddings,
    *,
    space: str = "memory",
    metric: Metric | str = Metric.COSINE,
    url: str | None = None,
    api_key: str | None = None,
    path: str | None = None,
    prefer_grpc: bool = False,
    grpc_port: int = 6334,
    timeout: float = 5.0,
    retries: int = 2,
    shard_number: int | None = None,
    replication_factor: int | None = None,
    write_consistency_factor: int | None = None,
    read_consistency: int | str | None = None,
    write_ordering: str | None = None,
) -> QdrantBackend:
    """Return a handle on a space in Qdrant; nothing is connected yet.

    Args:
        embeddings: turns text into vectors.
        space: the name of the place that this handle reads and writes: a collection.
        metric: ``cosine``, ``l2`` or ``ip``.
        url: a server, or ``:memory:`` for a space in this process that ends with the handle.
            If neither this nor ``path`` is given: the environment variable ``QDRANT_URL``, else
            ``http://localhost:6333``.
        api_key: the key of a server; else the environment variable ``QDRANT_API_KEY``.
        path: a folder for Qdrant's local mode, which keeps each space in a folder below it.
        prefer_grpc: speak gRPC with a server instead of REST.
        grpc_port: where it listens for gRPC.
        timeout: seconds after which a request to a server, its repetitions included, has failed.
        retries: how often a request is repeated that failed for a reason that may pass.
        shard_number, replication_factor, write_consistency_factor: of a new collection on a
            cluster; Qdrant's defaults if ``None``.
        read_consistency: how many replicas must agree: a number, ``majority``, ``quorum``, ``all``.
        write_ordering: ``weak``, ``medium`` or ``strong``.

    Raises:
        InvalidArgumentError: an option cannot be honoured.
    """
    if url is None and path is None:
        url = url_from_environment()
    settings = Settings(
        url=url,
        api_key=key_from_environment() if api_key is None else api_key,
        path=path,
        prefer_grpc=prefer_grpc,
        grpc_port=grpc_port,
        timeout=timeout,
        retries=retries,
        shard_number=shard_number,
        replication_factor=replication_factor,
        write_consistency_factor=write_consistency_factor,
        read_consistency=read_consistency,
        write_ordering=write_ordering,
    )
    return QdrantBackend(embeddings, space=space, metric=metric, settings=settings)


class _Stored(NamedTuple):
    """What a write has to know of a record that is there already."""

    text_hash: str
    scope: Mapping[str, str]
    vector: list[float] | None

    def lies_in(self, scope: Scope | None) -> bool:
        return scope is None or all(
            self.scope.get(field) == value for field, value in scope.fields.items()
        )


class _Found(NamedTuple):
    dist: float
    id: str


class _Selection(NamedTuple):
    """A predicate as Qdrant gets it."""

    condition: models.Filter | None
    recheck: Predicate | None
    """To be met by what is shown: the condition lists points that once met the predicate."""

    def still_has(self, record: MemoryRecord) -> bool:
        return self.recheck is None or matches(self.recheck, record)


class QdrantBackend(Backend):
    """A space in a collection of Qdrant. Made by `create`."""

    def __init__(
        self, embeddings: Embeddings, *, space: str, metric: Metric | str, settings: Settings
    ) -> None:
        super().__init__(embeddings, space=space, metric=metric)
        self._settings = settings
        self._connection = settings.connection(space)
        self._collection = Collection(collection_name(space), self._connection, settings)

    @property
    def capabilities(self) -> frozenset[Capability]:
        if self._connection.is_server:
            return frozenset({Capability.PERSISTENT, Capability.SHARED})
        if self._settings.path is not None:
            return frozenset({Capability.PERSISTENT})
        return frozenset()

    async def engine_versions(self) -> dict[str, str]:
        """Return the versions of the client and, if there is one, of the server."""
        versions = {"qdrant-client": importlib.metadata.version("qdrant-client")}
        if self._connection.is_server:
            await self.ping()
            versions["qdrant"] = await self._collection.server_version()
        return versions

    # --- life --------------------------------------------------------------------------------

    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        await self._connection.open()
        return await self._connection.run(lambda: self._open_collection(fingerprint))

    async def _open_collection(self, fingerprint: Fingerprint) -> Fingerprint:
        if self._connection.is_server:
            version = await self._collection.server_version()
            if Version(version) < Version(OLDEST_SERVER):
                raise BackendError(
                    f"Qdrant at {self._settings.place} is version {version}, and {OLDEST_SERVER} "
                    "is the oldest that this backend can use: update the server"
                )
        if not await self._collection.exists():
            await self._create_collection(fingerprint)
        info = await self._collection.info()
        stored = (info.config.metadata or {}).get(_METADATA)
        if not isinstance(stored, dict) or stored.get("schema") != _SCHEMA:
            raise BackendError(
                f"the collection {self._collection.name!r} in {self._settings.place} was not made "
                "by this version of agent-memory-qdrant: use another space, or delete it"
            )
        found = Fingerprint(stored["model"], stored["dimensions"], Metric(stored["metric"]))
        if self._connection.is_server and found == fingerprint:
            await self._index(info.payload_schema)
        return found

    async def _create_collection(self, fingerprint: Fingerprint) -> None:
        vectors = models.VectorParams(
            size=fingerprint.dimensions,
            distance=points.distance_kind(fingerprint.metric),
            hnsw_config=models.HnswConfigDiff(m=0),  # no graph: searches are exact
        )
        remembered = {
            "schema": _SCHEMA,
            "model": fingerprint.model,
            "dimensions": fingerprint.dimensions,
            "metric": fingerprint.metric.value,
        }
        await self._collection.create(vectors, {_METADATA: remembered})

    async def _index(self, present: Mapping[str, Any]) -> None:
        """Index what is searched by; a handle that was stopped half-way may have left some out."""
        keyword = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
        schemas: dict[str, Any] = {
            points.CREATED: models.PayloadSchemaType.INTEGER,
            **dict.fromkeys(TIME_FIELDS, models.PayloadSchemaType.DATETIME),
            **dict.fromkeys((*SCALAR_TAG_FIELDS, *LIST_TAG_FIELDS), keyword),
        }
        for key in schemas.keys() - present.keys():
            await self._collection.index(key, schemas[key])

    async def _close(self) -> None:
        await self._connection.close()

    async def _ping(self) -> None:
        await self._connection.run(self._collection.exists)

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        return translated(error, self._settings.place)

    # --- writing -----------------------------------------------------------------------------

    async def _put(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        async def put() -> Sequence[str]:
            ids = rows.columns["id"]
            seen = await self._look(ids)
            _check_numbers([*ids, *(seen.keys() - set(ids))])
            taken = _outside(scope, seen)
            if taken:
                return taken
            new = await asyncio.to_thread(lambda: [self._point(row) for row in rows])
            await self._write(new, scope, models.UpdateMode.UPSERT)
            if scope is not None and self._connection.is_server:
                # Somebody may have come between the look and the write, which then left theirs.
                return _outside(scope, await self._look(ids))
            return []

        return await self._connection.write(put)

    async def _replace(self, rows: Rows, scope: Scope | None) -> Replaced:
        async def replace() -> Replaced:
            seen = await self._look(rows.columns["id"], with_vectors=True)
            stale: list[str] = []

            def chosen() -> list[models.PointStruct]:
                writes = []
                for row in rows:
                    id_ = row.record.id
                    stored = seen.get(id_)
                    if stored is None or not stored.lies_in(scope):
                        continue
                    if row.vector is None and stored.text_hash != points.text_hash(row.record.text):
                        stale.append(id_)
                    else:
                        # A kept vector was read together with its text, and both are written:
                        # they belong together whatever others write in between.
                        writes.append(self._point(row, stored.vector))
                return writes

            writes = await asyncio.to_thread(chosen)
            written = [_id(each) for each in writes]
            await self._write(writes, scope, models.UpdateMode.UPDATE_ONLY)
            if self._connection.is_server:
                # What was deleted, or left the scope, before the write was not written.
                now = await self._look(written)
                written = [id_ for id_ in written if id_ in now and now[id_].lies_in(scope)]
            return Replaced(len(written), stale)

        return await self._connection.write(replace)

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        async def remove() -> int:
            seen = await self._look(ids)
            gone = [id_ for id_ in ids if id_ in seen and seen[id_].lies_in(scope)]
            again = scope is not None and self._connection.is_server
            await self._collection.delete(
                [points.point_id(id_) for id_ in gone], _inside(scope) if again else None
            )
            return len(gone)

        return await self._connection.write(remove)

    async def _write(
        self, new: Sequence[models.PointStruct], scope: Scope | None, mode: models.UpdateMode
    ) -> None:
        """Write points; of those that exist, the ones that hold their ids and lie in the scope.

        The engine checks this together with each write. Another id with the same number is left.
        """
        await self._collection.upsert(
            new,
            lambda batch: filters.both(
                _inside(scope), filters.one_of("id", [_id(each) for each in batch])
            ),
            mode,
        )

    def _point(self, row: Row, kept: list[float] | None = None) -> models.PointStruct:
        if row.vector is not None:
            vector = points.stored_vector(row.vector, self.metric)
        else:
            assert kept is not None  # noqa: S101 - `_replace` alone has such rows, and looks
            vector = kept
        return models.PointStruct(
            id=points.point_id(row.record.id), vector=vector, payload=points.payload_of(row.record)
        )

    async def _look(self, ids: Iterable[str], *, with_vectors: bool = False) -> dict[str, _Stored]:
        """Return what writes must know of the records that exist, by id.

        A record of another id that has the number of one of these is among them.
        """
        seen: dict[str, _Stored] = {}
        for payload, vector in await self._collection.retrieve(
            [points.point_id(id_) for id_ in ids],
            ["id", points.TEXT_HASH, *_SCOPE_FIELDS],
            with_vectors=with_vectors,
        ):
            scope = {field: payload[field] for field in _SCOPE_FIELDS if field in payload}
            seen[payload["id"]] = _Stored(payload[points.TEXT_HASH], scope, vector)
        return seen

    # --- reading -----------------------------------------------------------------------------

    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        async def fetch() -> list[MemoryRecord]:
            wanted = set(ids)
            found = await self._collection.retrieve(
                [points.point_id(id_) for id_ in ids], ["id", points.RECORD]
            )
            return await _records_of([each for each, _ in found if each["id"] in wanted])

        return await self._connection.run(fetch)

    async def _count(self, where: Predicate | None) -> int:
        async def count() -> int:
            return await self._collection.count((await self._selection(where)).condition)

        return await self._connection.run(count)

    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        async def page() -> Listing:
            selection = await self._selection(where)
            total = await self._collection.count(selection.condition)
            size = min(limit, total - offset)
            ids = await self._ids(selection.condition, offset, size) if size > 0 else []
            return Listing(await self._records(selection, ids), total)

        return await self._connection.run(page)

    async def _ids(self, condition: models.Filter | None, offset: int, size: int) -> list[str]:
        """Return the ids of one page of a list, which is not empty.

        Qdrant orders by time alone. The times at which the page begins and ends are right; which
        records of these two times belong to it is for their ids to tell.
        """
        keys = [points.CREATED, "id"]
        page = await self._collection.newest(condition, keys, offset=offset, limit=size)
        if not page:
            return []  # deleted since they were counted
        newest, oldest = page[0][points.CREATED], page[-1][points.CREATED]
        before = await self._collection.count(filters.both(condition, _created(gt=newest)))
        band = await self._collection.all(
            filters.both(condition, _created(gte=oldest, lte=newest)), keys
        )
        start = offset - before
        return (await asyncio.to_thread(_in_order, band))[start : start + size]

    async def _records(self, selection: _Selection, ids: Sequence[str]) -> list[MemoryRecord]:
        """Return the records of these ids, in their order, that still meet the predicate."""
        numbers = [points.point_id(id_) for id_ in ids]
        keys = [points.RECORD]
        if self._connection.is_server:
            payloads = await self._collection.some(numbers, selection.condition, keys)
        else:  # nothing has come between, and a filter would look at every point
            payloads = [each for each, _ in await self._collection.retrieve(numbers, keys)]
        found = {record.id: record for record in await _records_of(payloads)}
        return [found[id_] for id_ in ids if id_ in found and selection.still_has(found[id_])]

    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        async def list_ids() -> list[str]:
            condition = (await self._selection(where)).condition
            found = await self._collection.all(condition, [points.CREATED, "id"])
            return await asyncio.to_thread(_in_order, found)

        return await self._connection.run(list_ids)

    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        async def rank() -> Ranking:
            selection = await self._selection(query.where)
            vector = points.stored_vector(query.vector, self.metric)
            start, end = query.window.offset, query.window.offset + query.window.limit
            total = None
            if query.max_distance is not None:
                found = await self._within(vector, selection.condition, query.max_distance)
                total = len(found)
            else:
                if query.window.with_total or end > PAGE:  # the engine makes room for that many
                    total = await self._collection.count(selection.condition)
                    end = min(end, total)
                found = await self._first(vector, selection.condition, end) if end > start else []
            hits = await self._hits(vector, selection, list(islice(_sorted(found), start, end)))
            return Ranking(hits, total if query.window.with_total else None)

        return await self._connection.run(rank)

    async def _first(
        self, vector: list[float], condition: models.Filter | None, end: int
    ) -> list[_Found]:
        """Return the ``end`` nearest, and all that are exactly as far as the last of them."""
        limit = end + 1
        while True:
            found = await self._found(vector, condition, limit=limit)
            if len(found) < limit or found[-1].dist > found[end - 1].dist:
                return found
            limit *= 4

    async def _within(
        self, vector: list[float], condition: models.Filter | None, max_distance: float
    ) -> list[_Found]:
        """Return all at this distance or nearer; Qdrant has no request that counts them."""
        limit = await self._collection.count(condition)
        if not limit:
            return []
        bound = points.score_bound(max_distance, self.metric)
        found = await self._found(vector, condition, limit=limit, bound=bound)
        return [each for each in found if each.dist <= max_distance]

    async def _found(
        self,
        vector: list[float],
        condition: models.Filter | None,
        *,
        limit: int,
        bound: float | None = None,
    ) -> list[_Found]:
        return [
            _Found(points.dist_of(score, self.metric), payload["id"])
            for payload, score in await self._collection.nearest(
                vector, condition, ["id"], limit=limit, bound=bound
            )
        ]

    async def _hits(
        self, vector: list[float], selection: _Selection, page: Sequence[_Found]
    ) -> list[Hit]:
        """Return the records of a page with their distances, both as of one moment."""
        if not self._connection.is_server:  # nothing has come between
            records = await self._records(selection, [each.id for each in page])
            dists = {each.id: each.dist for each in page}
            return [Hit(record, dists[record.id]) for record in records]
        numbers = [points.point_id(each.id) for each in page]
        measured = await self._collection.measured(
            vector, numbers, selection.condition, [points.RECORD]
        )
        records = await _records_of([each.payload for each in measured])
        hits = [
            Hit(record, points.dist_of(each.score, self.metric))
            for record, each in zip(records, measured, strict=True)
        ]
        shown = [hit for hit in hits if selection.still_has(hit.record)]
        return sorted(shown, key=lambda hit: (hit.dist, hit.record.id))

    async def _selection(self, where: Predicate | None) -> _Selection:
        """Return ``where`` for Qdrant; what it does not read is evaluated here, on all records."""
        if where is None:
            return _Selection(None, None)
        try:
            return _Selection(filters.to_filter(where), None)
        except filters.TooDeepError:
            everything = await self._collection.all(None, [points.RECORD])

            def matching() -> list[str]:
                records = map(points.record_of, everything)
                return [points.point_id(each.id) for each in records if matches(where, each)]

            numbers = await asyncio.to_thread(matching)
            return _Selection(models.Filter(must=[filters.has_id(numbers)]), where)


def _check_numbers(ids: Sequence[str]) -> None:
    holders: dict[str, str] = {}
    for id_ in ids:
        other = holders.setdefault(points.point_id(id_), id_)
        if other != id_:
            raise BackendError(
                f"the ids {other!r} and {id_!r} have the same number in Qdrant (a uuid5): use "
                "another id for one of them"
            )


def _outside(scope: Scope | None, seen: Mapping[str, _Stored]) -> list[str]:
    return [id_ for id_, stored in seen.items() if not stored.lies_in(scope)]


def _inside(scope: Scope | None) -> models.Filter | None:
    if scope is None:
        return None
    return models.Filter(
        must=[filters.one_of(field, [value]) for field, value in scope.fields.items()]
    )


def _id(point: models.PointStruct) -> str:
    return str((point.payload or {})["id"])


def _created(**bounds: int) -> models.FieldCondition:
    """Return the condition that ``created_at``, in microseconds, is within bounds of a range."""
    if all(abs(bound) < _EXACT for bound in bounds.values()):
        return models.FieldCondition(key=points.CREATED, range=models.Range(**bounds))
    times = {name: points.time_of(bound) for name, bound in bounds.items()}
    return models.FieldCondition(key="created_at", range=models.DatetimeRange(**times))


async def _records_of(payloads: Sequence[Payload]) -> list[MemoryRecord]:
    """Return the records of payloads; not on the event loop if they are many."""

    def decoded() -> list[MemoryRecord]:
        return [*map(points.record_of, payloads)]

    return decoded() if len(payloads) <= _FEW else await asyncio.to_thread(decoded)


def _in_order(found: Iterable[Payload]) -> list[str]:
    return [id_ for _, id_ in _sorted([(-each[points.CREATED], each["id"]) for each in found])]


def _sorted(items: Sequence[_T]) -> Iterator[_T]:
    """Yield items in order. While the interpreter sorts, no other thread runs: it sorts little."""
    parts = [sorted(items[start : start + _PART]) for start in range(0, len(items), _PART)]
    return heapq.merge(*parts)

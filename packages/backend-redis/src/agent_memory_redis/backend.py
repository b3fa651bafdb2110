"""The handle: options in, the primitives of `agent_memory.backend.Backend` on a Redis server.

Reading and writing by id is here. Queries are ranked in `agent_memory_redis.search`, a space is
opened by `agent_memory_redis.opening`; how a record looks on the server is known to
`agent_memory_redis.records`, how a space does to `agent_memory_redis.schema`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from itertools import compress
from typing import Any, Literal, TypeVar

from redis import exceptions

from agent_memory import (
    AgentMemoryError,
    BackendError,
    BackendUnavailableError,
    Capability,
    EmbeddingMismatchError,
    Embeddings,
    InvalidArgumentError,
    MemoryRecord,
    RecencyParams,
)
from agent_memory.backend import (
    Backend,
    Fingerprint,
    HybridQuery,
    KeywordQuery,
    Listing,
    Metric,
    Ranking,
    Replaced,
    Row,
    Rows,
    SemanticQuery,
)
from agent_memory.predicates import Predicate
from agent_memory.scope import Scope
from agent_memory_redis import scripts
from agent_memory_redis.commands import Commands
from agent_memory_redis.connection import (
    ConnectionSettings,
    address,
    check_server,
    connect,
    eviction_policy,
    translated,
)
from agent_memory_redis.opening import Opener
from agent_memory_redis.records import (
    tag_token,
    text_digest,
    to_fields,
)
from agent_memory_redis.schema import (
    Layout,
    VectorIndex,
)
from agent_memory_redis.search import Searches, offload

_T = TypeVar("_T")
_log = logging.getLogger("agent_memory_redis")

DEFAULT_INDEX_NAME = "memory"
DEFAULT_EF_RUNTIME = 128
_VARIABLES = {
    "index_name": "REDISVL_INDEX_NAME",
    "prefix": "REDISVL_INDEX_PREFIX",
    "metric": "REDISVL_DISTANCE_METRIC",
    "dimensions": "REDISVL_VECTOR_DIMENSIONS",
    "algorithm": "REDISVL_INDEXING_ALGORITHM",
}
_PUT_ROWS = 200
"""How many records go into one round trip: preparing them must not hold up the event loop."""
_KEYED = 1_000
_ATTEMPTS = 4
"""How often a write tells the indexes of itself while others empty the server."""
_ATOMIC_ROWS = 500
"""Up to this many records a scoped add checks and writes in one step of the server."""


class RedisBackend(Backend):
    """Memories as hashes on a Redis server, found by its query engine. Use `create`."""

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        space: str,
        layout: Layout,
        settings: ConnectionSettings,
        metric: Metric,
        vectors: VectorIndex,
        ef_runtime: int,
        dimensions: int | None,
    ) -> None:
        super().__init__(embeddings, space=space, metric=metric)
        self._layout = layout
        self._settings = settings
        self._vectors = vectors
        self._ef_runtime = ef_runtime if vectors.algorithm == "hnsw" else None
        self._dimensions = dimensions
        self._client: Any = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        exact = frozenset(Capability) - {Capability.APPROXIMATE}
        return exact if self._ef_runtime is None else frozenset(Capability)

    async def engine_versions(self) -> dict[str, str]:
        """Return the versions of the server and of its query engine."""
        async with self._engine():
            server = await self._commands.one("INFO", "server")
            modules = await self._commands.one("INFO", "modules")
        return {
            "Redis": str(server["redis_version"]),
            "query engine": str(modules.get("search_version", "unknown")),
        }

    # --- life --------------------------------------------------------------------------------

    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        if self._dimensions not in (None, fingerprint.dimensions):
            raise EmbeddingMismatchError(
                f"dimensions={self._dimensions} ({_VARIABLES['dimensions']}): the embeddings "
                f"{fingerprint.model!r} make vectors of {fingerprint.dimensions} dimensions"
            )
        self._client = connect(self._settings)
        self._commands = Commands(self._client, self._restore)
        self._searches = Searches(
            self._commands, self._layout, self.metric, ef_runtime=self._ef_runtime
        )
        await check_server(self._client, url=self._settings.url)
        self._opener = Opener(
            self._commands,
            self._layout,
            self._vectors,
            space=self.space,
            patience=self._settings.timeout,
        )
        self._stamp = await self._opener.prepared(fingerprint, again=False)
        stored = self._stamp.fingerprint
        if stored == fingerprint:
            await self._warn_of_eviction()
            self._commands.trust()
        return stored

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _restore(self) -> None:
        """Make sure again that the space is there and whole, which a call has found otherwise."""
        fingerprint = self._fingerprint
        assert fingerprint is not None
        stamp = await self._opener.prepared(fingerprint, again=True)
        stored = stamp.fingerprint
        if stored != fingerprint:
            raise EmbeddingMismatchError(
                f"the space {self.space!r} was made anew by others, for vectors of "
                f"{stored.model!r}, {stored.dimensions} dimensions, {stored.metric.value}: close "
                f"this handle"
            )
        self._stamp = stamp

    async def _warn_of_eviction(self) -> None:
        policy = await eviction_policy(self._client)
        if policy is not None and policy.startswith("allkeys"):
            _log.warning(
                "%s may evict memories: its maxmemory-policy is %s. Set noeviction",
                address(self._settings.url),
                policy,
            )

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        ours = translated(error, url=self._settings.url)
        if ours is None and isinstance(error, exceptions.RedisError):
            return BackendError(
                f"{address(self._settings.url)} answered a call on the space {self.space!r} with "
                f"an error: {error!s:.500}"
            )
        return ours

    async def _ping(self) -> None:
        await self._commands.one("PING")

    # --- writing -----------------------------------------------------------------------------

    async def _put(self, rows: Rows, scope: Scope | None) -> Sequence[str]:
        if scope is None:
            for part in rows.parts(_PUT_ROWS):
                await self._written(part, await offload(len(part), partial(self._sets, part)))
            return ()
        if self._commands.is_cluster or len(rows) > _ATOMIC_ROWS:
            # A script reaches the keys of one slot, and one of very many records would keep all
            # others waiting. So all are looked at first, and each once more when it is written.
            taken = await self._taken(rows.columns["id"], scope)
            if taken:
                return taken
        at_once = 1 if self._commands.is_cluster else _ATOMIC_ROWS
        taken = []
        for part in rows.parts(_PUT_ROWS if at_once == 1 else at_once):
            groups = list(part.parts(at_once))
            commands = await offload(len(part), partial(self._scoped_puts, groups, scope))
            replies = await self._written(part, commands)
            taken += [
                group.columns["id"][number - 1]
                for group, numbers in zip(groups, replies, strict=True)
                for number in numbers
            ]
        return taken

    async def _written(self, rows: Rows, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Send the commands that write ``rows``, and return their replies once the indexes know.

        They do not if the server was emptied under this handle, and the indexes are gone or were
        made anew by others, who did not expect that there are records.
        """
        if self._commands.is_cluster:  # the indexes were made of all that is there
            return await self._commands.keyed(commands)
        stamp = ("GET", self._layout.fingerprint_key)
        known, made = self._stamp, self._commands.indexes_made
        *replies, found = await self._commands.keyed([*commands, stamp])
        attempts_left = _ATTEMPTS
        while found != known.text.encode():
            if not attempts_left:
                raise BackendUnavailableError(
                    f"the space {self.space!r} is made anew again and again: is the server being "
                    f"emptied? Try again in a moment"
                )
            attempts_left -= 1
            await self._commands.restore(made)
            touches = [
                ("EVAL", scripts.TOUCH, 1, self._layout.key(each)) for each in rows.columns["id"]
            ]
            known, made = self._stamp, self._commands.indexes_made
            *_, found = await self._commands.keyed([*touches, stamp])
        return replies

    def _sets(self, rows: Sequence[Row]) -> list[Sequence[Any]]:
        key = self._layout.key
        return [("HSET", key(record.id), *to_fields(record, vector)) for record, vector in rows]

    def _scoped_puts(self, groups: Sequence[Rows], scope: Scope) -> list[Sequence[Any]]:
        return [self._scoped_put(each, scope) for each in groups]

    def _scoped_put(self, rows: Rows, scope: Scope) -> Sequence[Any]:
        keys = [*map(self._layout.key, rows.columns["id"])]
        command: list[Any] = ["EVAL", scripts.PUT, len(keys), *keys, *_scope_arguments(scope)]
        for record, vector in rows:
            fields = to_fields(record, vector)
            command += (len(fields), *fields)
        return command

    async def _taken(self, ids: Sequence[str], scope: Scope) -> list[str]:
        held = await self._searches.fetch(ids)
        return [each.id for each in held if not scope.contains(each)]

    async def _replace(self, rows: Rows, scope: Scope | None) -> Replaced:
        replaced = 0
        stale: list[str] = []
        for part in rows.parts(_PUT_ROWS):
            commands = await offload(len(part), partial(self._replacements, part, scope))
            replies = await self._written(part, commands)
            replaced += sum(each == 1 for each in replies)
            stale += compress(part.columns["id"], [each == 2 for each in replies])
        return Replaced(replaced, stale)

    def _replacements(self, rows: Sequence[Row], scope: Scope | None) -> list[Sequence[Any]]:
        return [self._replacement(each, scope) for each in rows]

    def _replacement(self, row: Row, scope: Scope | None) -> Sequence[Any]:
        record, vector = row
        return (
            *("EVAL", scripts.REPLACE, 1, self._layout.key(record.id)),
            *_scope_arguments(scope),
            text_digest(record.text) if vector is None else b"",
            *to_fields(record, vector),
        )

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        removed = 0
        for part in _parts(ids, _KEYED):
            keys = [*map(self._layout.key, part)]
            if scope is None:
                removed += await self._commands.unlink(keys)
                continue
            arguments = _scope_arguments(scope)
            removed += sum(
                await self._commands.keyed(
                    [("EVAL", scripts.REMOVE, 1, key, *arguments) for key in keys]
                )
            )
        return removed

    # --- reading -----------------------------------------------------------------------------

    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        return await self._searches.fetch(ids)

    def _fetch_in_parts(self, ids: Sequence[str]) -> AsyncGenerator[Sequence[MemoryRecord], None]:
        return self._searches.fetch_in_parts(ids)

    async def _count(self, where: Predicate | None) -> int:
        return await self._searches.count(where)

    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        return Listing(*await self._searches.page(where, offset=offset, limit=limit))

    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        return await self._searches.listed_ids(where)

    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        return await self._searches.semantic(query)

    async def _rank_recent(self, query: SemanticQuery, recency: RecencyParams) -> Ranking:
        return await self._searches.recent(query, recency)

    async def _rank_keyword(self, query: KeywordQuery) -> Ranking:
        return await self._searches.keyword(query)

    async def _rank_hybrid(self, query: HybridQuery) -> Ranking:
        return await self._searches.hybrid(query)


def _scope_arguments(scope: Scope | None) -> list[str | int]:
    tokens = [] if scope is None else [tag_token(*each) for each in scope.fields.items()]
    return [len(tokens), *tokens]


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- options -----------------------------------------------------------------------------------


def create(
    embeddings: Embeddings,
    *,
    space: str | None = None,
    url: str | None = None,
    index_name: str | None = None,
    prefix: str | None = None,
    metric: Metric | str | None = None,
    algorithm: Literal["hnsw", "flat"] | None = None,
    dimensions: int | None = None,
    m: int | None = None,
    ef_construction: int | None = None,
    ef_runtime: int | None = None,
    max_connections: int | None = None,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    retries: int | None = None,
    pool_timeout: float | None = None,
) -> RedisBackend:
    """Create a handle of the Redis backend; no I/O until the first call.

    An option that is not given is read from its environment variable; one that is set to nothing
    counts as not set.

    Args:
        embeddings: turns text into vectors.
        space: the name of the space: of the index, and what its keys begin with. Instead of
            ``index_name`` and ``prefix``.
        url: ``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://``, ``redis+sentinel://``
            (``REDIS_URL``; ``redis://localhost:6379``).
        index_name: the index (``REDISVL_INDEX_NAME``; ``memory``).
        prefix: what keys begin with, before a ``/`` (``REDISVL_INDEX_PREFIX``; the index's name).
        metric: ``cosine``, ``l2`` or ``ip`` (``REDISVL_DISTANCE_METRIC``; ``COSINE``).
        algorithm: ``hnsw``, approximate and fast in large spaces, or ``flat``, exact
            (``REDISVL_INDEXING_ALGORITHM``; ``HNSW``).
        dimensions: how many the vectors must have; checked against the embeddings
            (``REDISVL_VECTOR_DIMENSIONS``; whatever the embeddings have).
        m: HNSW: links of a vector on each level, 2 to 512 (16).
        ef_construction: HNSW: effort when a vector is linked, 1 to 4,096 (200).
        ef_runtime: HNSW: effort of a search, 1 to 4,096: higher finds more and takes longer (128).
        max_connections: connections of this handle; more calls wait (32).
        timeout: seconds that the server may take to answer (10).
        connect_timeout: seconds to connect (5).
        retries: how often connecting and reading is tried again (3).
        pool_timeout: seconds to wait for a free connection (30).

    Raises:
        InvalidArgumentError: an option or a variable has a value that it cannot have.
    """
    settings = ConnectionSettings.resolved(
        url=url,
        max_connections=max_connections,
        timeout=timeout,
        connect_timeout=connect_timeout,
        retries=retries,
        pool_timeout=pool_timeout,
    )
    if space is not None and (index_name, prefix) != (None, None):
        raise InvalidArgumentError(
            "space=... names the index and the keys: give either space, or index_name and prefix"
        )
    if space is not None:
        name = keys = _checked_name("space", space)
    else:
        name = _option("index_name", index_name, _checked_name) or DEFAULT_INDEX_NAME
        keys = _option("prefix", prefix, _checked_name) or name
    chosen = _option("algorithm", algorithm, _checked_algorithm) or "hnsw"
    hnsw = {
        "m": _checked_number("m", m, 2, 512),
        "ef_construction": _checked_number("ef_construction", ef_construction, 1, 4_096),
        "ef_runtime": _checked_number("ef_runtime", ef_runtime, 1, 4_096),
    }
    for option, value in hnsw.items():
        if chosen == "flat" and value is not None:
            raise InvalidArgumentError(f"{option}={value}: belongs to algorithm='hnsw'")
    return RedisBackend(
        embeddings,
        space=name,
        layout=Layout.of(name, keys),
        settings=settings,
        metric=_option("metric", metric, _checked_metric) or Metric.COSINE,
        vectors=VectorIndex(chosen, hnsw["m"], hnsw["ef_construction"]),
        ef_runtime=hnsw["ef_runtime"] or DEFAULT_EF_RUNTIME,
        dimensions=_option("dimensions", dimensions, _checked_dimensions),
    )


def _option(name: str, value: Any, checked: Callable[[str, Any], _T]) -> _T | None:
    """Return the option, or what its environment variable holds; ``None`` if neither is set."""
    if value is None:
        value = os.environ.get(_VARIABLES[name], "").strip() or None
    return None if value is None else checked(name, value)


def _invalid(name: str, value: object, expected: str) -> InvalidArgumentError:
    variable = f" ({_VARIABLES[name]})" if name in _VARIABLES else ""
    return InvalidArgumentError(f"{name}={value!r}{variable}: expected {expected}")


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _invalid(name, value, "a name, a string that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _invalid(name, value, "text, which a lone surrogate is not") from None
    return value


def _checked_metric(name: str, value: object) -> Metric:
    try:
        return Metric(str(value).lower())
    except ValueError:
        raise _invalid(name, value, f"one of {', '.join(Metric)}") from None


def _checked_algorithm(name: str, value: object) -> Literal["hnsw", "flat"]:
    for each in ("hnsw", "flat"):
        if isinstance(value, str) and value.lower() == each:
            return each
    raise _invalid(name, value, "hnsw or flat")


def _checked_dimensions(name: str, value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    number = _checked_number(name, value, 1, 32_768)
    assert number is not None
    return number


def _checked_number(name: str, value: object, least: int, most: int) -> int | None:
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise _invalid(name, value, f"a whole number from {least} to {most}")
    return value

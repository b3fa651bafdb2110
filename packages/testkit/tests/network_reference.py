"""A correct backend on an engine over a network, to try the rules about faults on.

The engine is a server of this module, in a process of its own: it keeps rows in dicts and answers
one request after another on a connection, each a length and a pickle (its only clients are the
tests). The backend's client has a pool of connections, a timeout for every call, and no retries.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import mul
from typing import Any

from agent_memory import (
    AgentMemoryError,
    BackendUnavailableError,
    Capability,
    MemoryRecord,
)
from agent_memory.backend import (
    Backend,
    Fingerprint,
    Listing,
    Ranking,
    Replaced,
    Row,
    SemanticQuery,
)
from agent_memory.backend import Hit as Found
from agent_memory.predicates import Predicate, matches
from agent_memory.scope import Scope

PASSWORD = "s3cret-of-the-engine"
_LENGTH = struct.Struct("!I")
_MOST_CONNECTIONS = 32


class _Space:
    """The rows of one space, and the requests that read and write them."""

    def __init__(self) -> None:
        self.fingerprint: Fingerprint | None = None
        self.rows: dict[str, tuple[MemoryRecord, tuple[float, ...]]] = {}

    def open(self, fingerprint: Fingerprint) -> Fingerprint:
        if self.fingerprint is None:
            self.fingerprint = fingerprint
        return self.fingerprint

    def put(
        self, rows: list[tuple[MemoryRecord, tuple[float, ...]]], scope: Scope | None
    ) -> list[str]:
        held = [record.id for record, _ in rows if record.id in self.rows]
        taken = [each for each in held if scope and not scope.contains(self.rows[each][0])]
        if not taken:
            self.rows.update({row[0].id: row for row in rows})
        return taken

    def replace(
        self, rows: list[tuple[MemoryRecord, tuple[float, ...] | None]], scope: Scope | None
    ) -> Replaced:
        replaced, stale = 0, []
        for record, vector in rows:
            stored = self.rows.get(record.id)
            if stored is None or (scope and not scope.contains(stored[0])):
                continue
            if vector is None and stored[0].text != record.text:
                stale.append(record.id)
                continue
            self.rows[record.id] = (record, stored[1] if vector is None else vector)
            replaced += 1
        return Replaced(replaced, stale)

    def remove(self, ids: list[str], scope: Scope | None) -> int:
        known = [each for each in ids if each in self.rows]
        gone = [each for each in known if scope is None or scope.contains(self.rows[each][0])]
        for memory_id in gone:
            del self.rows[memory_id]
        return len(gone)

    def fetch(self, ids: list[str]) -> list[MemoryRecord]:
        return [self.rows[each][0] for each in ids if each in self.rows]

    def count(self, where: Predicate | None) -> int:
        return len(self._matching(where))

    def page(self, where: Predicate | None, offset: int, limit: int) -> Listing:
        listed = self._listed(where)
        return Listing(listed[offset : offset + limit], len(listed))

    def list_ids(self, where: Predicate | None) -> list[str]:
        return [each.id for each in self._listed(where)]

    def rank(
        self,
        vector: tuple[float, ...],
        where: Predicate | None,
        max_distance: float | None,
        offset: int,
        limit: int,
    ) -> tuple[list[tuple[MemoryRecord, float]], int]:
        found = [
            (record, round(_distance(vector, self.rows[record.id][1]), 7))
            for record in self._matching(where)
        ]
        near = [each for each in found if max_distance is None or each[1] <= max_distance]
        near.sort(key=lambda each: (each[1], each[0].id))
        return near[offset : offset + limit], len(near)

    def _matching(self, where: Predicate | None) -> list[MemoryRecord]:
        return [
            record for record, _ in self.rows.values() if where is None or matches(where, record)
        ]

    def _listed(self, where: Predicate | None) -> list[MemoryRecord]:
        by_id = sorted(self._matching(where), key=lambda each: each.id)
        return sorted(by_id, key=lambda each: each.created_at, reverse=True)


class _Connection(socketserver.StreamRequestHandler):
    """Answers the requests of one connection, the first of which must be the password."""

    server: _Server

    def handle(self) -> None:
        try:
            while head := self.rfile.read(_LENGTH.size):
                request = pickle.loads(self.rfile.read(*_LENGTH.unpack(head)))
                answer = pickle.dumps(self._answer(*request))
                self.wfile.write(_LENGTH.pack(len(answer)) + answer)
        except (OSError, EOFError, struct.error, pickle.UnpicklingError):
            return  # the backend went away, perhaps in the middle of a request

    def _answer(self, method: str, space: str, arguments: tuple[Any, ...]) -> Any:
        if method == "log in":
            return arguments == (PASSWORD,)
        with self.server.lock:
            return getattr(self.server.spaces.setdefault(space, _Space()), method)(*arguments)


class _Server(socketserver.ThreadingTCPServer):
    """Listens on a port of its own."""

    daemon_threads = True
    request_queue_size = 1_024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.lock = threading.Lock()
        self.spaces: dict[str, _Space] = {}


@contextmanager
def running_engine() -> Iterator[int]:
    """Give the port of an engine in a process of its own, which ends afterwards."""
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NetworkDatabase(Backend):
    """A memory vector database on the engine of this module.

    Args:
        embeddings: turns text into vectors.
        space: the name of the space.
        host: where the engine listens.
        port: where the engine listens.
        timeout: in seconds: how long a request may take, connecting included.
    """

    def __init__(
        self, embeddings: Any, *, space: str, host: str, port: int, timeout: float = 60.0
    ) -> None:
        super().__init__(embeddings, space=space)
        self._address = (host, port)
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(_MOST_CONNECTIONS)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.PERSISTENT, Capability.SHARED})

    async def _open(self, fingerprint: Fingerprint) -> Fingerprint:
        stored: Fingerprint = await self._ask("open", fingerprint)
        return stored

    async def _close(self) -> None:
        self._drop_idle()

    async def _put(self, rows: Sequence[Row], scope: Scope | None) -> Sequence[str]:
        taken: list[str] = await self._ask("put", _pickled(rows), scope)
        return taken

    async def _replace(self, rows: Sequence[Row], scope: Scope | None) -> Replaced:
        replaced: Replaced = await self._ask("replace", _pickled(rows), scope)
        return replaced

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        count: int = await self._ask("remove", list(ids), scope)
        return count

    async def _fetch(self, ids: Sequence[str]) -> Sequence[MemoryRecord]:
        records: list[MemoryRecord] = await self._ask("fetch", list(ids))
        return records

    async def _count(self, where: Predicate | None) -> int:
        count: int = await self._ask("count", where)
        return count

    async def _list(self, where: Predicate | None, *, offset: int, limit: int) -> Listing:
        listing: Listing = await self._ask("page", where, offset, limit)
        return listing

    async def _list_ids(self, where: Predicate | None) -> Sequence[str]:
        ids: list[str] = await self._ask("list_ids", where)
        return ids

    async def _rank_semantic(self, query: SemanticQuery) -> Ranking:
        window = query.window
        found, total = await self._ask(
            "rank",
            tuple(query.vector.tolist()),
            query.where,
            query.max_distance,
            window.offset,
            window.limit,
        )
        hits = [Found(record, dist) for record, dist in found]
        return Ranking(hits, total if window.with_total else None)

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        if isinstance(error, (OSError, EOFError, TimeoutError)):
            host, port = self._address
            return BackendUnavailableError(
                f"the engine at {host}:{port} does not answer ({type(error).__name__}): is it up?"
            )
        return None

    # --- the client --------------------------------------------------------------------------

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Send one request and return its answer."""
        async with asyncio.timeout(self._timeout), self._places:
            connection = self._idle.pop() if self._idle else await self._connected()
            try:
                answer = await self._answer_of(connection, method, arguments)
            except BaseException:
                connection[1].transport.abort()
                self._drop_idle()  # what broke this one may have broken them all
                raise
            self._idle.append(connection)
            return answer

    async def _connected(self) -> Connection:
        connection = await asyncio.open_connection(*self._address)
        try:
            if not await self._answer_of(connection, "log in", (PASSWORD,)):
                raise ConnectionError("the engine refuses the password")
        except BaseException:
            connection[1].transport.abort()
            raise
        return connection

    async def _answer_of(self, to: Connection, method: str, arguments: tuple[Any, ...]) -> Any:
        reader, writer = to
        request = await asyncio.to_thread(pickle.dumps, (method, self.space, arguments))
        writer.write(_LENGTH.pack(len(request)) + request)
        await writer.drain()
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await asyncio.to_thread(pickle.loads, await reader.readexactly(size))

    def _drop_idle(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()


def _pickled(rows: Sequence[Row]) -> list[tuple[MemoryRecord, tuple[float, ...] | None]]:
    return [(each.record, None if each.vector is None else tuple(each.vector)) for each in rows]


def _distance(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    inner: float = sum(map(mul, left, right))
    return 1.0 - inner / (math.hypot(*left) * math.hypot(*right))


if __name__ == "__main__":
    with _Server() as server:
        print(server.server_address[1], flush=True)  # noqa: T201 - the answer to whoever started it
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()  # ends with whoever started it, however that ends

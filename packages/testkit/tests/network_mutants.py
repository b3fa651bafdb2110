"""Mutants of the backend on a network: how clients treat an engine that does not answer."""

from __future__ import annotations

import asyncio
import atexit
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from agent_memory import (
    AgentMemoryError,
    BackendUnavailableError,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
)
from agent_memory.backend import Row
from agent_memory.scope import Scope
from agent_memory_testkit import ConformanceSuite, Network, Profile, Task, Unsupported
from mutants import planted
from network_reference import PASSWORD, Connection, NetworkDatabase, running_engine

_TIMEOUT = 0.25
_PORT_VARIABLE = "AGENT_MEMORY_TESTS_ENGINE_PORT"
"""Set in other processes that a trial starts: where the engine of this one listens."""
_NO_WORDS = Unsupported("the engine has no index of words")

_until_the_end = ExitStack()
atexit.register(_until_the_end.close)


def engine_port() -> int:
    """Return where the one engine of all trials listens, after starting it if need be."""
    if _PORT_VARIABLE not in os.environ:
        os.environ[_PORT_VARIABLE] = str(_until_the_end.enter_context(running_engine()))
    return int(os.environ[_PORT_VARIABLE])


class NetworkTrial(ConformanceSuite):
    """The conformance suite on a mutant of the backend on a network."""

    profile = Profile(
        "network reference",
        off={"keyword_search": _NO_WORDS, "hybrid_search": _NO_WORDS},
        network=Network("127.0.0.1", engine_port(), timeout=_TIMEOUT, password=PASSWORD),
    )
    backend: ClassVar[type[NetworkDatabase]] = NetworkDatabase

    async def open(self, space: str, embeddings: Any) -> MemoryVectorDatabase:
        return self.backend(embeddings, space=space, host="127.0.0.1", port=engine_port())

    async def open_through(
        self, space: str, embeddings: Any, host: str, port: int
    ) -> MemoryVectorDatabase:
        return self.backend(embeddings, space=space, host=host, port=port, timeout=_TIMEOUT)

    def second_process(self, task: Task) -> subprocess.Popen[str]:
        with _importable_from(Path(__file__).parent):
            return super().second_process(task)


@contextmanager
def _importable_from(folder: Path) -> Any:
    """Let processes that are started meanwhile import what lies in ``folder``."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@planted("ERR-1", suite=NetworkTrial)
class FindsNothingWhenUnreachable(NetworkDatabase):
    """While the engine does not answer, searches and lists are empty pages."""

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        try:
            return await super().search_memories(query, **arguments)
        except BackendUnavailableError:
            return MemoryRecordResults(memories=[], total=0)

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        try:
            return await super().list_memories(**arguments)
        except BackendUnavailableError:
            return MemoryRecordResults(memories=[], total=0)


@planted("ERR-1", suite=NetworkTrial)
class CountsZeroWhenUnreachable(NetworkDatabase):
    """While the engine does not answer, count_memories returns 0."""

    async def count_memories(self, **filters: Any) -> int:
        try:
            return await super().count_memories(**filters)
        except BackendUnavailableError:
            return 0


@planted("ERR-1", suite=NetworkTrial)
class GetsNoneWhenUnreachable(NetworkDatabase):
    """While the engine does not answer, get_memories returns None."""

    async def get_memories(self, memory_ids: Sequence[str]) -> list[MemoryRecord]:
        try:
            return await super().get_memories(memory_ids)
        except BackendUnavailableError:
            return None  # type: ignore[return-value]


@planted("ERR-1", suite=NetworkTrial)
class IteratesOverNothingWhenUnreachable(NetworkDatabase):
    """While the engine does not answer, iter_memories ends at once."""

    async def iter_memories(self, **filters: Any) -> AsyncIterator[MemoryRecord]:
        try:
            async for each in super().iter_memories(**filters):
                yield each
        except BackendUnavailableError:
            return


@planted("ERR-1", suite=NetworkTrial)
class WaitsForEver(NetworkDatabase):
    """The connection has no timeout."""

    def __init__(self, embeddings: Any, **options: Any) -> None:
        super().__init__(embeddings, **{**options, "timeout": 1e6})


@planted("ERR-1", suite=NetworkTrial)
class RetriesForEver(NetworkDatabase):
    """A request that fails is sent again until it succeeds."""

    async def _ask(self, method: str, *arguments: Any) -> Any:
        while True:
            try:
                return await super()._ask(method, *arguments)
            except (OSError, EOFError, TimeoutError):
                await asyncio.sleep(0.05)


@planted("ERR-1", suite=NetworkTrial)
class TakesHalfAnAnswer(NetworkDatabase):
    """An answer that ends too early is read as an empty one."""

    async def _answer_of(self, to: Connection, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return await super()._answer_of(to, method, arguments)
        except asyncio.IncompleteReadError:
            if method not in ("fetch", "list_ids"):
                raise
            return []


@planted("ERR-1", suite=NetworkTrial)
class LetsTheClientsErrorsThrough(NetworkDatabase):
    """What the client library raises reaches the caller as it is."""

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        return None


@planted("ERR-1", suite=NetworkTrial)
class ConnectsWithoutATimeout(NetworkDatabase):
    """Requests have a timeout, connecting has none."""

    async def _open(self, fingerprint: Any) -> Any:
        timeout, self._timeout = self._timeout, 1e6
        try:
            return await super()._open(fingerprint)
        finally:
            self._timeout = timeout


@planted("ERR-2", suite=NetworkTrial)
class RemembersThatItFailed(NetworkDatabase):
    """A handle that failed once fails from then on."""

    _failed = False

    async def _ask(self, method: str, *arguments: Any) -> Any:
        if self._failed:
            raise ConnectionError("the engine was away")
        try:
            return await super()._ask(method, *arguments)
        except (OSError, EOFError, TimeoutError):
            self._failed = True
            raise


@planted("ERR-2", suite=NetworkTrial)
class PutsDeadConnectionsBack(NetworkDatabase):
    """A connection goes back to the pool when a request on it has failed, too."""

    async def _ask(self, method: str, *arguments: Any) -> Any:
        async with asyncio.timeout(self._timeout), self._places:
            connection = self._idle.pop() if self._idle else await self._connected()
            try:
                answer = await self._answer_of(connection, method, arguments)
            except asyncio.CancelledError:
                connection[1].transport.abort()
                raise
            except Exception:
                self._idle.append(connection)
                raise
            self._idle.append(connection)
            return answer


@planted("ERR-3", suite=NetworkTrial)
class RepeatsDeletes(NetworkDatabase):
    """A delete whose answer was lost is repeated, and counts what is left to delete."""

    async def _remove(self, ids: Sequence[str], scope: Scope | None) -> int:
        try:
            return await super()._remove(ids, scope)
        except (OSError, EOFError, TimeoutError):
            return await super()._remove(ids, scope)


@planted("ERR-3", suite=NetworkTrial)
class DeletesBeforeItAdds(NetworkDatabase):
    """An add deletes the ids that there are, then stores the records: two requests."""

    async def _put(self, rows: Sequence[Row], scope: Scope | None) -> Sequence[str]:
        if scope is None and len(rows) > 1:
            await self._remove([each.record.id for each in rows], None)
        return await super()._put(rows, scope)


@planted("ERR-5", suite=NetworkTrial)
class PrintsThePassword(NetworkDatabase):
    """The message of an unreachable engine holds its URL, with the password."""

    def _translated(self, error: Exception) -> AgentMemoryError | None:
        host, port = self._address
        if super()._translated(error) is None:
            return None
        return BackendUnavailableError(f"engine://:{PASSWORD}@{host}:{port} does not answer")


class _SecretTrial(NetworkTrial):
    """A trial whose profile does not say that there is a network."""

    profile = Profile("network reference", off=NetworkTrial.profile.off)


@planted("ERR-1", suite=_SecretTrial)
class KeepsItsNetworkSecret(NetworkDatabase):
    """The profile names no network, so that no fault can be tried."""

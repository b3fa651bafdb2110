"""Ways to a Qdrant: one inside this process, and one over the network.

Both hold an ``AsyncQdrantClient``. What a primitive does with it is a coroutine, given to `run` as
a whole; each request in it goes through `send`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO, TypeVar

import portalocker
from agent_memory import BackendUnavailableError
from qdrant_client import AsyncQdrantClient

from agent_memory_qdrant.errors import passes

T = TypeVar("T")


class Connection(ABC):
    """An open client."""

    client: AsyncQdrantClient
    is_server: bool
    """Whether other clients can come between two requests of one `run` or `write`."""

    @abstractmethod
    async def open(self) -> None:
        """Make the client."""

    @abstractmethod
    async def close(self) -> None:
        """Release what `open` acquired; it may have failed, or never run."""

    @abstractmethod
    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work``, which may make several requests."""

    @abstractmethod
    async def write(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work``, which looks and then writes; no other `write` of this client between."""

    @abstractmethod
    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make one request, and repeat it where that can help."""


class LocalConnection(Connection):
    """Qdrant's local mode, in a thread of its own.

    Local mode is plain Python and NumPy behind coroutines that never wait: on the event loop they
    would stop every other task. All work of a handle is done by one thread, one piece after the
    other, so that what reads and then writes is a single step.
    """

    is_server = False

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock: TextIO | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._runner: asyncio.Runner | None = None

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent-memory-qdrant")
        await self._in_thread(self._make_client)

    def _make_client(self) -> None:
        self._runner = asyncio.Runner()
        if self._folder is None:
            self.client = AsyncQdrantClient(location=":memory:")
            return
        # Qdrant locks the folder as well, but reads all of it first, and leaves files open when it
        # then finds that it may not.
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "agent-memory.lock").open("a")
        try:
            portalocker.lock(
                self._lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
            )
            self.client = AsyncQdrantClient(path=str(self._folder))
        except (portalocker.LockException, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "already accessed" not in str(error):
                raise
            raise BackendUnavailableError(
                f"The folder {self._folder} is open elsewhere, in this process or in another one; "
                "Qdrant's local mode allows one owner. Close the other handle, or run a Qdrant "
                "server and give its url"
            ) from error

    async def close(self) -> None:
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._drop_client)
        finally:
            thread.shutdown()

    def _drop_client(self) -> None:
        with ExitStack() as rest:
            if self._lock is not None:
                rest.enter_context(self._lock)
                self._lock = None
            if self._runner is not None:
                runner = rest.enter_context(self._runner)
                self._runner = None
                if hasattr(self, "client"):
                    client = self.client
                    del self.client
                    runner.run(client.close())

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        def piece() -> T:
            if self._runner is None:  # closed while this piece waited for its turn
                raise RuntimeError("the connection is closed")
            return self._runner.run(work())

        return await self._in_thread(piece)

    write = run  # alone in the thread as it is

    async def _in_thread(self, piece: Callable[[], T]) -> T:
        if self._thread is None:
            raise RuntimeError("the connection is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, piece)

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        return await request()


class ServerConnection(Connection):
    """A Qdrant server or cluster.

    Every request may be repeated: points are written and deleted by id, so that the second time
    changes nothing more. ``timeout`` seconds are for a request with all its repetitions.
    """

    is_server = True

    def __init__(self, *, timeout: float, retries: int, **options: Any) -> None:
        self._timeout = timeout
        self._retries = retries
        self._options = options
        self._writing = asyncio.Lock()
        self._failed_writes: tuple[int, Exception | None] = (0, None)
        """How many writes found no server, and what the last of them raised."""

    async def open(self) -> None:
        # The check of versions would be a thread that asks the server on its own; `open` of the
        # backend does it where failures are seen.
        self.client = AsyncQdrantClient(
            timeout=max(1, round(self._timeout)), check_compatibility=False, **self._options
        )

    async def close(self) -> None:
        if hasattr(self, "client"):
            client = self.client
            del self.client
            await client.close()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await work()

    async def write(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        failed_before, _ = self._failed_writes
        async with self._writing:
            failed, failure = self._failed_writes
            if failure is not None and failed > failed_before:
                # While this call waited for its turn; another attempt would take as long again.
                raise failure
            try:
                return await work()
            except Exception as error:
                if passes(error):
                    self._failed_writes = (failed + 1, error)
                raise

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        pause = 0.05
        failures = 0
        async with asyncio.timeout(self._timeout):
            while True:
                try:
                    return await request()
                except Exception as error:
                    failures += 1
                    if failures > self._retries or not passes(error):
                        raise
                await asyncio.sleep(pause)
                pause *= 2

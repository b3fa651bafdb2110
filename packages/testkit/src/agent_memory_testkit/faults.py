"""A TCP proxy that comes between a backend and its engine, and fails on demand.

It runs in a thread with an event loop of its own, so it goes on while the backend under test
waits, blocks or hangs. What a backend must do about the faults is not here: see the rules ERR-1
to ERR-3 in `agent_memory_testkit.suite.faults`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset instead of a polite end."""


class NetworkFault(StrEnum):
    """What a network, or an engine behind it, does to a backend."""

    REFUSE = "connections are refused"
    RESET = "connections are accepted and reset"
    STALL = "nothing gets through, and nothing is closed"
    DELAY = "every answer comes too late"
    CUT = "of every answer one half arrives, then the connection ends"
    LOSE = "requests arrive, and the connection is reset before the answer"


_ON_ANSWERS = (NetworkFault.DELAY, NetworkFault.CUT, NetworkFault.LOSE)


class FaultProxy:
    """Passes connections on to an engine until a fault is injected. A context manager.

    Args:
        host: where the engine listens.
        port: where the engine listens.
        delay: by how many seconds `NetworkFault.DELAY` holds back each answer.

    Raises:
        OSError: no port of this machine's loopback interface is free.
    """

    def __init__(self, host: str, port: int, *, delay: float) -> None:
        self._engine = (host, port)
        self.delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fault proxy", daemon=True
        )
        self._server: asyncio.Server | None = None
        self._relays: set[_Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: NetworkFault | None = None
        self._answers_to_pass = 0
        self._most_hits: int | None = None
        self.host = "127.0.0.1"
        self.port = 0
        """Where the proxy listens."""
        self.connections = 0
        """How many connections it has accepted."""
        self.hits = 0
        """How many times the fault injected last had an effect."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def inject(self, fault: NetworkFault, *, after: int = 0, times: int | None = None) -> None:
        """Fail from now on, on open connections too.

        Args:
            fault: how.
            after: how many answers of the engine pass before, for faults of answers.
            times: how many answers meet the fault; ``None`` for all of them.
        """
        self._run(self._begin(fault, after, times))

    def lift(self) -> None:
        """Pass everything on again. Connections on which something is held back are reset."""
        self._run(self._end())

    # --- in the thread of the proxy ----------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accepted, self.host, self.port, reuse_address=True, backlog=1_024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _begin(self, fault: NetworkFault, after: int, times: int | None) -> None:
        self._fault = fault
        self._answers_to_pass = after
        self._most_hits = times
        self.hits = 0
        if fault is NetworkFault.REFUSE:
            await self._stop_listening()
        if fault in (NetworkFault.REFUSE, NetworkFault.RESET):
            self.hits += len(self._relays)
            await self._reset_all()

    async def _end(self) -> None:
        self._fault = None
        for relay in list(self._relays):
            if relay.is_held:
                relay.reset()
        if self._server is None:
            await self._listen()

    async def _stop(self) -> None:
        await self._stop_listening()
        await self._reset_all()

    async def _reset_all(self) -> None:
        for relay in list(self._relays):
            relay.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: _reset(writer))  # also if it was cancelled unstarted

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is NetworkFault.RESET:
            self.hits += 1
            return
        try:
            to_engine = await asyncio.open_connection(*self._engine)
        except OSError:
            return
        relay = _Relay(self, (reader, writer), to_engine)
        self._relays.add(relay)
        try:
            await relay.run()
        finally:
            relay.reset()
            self._relays.discard(relay)

    # --- what relays ask ---------------------------------------------------------------------

    def holds_everything(self) -> bool:
        """Tell whether nothing may be passed on now, in either direction."""
        held = self._fault is NetworkFault.STALL
        self.hits += held
        return held

    def fault_of_answer(self) -> NetworkFault | None:
        """Return what happens to the answer that has just come from the engine."""
        if self._fault not in _ON_ANSWERS:
            return None
        if self._answers_to_pass > 0:
            self._answers_to_pass -= 1
            return None
        if self._most_hits is not None and self.hits >= self._most_hits:
            return None
        self.hits += 1
        return self._fault


class _Relay:
    """One connection of the backend, and the one to the engine that belongs to it."""

    def __init__(
        self,
        proxy: FaultProxy,
        backend: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        engine: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._from_backend, self._to_backend = backend
        self._from_engine, self._to_engine = engine
        self.is_held = False
        """Whether something waits to be passed on, and never will be."""

    async def run(self) -> None:
        """Pass on in both directions until one side ends."""
        directions = [
            asyncio.ensure_future(self._requests()),
            asyncio.ensure_future(self._answers()),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in directions:
                each.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _requests(self) -> None:
        while request := await self._from_backend.read(_CHUNK):
            if self._proxy.holds_everything():
                await self._hold()
            self._to_engine.write(request)
            await self._to_engine.drain()

    async def _answers(self) -> None:
        while answer := await self._from_engine.read(_CHUNK):
            if self._proxy.holds_everything():
                await self._hold()
            fault = self._proxy.fault_of_answer()
            if fault is NetworkFault.LOSE:
                return
            if fault is NetworkFault.DELAY:
                self.is_held = True
                await asyncio.sleep(self._proxy.delay)
                self.is_held = False
            if fault is NetworkFault.CUT:
                answer = answer[: len(answer) // 2]
            self._to_backend.write(answer)
            await self._to_backend.drain()
            if fault is NetworkFault.CUT:
                self._to_backend.close()  # what was written arrives, which a reset would not allow
                return

    async def _hold(self) -> None:
        self.is_held = True
        await asyncio.Event().wait()  # until the connection is reset, which cancels this

    def reset(self) -> None:
        """End both connections at once."""
        self._to_engine.transport.abort()
        _reset(self._to_backend)


def _reset(writer: asyncio.StreamWriter) -> None:
    end: socket.socket | None = writer.get_extra_info("socket")
    if not writer.is_closing() and end is not None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()

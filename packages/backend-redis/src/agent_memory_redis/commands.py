"""Sending commands: one, several in one round trip, a cursor to its end; alike on a cluster.

The query engine's commands name no key, so a cluster's client cannot put them into a pipeline;
there they are sent side by side. What the commands say is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from agent_memory_redis import scripts

_T = TypeVar("_T")

Command = Sequence[Any]

_ATTEMPTS = 4
"""How often a query is asked that finds no index, or one that was just being made."""
_CURSORS = 8
"""How many cursors a handle opens at once; the engine allows 128 on an index."""
_CURSOR_ROWS = 1_000
_CURSOR_IDLE_MILLISECONDS = 60_000
"""After which the server forgets a cursor that nobody reads, as after a lost connection."""


class Commands:
    """What a client can do, for one server and for a cluster.

    Args:
        client: the client.
        restore: makes the indexes anew that are missing, and returns when they are whole. Called
            when a query finds none, or a write another space than before, as after the server was
            restarted without its data, or emptied; queries that were asked meanwhile are asked
            again then.
    """

    def __init__(
        self, client: Redis | RedisCluster, restore: Callable[[], Awaitable[None]]
    ) -> None:
        self._client: Any = client
        self._restore = restore
        self.is_cluster = isinstance(client, RedisCluster)
        self._cursors = asyncio.Semaphore(_CURSORS)
        self._restoring = asyncio.Lock()
        self.indexes_made = 0
        """How often they were looked for, and made if they were missing."""
        self._trusted = 0
        """How many connections there had been when the index was last seen to be whole."""

    def trust(self) -> None:
        """Remember that the index is whole, seen by the connections made so far."""
        self._trusted = self._client.connected

    async def one(self, *command: Any) -> Any:
        """Send one command and return its reply."""
        return await self._client.execute_command(*command)

    async def queries(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Send queries of the index in one round trip and return their replies."""
        return await self._with_index(lambda: self._client.ask(*commands))

    async def read(self, keys: Sequence[str], field: str) -> Sequence[bytes | None]:
        """Return one field of each of these hashes, ``None`` where there is none."""
        if self.is_cluster:
            return await self.keyed([("HGET", key, field) for key in keys])
        values: Sequence[bytes | None]
        [values] = await self._client.ask(("EVAL", scripts.READ, len(keys), *keys, field))
        return values

    async def unlink(self, keys: Sequence[str]) -> int:
        """Delete these keys and return how many there were."""
        if self.is_cluster:
            return sum(await self.keyed([("UNLINK", key) for key in keys]))
        return int(await self.one("UNLINK", *keys))

    async def all_rows(
        self, index: str, *aggregation: Any, made: Callable[[Sequence[bytes]], _T]
    ) -> list[_T]:
        """Return what is ``made`` of each row of an FT.AGGREGATE, a flat list of names and values.

        That is done to some rows while the next ones come.
        """
        async with self._cursors:
            return await self._with_index(lambda: self._all_rows(index, aggregation, made))

    async def _with_index(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return what is answered once there is a whole index to answer from."""
        attempts_left = _ATTEMPTS
        while True:
            if self._restoring.locked() or self._trusted != self._client.connected:
                await self._wait_for_the_index()
            made = self.indexes_made
            try:
                answer = await ask()
            except exceptions.ResponseError as error:
                attempts_left -= 1
                if not is_missing_index(error) or not attempts_left:
                    raise
                await self.restore(made)
            else:
                if made == self.indexes_made and self._trusted == self._client.connected:
                    return answer

    async def restore(self, made: int) -> None:
        """Make sure that the indexes are whole, unless that was done since `indexes_made` was so.

        Queries that are answered meanwhile are asked again.
        """
        async with self._restoring:
            if made == self.indexes_made:
                self.indexes_made += 1
                await self._restore()

    async def _wait_for_the_index(self) -> None:
        async with self._restoring:  # an index in the making answers with what it has so far
            # Behind a new connection may be a server that has restarted or was promoted, and makes
            # its index just now.
            while self._trusted != (connected := self._client.connected):
                await self._restore()
                self._trusted = connected

    async def keyed(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Send commands that each name one key in one round trip and return their replies."""
        if not self.is_cluster:
            return await self._client.ask(*commands)  # type: ignore[no-any-return]
        async with self._client.pipeline(transaction=False) as pipeline:
            for each in commands:
                pipeline.execute_command(*each)
            replies: Sequence[Any] = await pipeline.execute()
        return replies

    async def _all_rows(
        self, index: str, aggregation: Command, made: Callable[[Sequence[bytes]], _T]
    ) -> list[_T]:
        # A cursor lives on the node that opened it.
        where = {"target_nodes": self._client.get_default_node()} if self.is_cluster else {}
        execute = self._client.execute_command
        count = ("COUNT", _CURSOR_ROWS)
        cursor_options = ("WITHCURSOR", *count, "MAXIDLE", _CURSOR_IDLE_MILLISECONDS)
        reply, cursor = await execute("FT.AGGREGATE", index, *aggregation, *cursor_options, **where)
        rows: list[_T] = []
        while cursor:
            reading = asyncio.create_task(
                execute("FT.CURSOR", "READ", index, cursor, *count, **where)
            )
            try:
                await asyncio.sleep(0)  # for that to be sent
                rows += map(made, reply[1:])
                reply, cursor = await reading
            except BaseException:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                # It may have come to its end; and what is under way matters more.
                with suppress(exceptions.RedisError, OSError):
                    await execute("FT.CURSOR", "DEL", index, cursor, **where)
                raise
        rows += map(made, reply[1:])
        return rows


def is_missing_index(error: BaseException) -> bool:
    """Tell whether a reply says that there is no such index; each command has its own words."""
    said = str(error).lower()
    return isinstance(error, exceptions.ResponseError) and any(each in said for each in _MISSING)


_MISSING = ("no such index", "unknown index name", "index not found", "index was dropped")

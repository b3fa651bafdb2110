"""Opening a space: its stamp and its indexes are looked for, made if they are missing, checked.

The order is what makes it safe without a lock. A stamp is stored first, unfinished; then the
indexes are made; then the stamp is finished. So where a stamp is finished, an index that is missing
was dropped, and is made of the records that are there. Where there was none, the indexes start
empty: to look for records, the server would look at all its keys, which are many where others use
it, too. If there are records all the same, they are of a handle that was open when the server was
emptied. It will find the stamp to be another one, and tell the indexes of what it wrote before it
acknowledges that (`RedisBackend._written`). A cluster has no one moment at which it is empty, so
there the indexes are always made of what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis import exceptions

from agent_memory import BackendError, BackendUnavailableError
from agent_memory.backend import Fingerprint
from agent_memory_redis import scripts
from agent_memory_redis.commands import Commands, is_missing_index
from agent_memory_redis.schema import (
    SCHEMA_VERSION,
    Layout,
    Stamp,
    VectorIndex,
    as_mapping,
    check_index,
    check_keys,
    create_command,
    create_counting_command,
    is_built,
)

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.2
"""Seconds between looking whether an index is built."""

_ATTEMPTS = 4
"""How often a space is looked at while others empty the server."""


class Opener:
    """Makes sure that one space is there and whole.

    Args:
        commands: reach the server.
        layout: the names of the space on it.
        vectors: how they are to be indexed.
        space: its name for people.
        patience: for how many seconds to wait for an index that is being built.
    """

    def __init__(
        self,
        commands: Commands,
        layout: Layout,
        vectors: VectorIndex,
        *,
        space: str,
        patience: float,
    ) -> None:
        self._commands = commands
        self._layout = layout
        self._vectors = vectors
        self._space = space
        self._patience = patience

    async def prepared(self, ours: Fingerprint, *, again: bool) -> Stamp:
        """Return the stamp of the space once its indexes are there and whole.

        Or the stamp as it is, if it is for vectors of another kind than ``ours``.

        Args:
            ours: what the vectors are.
            again: whether it was open already, so that there may be records whatever is gone.

        Raises:
            BackendError: there are indexes of others, or of another kind.
            BackendUnavailableError: an index is still being built, or all is being deleted.
        """
        for _ in range(_ATTEMPTS):
            stamp = await self._stored() or await self._agreed(ours, again=again)
            if stamp.fingerprint != ours:
                return stamp
            # On a cluster writers do not look at the stamp, which says nothing of a single node.
            scan = stamp.is_finished or again or self._commands.is_cluster
            await self._wait_until_built(await self._indexes(ours, scan=scan))
            # Only if it is still the same stamp, all that was seen in between was of one space.
            if await self._finished(stamp):
                return stamp.finished()
            again = True
        raise self._vanished(f"the key {self._layout.fingerprint_key!r}")

    async def _indexes(self, ours: Fingerprint, *, scan: bool) -> dict[str, dict[str, Any]]:
        """Return what the indexes are, made if they are missing, by their names."""
        layout = self._layout
        info = await self._info(layout.index)
        if info is None:
            info = await self._created(create_command(layout, ours, self._vectors, scan=scan))
        check_index(layout, info, ours, self._vectors)
        indexes = {layout.index: info}
        if not self._commands.is_cluster:
            info = await self._info(layout.counting_index)
            if info is None:
                info = await self._created(create_counting_command(layout, scan=scan))
            check_keys(layout, layout.counting_index, info)
            indexes[layout.counting_index] = info
        return indexes

    async def _agreed(self, ours: Fingerprint, *, again: bool) -> Stamp:
        """Store a stamp where there is none, if no other process is faster; return what is stored.

        Raises:
            BackendError: there are indexes, and nothing says whose.
        """
        key = self._layout.fingerprint_key
        there = await self._index_that_is_there()
        stored = await self._stored()  # once more: who made that index has stored it before
        if stored is not None:
            return stored
        if there is not None and not again:
            raise BackendError(
                f"there is an index {there!r}, and the key {key!r}, which says whose vectors it "
                f"holds, is missing. If the index is not of this backend, choose another "
                f"index_name or space; if the key was lost, restore it"
            )
        await self._commands.one("SET", key, Stamp.new(ours).text, "NX")
        stored = await self._stored()
        if stored is None:
            raise self._vanished(f"the key {key!r}")
        return stored

    async def _index_that_is_there(self) -> str | None:
        for name in (self._layout.index, self._layout.counting_index):
            if await self._info(name) is not None:
                return name
        return None

    async def _stored(self) -> Stamp | None:
        text = await self._commands.one("GET", self._layout.fingerprint_key)
        if text is None:
            return None
        stored = Stamp.read(text.decode())
        if stored.version != SCHEMA_VERSION:
            raise BackendError(
                f"the space {self._space!r} has the schema version {stored.version}, this "
                f"agent-memory-redis knows version {SCHEMA_VERSION}: install a newer one"
            )
        return stored

    async def _finished(self, stamp: Stamp) -> bool:
        """Finish the stamp if need be; tell whether the space is still the one of this stamp."""
        finished = stamp.finished()
        if not stamp.is_finished:
            key = self._layout.fingerprint_key
            await self._commands.one("EVAL", scripts.FINISH, 1, key, stamp.text, finished.text)
        return await self._stored() == finished  # as it is if another process has finished it

    async def _created(self, command: Sequence[Any]) -> dict[str, Any]:
        """Make an index, unless another process makes it just now; return what it is."""
        try:
            await self._commands.one(*command)
        except exceptions.ResponseError as error:
            if "already exists" not in str(error):
                raise
        name = str(command[1])
        info = await self._info(name)
        if info is None:
            raise self._vanished(f"the index {name!r}")
        return info

    def _vanished(self, what: str) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"{what} is gone again: is the server being emptied? Try again in a moment"
        )

    async def _info(self, name: str) -> dict[str, Any] | None:
        try:
            return as_mapping(await self._commands.one("FT.INFO", name))
        except exceptions.ResponseError as error:
            if is_missing_index(error):
                return None
            raise

    async def _wait_until_built(self, indexes: Mapping[str, dict[str, Any]]) -> None:
        """Wait for indexes that are made of records which are there: till then they miss some."""
        waited = 0.0
        for name, first in indexes.items():
            info: dict[str, Any] | None = first
            pause = _SHORTEST_PAUSE
            while info is None or not is_built(info):
                if info is None or waited >= self._patience:
                    state = (
                        "is gone"
                        if info is None
                        else f"is still being built ({float(info['percent_indexed']):.0%})"
                    )
                    raise BackendUnavailableError(
                        f"the index {name!r} {state}; try again in a moment"
                    )
                await asyncio.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, _LONGEST_PAUSE)
                info = await self._info(name)

"""Opening a space: its stamp and its indexes are looked for, made if they are missing, checked.

The order is what makes it safe without a lock. A stamp is stored first, unfinished; then the
indexes are made; then the stamp is finished. So where a stamp is finished, an index that is missing
was dropped, and is made of the records that are there. Where there was none, the indexes start
empty: to look for records, the server would look at all its keys, which are many where others use
it, too. If there are records all the same, they are of a handle that was open when the server was
emptied. It will find the stamp to be another one, and tell the indexes of what it wrote before it
acknowledges that (`RedisBackend._written`).
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

_Infos = dict[str, dict[str, Any] | None]


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

    async def prepared(self, ours: Fingerprint, *, known: Stamp | None) -> Stamp:
        """Return the stamp of the space once its indexes are there and whole.

        Or the stamp as it is, if it is for vectors of another kind than ``ours``.

        Args:
            ours: what the vectors are.
            known: the stamp that the space had before, if it was open already.

        Raises:
            BackendError: there are indexes of others, or of another kind.
            BackendUnavailableError: an index is still being built, or all is being deleted.
        """
        layout = self._layout
        names = [layout.index]
        if not self._commands.is_cluster:
            names.append(layout.counting_index)
        infos = {name: await self._info(name) for name in names}
        stamp = await self._stored()
        if stamp is None:
            stamp = await self._agreed(self._next_stamp(ours, infos, known))
        if stamp.fingerprint != ours:
            return stamp
        scan = stamp.is_finished or known is not None
        made = {}
        for name in names:
            info = infos[name]
            if name == layout.index:
                info = info or await self._created(
                    create_command(layout, ours, self._vectors, scan=scan)
                )
                check_index(layout, info, ours, self._vectors)
            else:
                info = info or await self._created(create_counting_command(layout, scan=scan))
                check_keys(layout, name, info)
            made[name] = info
        await self._wait_until_built(made)
        return stamp if stamp.is_finished else await self._finished(stamp)

    def _next_stamp(self, ours: Fingerprint, infos: _Infos, known: Stamp | None) -> Stamp:
        """Return the stamp to store where there is none."""
        there = [name for name, info in infos.items() if info is not None]
        if not there:
            return Stamp.new(ours)
        if known is None:
            raise BackendError(
                f"there is an index {there[0]!r}, and the key {self._layout.fingerprint_key!r}, "
                f"which says whose vectors it holds, is missing. If the index is not of this "
                f"backend, choose another index_name or space; if the key was lost, restore it"
            )
        return known  # the key was lost under this handle, evicted perhaps; the rest is there

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

    async def _agreed(self, stamp: Stamp) -> Stamp:
        """Store ``stamp`` if no other process was faster; return what is stored."""
        await self._commands.one("SET", self._layout.fingerprint_key, stamp.text, "NX")
        stored = await self._stored()
        if stored is None:
            raise self._vanished(f"the key {self._layout.fingerprint_key!r}")
        return stored

    async def _finished(self, stamp: Stamp) -> Stamp:
        finished = stamp.finished()
        key = self._layout.fingerprint_key
        await self._commands.one("EVAL", scripts.FINISH, 1, key, stamp.text, finished.text)
        if await self._stored() != finished:  # as it is if another process has finished it
            raise self._vanished(f"the key {key!r}")
        return finished

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

"""Calls in the style of ``agent_memory_server``, and what they mean to agent-memory.

That server passes every argument with every call: ``None`` where there is no filter, the weight of
a hybrid search with every search, and three arguments that agent-memory does not have:
``text_scorer``, ``server_side_recency`` and ``recency_params``. `ServerStyleDatabase` takes such
calls. What has no counterpart is refused; nothing is passed on half understood.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from typing import Any, Unpack

from pydantic import ValidationError

from agent_memory import (
    Capability,
    Expression,
    InvalidArgumentError,
    MemoryRecord,
    MemoryRecordResults,
    MemoryVectorDatabase,
    RecencyParams,
    SearchMode,
)
from agent_memory.filters import FILTERS, FilterArguments
from agent_memory.scope import ScopeArguments, ScopedMemories

TEXT_SCORER = "BM25STD"
"""The only scorer of words that there is: BM25, the default of that server under its name there."""


class ServerStyleDatabase(MemoryVectorDatabase):
    """A database that takes calls in the style of ``agent_memory_server``, and those of ours.

    Beyond what `MemoryVectorDatabase` takes:

    - A filter that is ``None`` is no filter, so a variable that is unexpectedly ``None`` widens the
      call to everybody's memories, as it does there. `scoped` handles take no such filter.
    - ``hybrid_alpha`` may come with any search; it counts in hybrid search alone.
    - ``text_scorer`` may be ``"BM25STD"``.
    - ``server_side_recency=True`` ranks by recency, ``recency_params`` says how: a mapping of the
      fields of `RecencyParams`. Without the former the latter has no effect, as the caller ranks.

    Anything else that the database behind it does not take is an `InvalidArgumentError`.

    Args:
        database: any database that takes the arguments of agent-memory. Closing this closes it.
    """

    def __init__(self, database: MemoryVectorDatabase) -> None:
        self.database = database

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.database.capabilities

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        return await self.database.add_memories(memories)

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        return await self.database.update_memories(memories)

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return await self.database.delete_memories(memory_ids)

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        return await self.database.get_memories(memory_ids)

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        return await self.database.search_memories(query, **search_arguments(arguments))

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        return await self.database.list_memories(**_without_absent_filters(arguments))

    async def count_memories(self, **arguments: Any) -> int:
        return await self.database.count_memories(**_without_absent_filters(arguments))

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> AsyncIterator[MemoryRecord]:
        async for record in self.database.iter_memories(where=where, **filters):
            yield record

    def scoped(self, **fields: Unpack[ScopeArguments]) -> ScopedMemories:
        """Return a handle confined to one tenant; it takes the arguments of agent-memory alone."""
        return self.database.scoped(**fields)

    async def ping(self) -> None:
        await self.database.ping()

    async def aclose(self) -> None:
        await self.database.aclose()


def takes_server_style(database: MemoryVectorDatabase) -> bool:
    """Tell whether a backend is left to read arguments in the style of that server itself.

    So is one that does not know ``recency``, an argument of agent-memory. The core's own wrappers
    pass on whatever they are given, and are not meant.
    """
    backend = getattr(database, "unhooked", database)  # hooks around it pass on what they get
    if type(backend).__module__.partition(".")[0] == "agent_memory":
        return False
    return "recency" not in inspect.signature(backend.search_memories).parameters


def search_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a search of agent-memory that a call in that server's style means.

    Raises:
        InvalidArgumentError: an argument has no counterpart.
    """
    asked = _without_absent_filters(arguments)
    scorer = asked.pop("text_scorer", None)
    if scorer is not None and scorer != TEXT_SCORER:
        raise InvalidArgumentError(
            f"text_scorer={scorer!r}: words are ranked by BM25 on every backend; leave it out, or "
            f"pass {TEXT_SCORER!r}"
        )
    if asked.get("search_mode", SearchMode.SEMANTIC) != SearchMode.HYBRID:
        asked.pop("hybrid_alpha", None)
    recency = _recency(asked.pop("server_side_recency", None), asked.pop("recency_params", None))
    if recency is not None:
        if asked.get("recency") is not None:
            raise InvalidArgumentError(
                "recency and server_side_recency ask for the same: give one of them"
            )
        asked["recency"] = recency
    return asked


def _recency(wanted: object, params: object) -> RecencyParams | None:
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidArgumentError(f"server_side_recency={wanted!r}: expected True, False or None")
    if params is not None and not isinstance(params, Mapping):
        raise InvalidArgumentError(
            f"recency_params: expected a mapping of settings, got {type(params).__name__}"
        )
    try:
        recency = RecencyParams.model_validate(dict(params or {}))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
        raise InvalidArgumentError(
            f"recency_params: {problems}; there are {', '.join(RecencyParams.model_fields)}"
        ) from error
    return recency if wanted else None


def _without_absent_filters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in arguments.items() if value is not None or name not in FILTERS
    }

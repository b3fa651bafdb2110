"""A handle confined to one tenant: what it adds belongs to the scope, what it sees is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent_memory.database import Capability, MemoryVectorDatabase, narrowed
from agent_memory.errors import BackendClosedError, InvalidArgumentError, ScopeError
from agent_memory.filters import Expression, FilterArguments, as_filter
from agent_memory.models import MemoryRecord, MemoryRecordResults, Tag

_TAG: TypeAdapter[str] = TypeAdapter(Tag, config=ConfigDict(defer_build=True))


class ScopeArguments(TypedDict, total=False):
    """The fields that a scope can fix; at least one of them."""

    namespace: str
    user_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Exact values of one or more of namespace, user_id and session_id."""

    fields: Mapping[str, str]
    """Field name to the value that every record in the scope has."""

    @classmethod
    def of(cls, **fields: Unpack[ScopeArguments]) -> Scope:
        """Return the scope of these fields.

        Raises:
            InvalidArgumentError: no field, an unknown one, or a value that no record can have.
        """
        known = tuple(ScopeArguments.__annotations__)
        if not fields:
            raise InvalidArgumentError(f"a scope needs at least one of {', '.join(known)}")
        for name, value in fields.items():
            if name not in known:
                raise InvalidArgumentError(
                    f"a scope has no field {name!r}: there are {', '.join(known)}"
                )
            try:
                _TAG.validate_python(value, strict=True)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]["msg"]
                raise InvalidArgumentError(f"scoped({name}={value!r}): {problem}") from None
        return cls({name: fields[name] for name in known if name in fields})  # type: ignore[literal-required]

    def contains(self, record: MemoryRecord) -> bool:
        """Tell whether ``record`` lies in the scope."""
        return all(getattr(record, name) == value for name, value in self.fields.items())

    def stamped(self, record: MemoryRecord) -> MemoryRecord:
        """Return a copy of ``record`` that names the scope.

        Raises:
            ScopeError: the record names another one.
        """
        for name, value in self.fields.items():
            if getattr(record, name) not in (None, value):
                raise ScopeError(
                    f"the record {record.id!r} has {name}={getattr(record, name)!r}, "
                    f"this handle is confined to {name}={value!r}"
                )
        return record.model_copy(update=dict(self.fields))

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.fields.items())


class ScopedMemories(MemoryVectorDatabase):
    """A database confined to a `Scope`; closing it leaves the one that it came from open."""

    def __init__(self, database: MemoryVectorDatabase, scope: Scope) -> None:
        self._database = database
        self.scope = scope
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._database.capabilities

    def scoped(self, **fields: Unpack[ScopeArguments]) -> ScopedMemories:
        """Return a handle confined to this scope and to ``fields`` besides.

        Raises:
            ScopeError: a field contradicts this scope.
        """
        narrower = Scope.of(**fields)
        for name, value in narrower.fields.items():
            if self.scope.fields.get(name, value) != value:
                raise ScopeError(f"{name}={value!r} lies outside this scope ({self.scope})")
        merged: Any = {**self.scope.fields, **narrower.fields}
        return self._open_database().scoped(**merged)

    async def add_memories(self, memories: list[MemoryRecord]) -> list[str]:
        database = self._open_database()
        return await database._add_within(self._stamped(memories), self.scope)

    async def update_memories(self, memories: list[MemoryRecord]) -> int:
        database = self._open_database()
        return await database._update_within(self._stamped(memories), self.scope)

    async def delete_memories(self, memory_ids: list[str]) -> int:
        return await self._open_database()._delete_within(memory_ids, self.scope)

    async def get_memories(self, memory_ids: list[str]) -> list[MemoryRecord]:
        found = await self._open_database().get_memories(memory_ids)
        return [record for record in found if self.scope.contains(record)]

    async def search_memories(self, query: str, **arguments: Any) -> MemoryRecordResults:
        return await self._open_database().search_memories(query, **self._confined(arguments))

    async def list_memories(self, **arguments: Any) -> MemoryRecordResults:
        return await self._open_database().list_memories(**self._confined(arguments))

    async def count_memories(self, **arguments: Any) -> int:
        return await self._open_database().count_memories(**self._confined(arguments))

    async def iter_memories(
        self, *, where: Expression | None = None, **filters: Unpack[FilterArguments]
    ) -> AsyncIterator[MemoryRecord]:
        arguments: Any = {**filters} if where is None else {**filters, "where": where}
        async for record in self._open_database().iter_memories(**self._confined(arguments)):
            yield record

    async def ping(self) -> None:
        await self._open_database().ping()

    async def aclose(self) -> None:
        """Close this handle alone; the database that it came from stays open."""
        self._closed = True

    def _open_database(self) -> MemoryVectorDatabase:
        if self._closed:
            raise BackendClosedError(f"this scoped handle ({self.scope}) is closed: make another")
        return self._database

    def _stamped(self, memories: object) -> list[MemoryRecord]:
        if not isinstance(memories, (list, tuple)):
            raise InvalidArgumentError(f"expected a list of records, got {type(memories).__name__}")
        for each in memories:
            if not isinstance(each, MemoryRecord):
                raise InvalidArgumentError(f"expected a MemoryRecord, got {type(each).__name__}")
        return [self.scope.stamped(each) for each in memories]

    def _confined(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the scope ANDed to whatever they filter by."""
        confined = dict(arguments)
        for name, value in self.scope.fields.items():
            confined = narrowed(confined, as_filter(name, value))
        return confined

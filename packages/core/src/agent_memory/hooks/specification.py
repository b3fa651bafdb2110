"""The hook specifications: when each hook runs, what it may change, what its failure means.

How plug-ins are found is in `agent_memory.hooks.loading`, how they are run in
`agent_memory.hooks.database`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pluggy import HookimplMarker, HookspecMarker

from agent_memory.models import MemoryRecord, MemoryRecordResult

T = TypeVar("T")

PROJECT = "agent_memory"
"""What pluggy knows these hooks by."""

hookspec = HookspecMarker(PROJECT)
hookimpl = HookimplMarker(PROJECT)
"""Marks a function or method of a plug-in as the implementation of the hook of its name."""


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One call of a method of the database, as its hooks see it.

    It holds no text, no query and no record: those are passed to the hooks that are about them.
    ``arguments`` holds the values of filters.
    """

    operation: str
    """The method: ``add_memories``, ``update_memories``, ``delete_memories``, ``search_memories``,
    ``get_memories``, ``list_memories``, ``count_memories`` or ``iter_memories``."""
    backend: str
    """The backend's registered name; else the import path of its factory."""
    space: str | None
    """The space that the handle works in; ``None`` if the backend does not say."""
    scope: Mapping[str, str] = field(default_factory=dict)
    """The fields that the handle is confined to; empty for a handle without a scope."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The keyword arguments of a search, list, count or iteration, filters of the scope included;
    read-only."""
    ids: tuple[str, ...] = ()
    """The ids given, until a call that reads has an answer: then those of the memories returned."""
    count: int | None = None
    """``None`` until the backend has answered; then how many memories were stored, replaced,
    deleted, counted or returned."""
    notes: dict[object, Any] = field(default_factory=dict)
    """What one hook leaves for another hook of the same call; use the plug-in as the key."""


class HookSpecification:
    """The hooks that there are. A plug-in implements those that it needs.

    An implementation takes any of the parameters, by name. Except for `around_call` it may be a
    plain function or a coroutine function: what can be awaited is awaited.

    Whatever a hook that runs before the call raises refuses it: nothing is embedded, read or
    stored, and the caller gets that very exception. What a hook raises afterwards reaches the
    caller as a `HookFailedError`, because the call has been done by then.
    """

    @hookspec
    def around_call(self, call: Call) -> AbstractAsyncContextManager[object] | None:
        """Return a context in which the call and all its other hooks run, or ``None``.

        Around every call of every method, whether it succeeds, fails or is cancelled. The context
        sees the exception of a call; it may not suppress it.
        """

    @hookspec
    def before_add(
        self, call: Call, memories: list[MemoryRecord]
    ) -> list[MemoryRecord] | Awaitable[list[MemoryRecord] | None] | None:
        """Refuse records, or change them on their way in, before they are embedded.

        ``memories`` are valid copies, not the caller's objects: change them where they are, or
        return others. Ids stay as they are, in order. On a scoped handle, so do the scope's fields.
        """

    @hookspec
    def after_add(
        self, call: Call, memories: list[MemoryRecord], ids: list[str]
    ) -> Awaitable[None] | None:
        """Learn what has been stored."""

    @hookspec
    def before_update(
        self, call: Call, memories: list[MemoryRecord]
    ) -> list[MemoryRecord] | Awaitable[list[MemoryRecord] | None] | None:
        """As `before_add`, for `update_memories`."""

    @hookspec
    def after_update(
        self, call: Call, memories: list[MemoryRecord], updated: int
    ) -> Awaitable[None] | None:
        """Learn what has been replaced; ``updated`` of ``memories`` existed."""

    @hookspec
    def before_delete(self, call: Call, memory_ids: list[str]) -> Awaitable[None] | None:
        """Refuse a deletion. The ids are a copy: changing them changes nothing."""

    @hookspec
    def after_delete(
        self, call: Call, memory_ids: list[str], deleted: int
    ) -> Awaitable[None] | None:
        """Learn what has been deleted; ``deleted`` of the ids existed."""

    @hookspec
    def before_search(self, call: Call, query: str) -> str | Awaitable[str | None] | None:
        """Refuse a search, or return another query; it is what gets embedded.

        Filters cannot be changed.
        """

    @hookspec
    def after_search(
        self, call: Call, query: str, memories: list[MemoryRecordResult]
    ) -> list[MemoryRecordResult] | Awaitable[list[MemoryRecordResult] | None] | None:
        """Change what is returned; none may be left out or added, ids and order stay.

        On a scoped handle, so do the scope's fields. If it fails, nothing is returned.
        """

    @hookspec
    def before_read(self, call: Call) -> Awaitable[None] | None:
        """Refuse to get, list, count or iterate. An iteration asks for each batch that it reads."""

    @hookspec
    def after_read(
        self, call: Call, memories: list[MemoryRecord]
    ) -> list[MemoryRecord] | Awaitable[list[MemoryRecord] | None] | None:
        """As `after_search`, for what get, list and iteration return; not run by a count."""

"""Records on their way in: checked, copied so that the caller may go on with his, and hashed.

How a record is validated is in `agent_memory.models`, how it is stored in the engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from agent_memory.columns import FIELDS, OBJECTS, Columns, transposed
from agent_memory.errors import InvalidArgumentError
from agent_memory.models import (
    JsonObject,
    MemoryRecord,
    MemoryRecordResult,
    MemoryTypeEnum,
    ensure_encodable,
    memory_hash,
)

_T = TypeVar("_T")

_INLINE = 64
"""Up to this many records are prepared on the event loop; more leave it for a thread."""
_TAGS = ("id", "text", "extraction_strategy", "discrete_memory_extracted")
_OPTIONAL_TAGS = ("session_id", "user_id", "namespace", "memory_hash")
_LISTS = ("topics", "entities", "extracted_from")
_TIMES = ("created_at", "last_accessed", "updated_at")
_OPTIONAL_TIMES = ("event_date", "persisted_at")
_NOT_STORED = MemoryRecordResult.model_fields.keys() - set(FIELDS)
_TOO_MANY = 2**63
_PART = 64
"""How many records are looked at together."""


def require_records(memories: object) -> None:
    """Raise `InvalidArgumentError` unless ``memories`` is a list or tuple of records."""
    if not isinstance(memories, (list, tuple)):
        raise InvalidArgumentError(f"expected a list of records, got {type(memories).__name__}")
    for each in memories:
        if not isinstance(each, MemoryRecord):
            raise InvalidArgumentError(f"expected a MemoryRecord, got {type(each).__name__}")


def stored_columns(records: Sequence[MemoryRecord]) -> Columns:
    """Return valid copies of ``records`` with their hashes, by column.

    Raises:
        InvalidArgumentError: a record is not valid any more; lists, metadata and copies may have
            been changed without validation.
    """
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for start in range(0, len(records), _PART):
        part = records[start : start + _PART]
        copies = _copies_if_plain(part)
        if copies is None:
            copies = Columns.of(map(_validated_copy, part))
        for name, values in copies.items():
            columns[name] += values
    columns["memory_hash"] = [
        *map(
            memory_hash,
            columns["memory_type"],
            columns["namespace"],
            columns["session_id"],
            columns["text"],
            columns["user_id"],
        )
    ]
    return Columns(columns)


async def stored_forms(memories: Sequence[MemoryRecord]) -> tuple[Sequence[str], Columns]:
    """Return the ids of all records, and the stored form of each id's last record.

    See `require_records` and `stored_columns`.
    """

    def forms() -> tuple[Sequence[str], Columns]:
        columns = stored_columns(memories)
        return columns["id"], latest(columns)

    require_records(memories)
    return await offload(len(memories), forms)


async def stored_copies(memories: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    """Return the stored form of every record, as a record."""
    require_records(memories)
    return await offload(len(memories), lambda: stored_columns(memories).to_records())


async def offload(size: int, work: Callable[[], _T]) -> _T:
    """Run ``work`` on ``size`` records here if they are few, else in a thread, off the loop."""
    return work() if size <= _INLINE else await asyncio.to_thread(work)


def latest(columns: Columns) -> Columns:
    """Return each id's last record."""
    positions = {memory_id: position for position, memory_id in enumerate(columns["id"])}
    if len(positions) == columns.count:
        return columns
    return columns.take([*positions.values()])


def _validated_copy(record: MemoryRecord) -> MemoryRecord:
    fields = record.__dict__
    if type(record) is not MemoryRecord:
        fields = {name: value for name, value in fields.items() if name not in _NOT_STORED}
    try:
        return MemoryRecord.model_validate(fields)
    except ValidationError as error:
        name = fields.get("id", "without an id")
        raise InvalidArgumentError(f"the record {name!r} became invalid: {error}") from error


def _copies_if_plain(records: Sequence[MemoryRecord]) -> Columns | None:
    """Return copies if each field is, to the type, what validation makes of it, else ``None``.

    So are nearly all records, and to see that field by field for many of them costs a tenth of
    validating each. ``None`` says nothing about the records: it leaves them to the validators.
    """
    fields = [each.__dict__ for each in records]
    if {*map(len, fields)} != {len(FIELDS)}:
        return None
    try:
        columns = transposed(fields)
    except KeyError:
        return None
    if not (_are_plain_strings(columns) and _are_plain_others(columns)):
        return None
    for name in _LISTS:
        columns[name] = [None if tags is None else tags.copy() for tags in columns[name]]
    # One for all that are empty: to make two for each record costs the most of this.
    nothing: dict[str, Any] = {}
    try:
        for name in OBJECTS:
            columns[name] = [
                _json_validator()(value) if value else nothing for value in columns[name]
            ]
    except ValidationError:
        return None
    return Columns(columns)


def _are_plain_strings(columns: dict[str, Sequence[Any]]) -> bool:
    strings: list[Any] = [*chain.from_iterable(map(columns.__getitem__, _TAGS))]
    for name in _OPTIONAL_TAGS:
        strings += [each for each in columns[name] if each is not None]
    for name in _LISTS:
        for tags in columns[name]:
            if tags is not None:
                if type(tags) is not list:
                    return False
                strings += tags
    return (
        {*map(type, strings)} == {str}
        and all(strings)
        and not any(map(str.isspace, columns["text"]))
        and {*columns["discrete_memory_extracted"]} <= {"f", "t"}
        and _is_encodable("".join(strings))
    )


def _are_plain_others(columns: dict[str, Sequence[Any]]) -> bool:
    times: list[Any] = [*chain.from_iterable(map(columns.__getitem__, _TIMES))]
    for name in _OPTIONAL_TIMES:
        times += [each for each in columns[name] if each is not None]
    objects = chain.from_iterable(map(columns.__getitem__, OBJECTS))
    counts = columns["access_count"]
    return (
        {*map(type, times)} == {datetime}
        and all(each.tzinfo is UTC for each in times)
        and {*map(type, columns["memory_type"])} == {MemoryTypeEnum}
        and {*map(type, objects)} == {dict}
        and {*map(type, columns["pinned"])} == {bool}
        and {*map(type, counts)} == {int}
        and min(counts) >= 0
        and max(counts) < _TOO_MANY
    )


@cache
def _json_validator() -> Callable[[Any], dict[str, Any]]:
    # Made when it is first of use: importing this module must not wait for it.
    return TypeAdapter(JsonObject).validate_python


def _is_encodable(text: str) -> bool:
    try:
        ensure_encodable(text)
    except ValueError:
        return False
    return True

"""Records on their way in: checked, copied so that the caller may go on with his, and hashed.

How a record is validated is in `agent_memory.models`, how it is stored in the engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar

from pydantic import ValidationError

from agent_memory.errors import InvalidArgumentError
from agent_memory.models import MemoryRecord, MemoryRecordResult, MemoryTypeEnum, ensure_encodable

_T = TypeVar("_T")

_INLINE = 64
"""Up to this many records are prepared on the event loop; more leave it for a thread."""
_OPTIONAL_TAGS = ("session_id", "user_id", "namespace", "memory_hash")
_LISTS = ("topics", "entities", "extracted_from")
_OPTIONAL_TIMES = ("event_date", "persisted_at")
_required_of = itemgetter(
    "id",
    "text",
    "extraction_strategy",
    "discrete_memory_extracted",
    "memory_type",
    "metadata",
    "extraction_strategy_config",
    "created_at",
    "last_accessed",
    "updated_at",
    "pinned",
    "access_count",
)
_FIELDS = MemoryRecord.model_fields.keys()
_NOT_STORED = MemoryRecordResult.model_fields.keys() - _FIELDS
_TOO_MANY = 2**63


def require_records(memories: object) -> None:
    """Raise `InvalidArgumentError` unless ``memories`` is a list or tuple of records."""
    if not isinstance(memories, (list, tuple)):
        raise InvalidArgumentError(f"expected a list of records, got {type(memories).__name__}")
    for each in memories:
        if not isinstance(each, MemoryRecord):
            raise InvalidArgumentError(f"expected a MemoryRecord, got {type(each).__name__}")


def stored_form(record: MemoryRecord) -> MemoryRecord:
    """Return a valid copy of ``record`` with its hash.

    Raises:
        InvalidArgumentError: the record is not valid any more; lists, metadata and copies may have
            been changed without validation.
    """
    copy = _copy_if_plain(record) or _validated_copy(record)
    copy.__dict__["memory_hash"] = copy.compute_hash()  # valid as it is: no second validation
    return copy


async def stored_forms(memories: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    """Return the stored form of every record; see `require_records` and `stored_form`."""
    require_records(memories)
    return await offload(len(memories), lambda: [stored_form(each) for each in memories])


async def offload(size: int, work: Callable[[], _T]) -> _T:
    """Run ``work`` on ``size`` records here if they are few, else in a thread, off the loop."""
    return work() if size <= _INLINE else await asyncio.to_thread(work)


def latest(records: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    """Return each id's last record."""
    return list({each.id: each for each in records}.values())


def _validated_copy(record: MemoryRecord) -> MemoryRecord:
    fields = record.__dict__
    if type(record) is not MemoryRecord:
        fields = {name: value for name, value in fields.items() if name not in _NOT_STORED}
    try:
        return MemoryRecord.model_validate(fields)
    except ValidationError as error:
        name = fields.get("id", "without an id")
        raise InvalidArgumentError(f"the record {name!r} became invalid: {error}") from error


def _copy_if_plain(record: MemoryRecord) -> MemoryRecord | None:
    """Return a copy if each field is, to the type, what validation makes of it, else ``None``.

    So are nearly all records, and to see that costs a third of validating them. ``None`` says
    nothing about the record: metadata, for one, is left to the validators.
    """
    fields: dict[str, Any] = record.__dict__
    if fields.keys() != _FIELDS:
        return None
    (
        record_id,
        text,
        strategy,
        discrete,
        memory_type,
        metadata,
        configuration,
        created_at,
        last_accessed,
        updated_at,
        pinned,
        access_count,
    ) = _required_of(fields)
    if not (
        type(memory_type) is MemoryTypeEnum
        and type(metadata) is type(configuration) is dict
        and not metadata
        and not configuration
        and type(created_at) is type(last_accessed) is type(updated_at) is datetime
        and created_at.tzinfo is last_accessed.tzinfo is updated_at.tzinfo is UTC
        and type(pinned) is bool
        and type(access_count) is int
        and 0 <= access_count < _TOO_MANY
        and (discrete == "f" or discrete == "t")
    ):
        return None
    copy = {**fields, "metadata": {}, "extraction_strategy_config": {}}
    strings = [record_id, text, strategy, discrete]
    for name in _OPTIONAL_TAGS:
        tag = fields[name]
        if tag is not None:
            strings.append(tag)
    for name in _LISTS:
        tags = fields[name]
        if tags is not None:
            if type(tags) is not list:
                return None
            strings += tags
            copy[name] = tags.copy()
    for name in _OPTIONAL_TIMES:
        moment = fields[name]
        if moment is not None and (type(moment) is not datetime or moment.tzinfo is not UTC):
            return None
    for each in strings:
        if type(each) is not str or not each:
            return None
    if text.isspace() or not _is_encodable("".join(strings)):
        return None
    return MemoryRecord.from_trusted(copy)


def _is_encodable(text: str) -> bool:
    try:
        ensure_encodable(text)
    except ValueError:
        return False
    return True

"""A `MemoryRecord` as a row of the table ``records``, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from agent_memory import MemoryRecord, MemoryTypeEnum
from agent_memory_inmemory.predicates import EPOCH, microseconds

_encoded = json.JSONEncoder(ensure_ascii=False).encode
"""json.dumps with this option would make an encoder for each value."""

COLUMNS = (
    "id",
    "text",
    "session_id",
    "user_id",
    "namespace",
    "memory_type",
    "topics",
    "entities",
    "extracted_from",
    "metadata",
    "event_date",
    "created_at",
    "last_accessed",
    "updated_at",
    "persisted_at",
    "pinned",
    "access_count",
    "memory_hash",
    "discrete_memory_extracted",
    "extraction_strategy",
    "extraction_strategy_config",
)


def to_columns(record: MemoryRecord) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`: times as microseconds, lists and objects as JSON."""
    return (
        record.id,
        record.text,
        record.session_id,
        record.user_id,
        record.namespace,
        record.memory_type.value,
        _list_json(record.topics),
        _list_json(record.entities),
        _list_json(record.extracted_from),
        _object_json(record.metadata),
        _moment(record.event_date),
        microseconds(record.created_at),
        microseconds(record.last_accessed),
        microseconds(record.updated_at),
        _moment(record.persisted_at),
        record.pinned,
        record.access_count,
        record.memory_hash,
        record.discrete_memory_extracted,
        record.extraction_strategy,
        _object_json(record.extraction_strategy_config),
    )


def from_columns(values: Sequence[Any]) -> MemoryRecord:
    """Return the record of a row; it was validated when it was stored."""
    return MemoryRecord.from_trusted(
        {
            "id": values[0],
            "text": values[1],
            "session_id": values[2],
            "user_id": values[3],
            "namespace": values[4],
            "memory_type": MemoryTypeEnum(values[5]),
            "topics": None if values[6] is None else json.loads(values[6]),
            "entities": None if values[7] is None else json.loads(values[7]),
            "extracted_from": None if values[8] is None else json.loads(values[8]),
            "metadata": {} if values[9] is None else json.loads(values[9]),
            "event_date": _datetime_or_none(values[10]),
            "created_at": to_datetime(values[11]),
            "last_accessed": to_datetime(values[12]),
            "updated_at": to_datetime(values[13]),
            "persisted_at": _datetime_or_none(values[14]),
            "pinned": bool(values[15]),
            "access_count": values[16],
            "memory_hash": values[17],
            "discrete_memory_extracted": values[18],
            "extraction_strategy": values[19],
            "extraction_strategy_config": {} if values[20] is None else json.loads(values[20]),
        }
    )


def list_from_json(text: str | None) -> list[str]:
    """Return the elements of a list column, none of them if it is NULL."""
    return [] if text is None else json.loads(text)


def _list_json(values: list[str] | None) -> str | None:
    return None if values is None else _encoded(values)


def _object_json(value: dict[str, Any]) -> str | None:
    # Most records have none, and NULL takes no room.
    return _encoded(value) if value else None


def _moment(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def to_datetime(value: int) -> datetime:
    """Return the moment of a time column, in UTC."""
    return EPOCH + timedelta(microseconds=value)


def _datetime_or_none(value: int | None) -> datetime | None:
    return None if value is None else to_datetime(value)

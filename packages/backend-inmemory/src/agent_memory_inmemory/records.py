"""A `MemoryRecord` as a row of the table ``records``, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from json.encoder import encode_basestring
from typing import Any

from agent_memory import MemoryRecord, MemoryTypeEnum
from agent_memory_inmemory.predicates import EPOCH, microseconds

_object_json = json.JSONEncoder(ensure_ascii=False).encode
"""json.dumps with this option would make an encoder for each value."""

USUAL_COLUMNS = (
    "id",
    "text",
    "session_id",
    "user_id",
    "namespace",
    "memory_type",
    "topics",
    "created_at",
    "last_accessed",
    "updated_at",
    "memory_hash",
)
RARE_COLUMNS = (
    "entities",
    "extracted_from",
    "metadata",
    "event_date",
    "persisted_at",
    "pinned",
    "access_count",
    "discrete_memory_extracted",
    "extraction_strategy",
    "extraction_strategy_config",
)
"""Those that most records leave as they are; then the table's defaults stand for them."""
RARE_DEFAULTS = (None, None, None, None, None, 0, 0, "f", "discrete", None)
COLUMNS = USUAL_COLUMNS + RARE_COLUMNS


def usual_columns(record: MemoryRecord) -> tuple[Any, ...]:
    """Return the values of `USUAL_COLUMNS`: times as microseconds, lists as JSON."""
    # Out of the dict, as a record's attributes take twice as long.
    fields = record.__dict__
    return (
        fields["id"],
        fields["text"],
        fields["session_id"],
        fields["user_id"],
        fields["namespace"],
        fields["memory_type"].value,
        None if fields["topics"] is None else _list_json(fields["topics"]),
        microseconds(fields["created_at"]),
        microseconds(fields["last_accessed"]),
        microseconds(fields["updated_at"]),
        fields["memory_hash"],
    )


def rare_columns(record: MemoryRecord) -> tuple[Any, ...] | None:
    """Return the values of `RARE_COLUMNS`; ``None`` if all of them are the table's defaults."""
    fields = record.__dict__
    entities, sources = fields["entities"], fields["extracted_from"]
    metadata, configuration = fields["metadata"], fields["extraction_strategy_config"]
    event_date, persisted_at = fields["event_date"], fields["persisted_at"]
    values = (
        None if entities is None else _list_json(entities),
        None if sources is None else _list_json(sources),
        # Most records have none, and NULL takes no room.
        _object_json(metadata) if metadata else None,
        None if event_date is None else microseconds(event_date),
        None if persisted_at is None else microseconds(persisted_at),
        1 if fields["pinned"] else 0,  # for a bool, sqlite3 looks for an adapter first
        fields["access_count"],
        fields["discrete_memory_extracted"],
        fields["extraction_strategy"],
        _object_json(configuration) if configuration else None,
    )
    return None if values == RARE_DEFAULTS else values


def from_columns(values: Sequence[Any]) -> MemoryRecord:
    """Return the record of a row; it was validated when it was stored."""
    (
        memory_id,
        text,
        session_id,
        user_id,
        namespace,
        memory_type,
        topics,
        created_at,
        last_accessed,
        updated_at,
        memory_hash,
        entities,
        extracted_from,
        metadata,
        event_date,
        persisted_at,
        pinned,
        access_count,
        discrete_memory_extracted,
        extraction_strategy,
        extraction_strategy_config,
    ) = values
    return MemoryRecord.from_trusted(
        {
            "id": memory_id,
            "text": text,
            "session_id": session_id,
            "user_id": user_id,
            "namespace": namespace,
            "memory_type": MemoryTypeEnum(memory_type),
            "topics": None if topics is None else json.loads(topics),
            "entities": None if entities is None else json.loads(entities),
            "extracted_from": None if extracted_from is None else json.loads(extracted_from),
            "metadata": {} if metadata is None else json.loads(metadata),
            "event_date": _datetime_or_none(event_date),
            "created_at": to_datetime(created_at),
            "last_accessed": to_datetime(last_accessed),
            "updated_at": to_datetime(updated_at),
            "persisted_at": _datetime_or_none(persisted_at),
            "pinned": bool(pinned),
            "access_count": access_count,
            "memory_hash": memory_hash,
            "discrete_memory_extracted": discrete_memory_extracted,
            "extraction_strategy": extraction_strategy,
            "extraction_strategy_config": {}
            if extraction_strategy_config is None
            else json.loads(extraction_strategy_config),
        }
    )


def _list_json(values: list[str]) -> str:
    # What the encoder returns, without the encoder that it makes for each list.
    return f"[{', '.join(map(encode_basestring, values))}]"


def list_from_json(text: str | None) -> list[str]:
    """Return the elements of a list column, none of them if it is NULL."""
    return [] if text is None else json.loads(text)


def to_datetime(value: int) -> datetime:
    """Return the moment of a time column, in UTC."""
    return EPOCH + timedelta(microseconds=value)


def _datetime_or_none(value: int | None) -> datetime | None:
    return None if value is None else to_datetime(value)

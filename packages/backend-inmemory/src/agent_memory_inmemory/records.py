"""A `MemoryRecord` as a row of the table ``records``, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from json.encoder import encode_basestring
from typing import Any

from pydantic_core import from_json

from agent_memory import MemoryRecord, MemoryTypeEnum
from agent_memory.backend import Columns
from agent_memory_inmemory.predicates import EPOCH, microseconds

_object_json = json.JSONEncoder(ensure_ascii=False).encode
"""json.dumps with this option would make an encoder for each value."""

COLUMNS = (
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
DEFAULTS: dict[str, Any] = {
    "session_id": None,
    "user_id": None,
    "namespace": None,
    "topics": None,
    "entities": None,
    "extracted_from": None,
    "metadata": {},
    "event_date": None,
    "persisted_at": None,
    "pinned": False,
    "access_count": 0,
    "discrete_memory_extracted": "f",
    "extraction_strategy": "discrete",
    "extraction_strategy_config": {},
}
"""Values for which the table's own defaults stand; most records have most of them."""


def to_columns(records: Columns) -> dict[str, Sequence[Any]]:
    """Return the values of those of `COLUMNS` for which the table's defaults do not stand.

    Times are microseconds, lists and objects are JSON.
    """
    columns: dict[str, Sequence[Any]] = {}
    for name in COLUMNS:
        values = records[name]
        if name in DEFAULTS and values.count(DEFAULTS[name]) == records.count:
            continue
        convert = _CONVERSIONS.get(name)
        columns[name] = convert(values) if convert else values
    return columns


def from_rows(rows: Iterable[Sequence[Any]]) -> list[MemoryRecord]:
    """Return the records of rows of `COLUMNS`; they were validated when they were stored."""
    return MemoryRecord.all_from_trusted(map(_fields_of, rows))


def _fields_of(values: Sequence[Any]) -> dict[str, Any]:
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
    return {
        "id": memory_id,
        "text": text,
        "session_id": session_id,
        "user_id": user_id,
        "namespace": namespace,
        "memory_type": MemoryTypeEnum(memory_type),
        "topics": None if topics is None else from_json(topics),
        "entities": None if entities is None else from_json(entities),
        "extracted_from": None if extracted_from is None else from_json(extracted_from),
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


def _list_column(values: Sequence[list[str] | None]) -> list[str | None]:
    return [None if each is None else _list_json(each) for each in values]


def _object_column(values: Sequence[dict[str, Any]]) -> list[str | None]:
    # Most records have none, and NULL takes no room.
    return [_object_json(each) if each else None for each in values]


def _time_column(values: Sequence[datetime]) -> list[int]:
    # As `microseconds` does, which to call takes as long as to compute.
    return [
        (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        for each in values
        for since in (each - EPOCH,)
    ]


def _optional_time_column(values: Sequence[datetime | None]) -> list[int | None]:
    return [None if each is None else microseconds(each) for each in values]


def _type_column(values: Sequence[MemoryTypeEnum]) -> list[str]:
    # Not `value`, a property of enumerations that takes ten times as long.
    return [each._value_ for each in values]


def _flag_column(values: Sequence[bool]) -> list[int]:
    return [*map(int, values)]  # for a bool, sqlite3 looks for an adapter first


_CONVERSIONS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "memory_type": _type_column,
    "pinned": _flag_column,
    **dict.fromkeys(("topics", "entities", "extracted_from"), _list_column),
    **dict.fromkeys(("metadata", "extraction_strategy_config"), _object_column),
    **dict.fromkeys(("created_at", "last_accessed", "updated_at"), _time_column),
    **dict.fromkeys(("event_date", "persisted_at"), _optional_time_column),
}


def _list_json(values: list[str]) -> str:
    # What the encoder returns, without the encoder that it makes for each list.
    return f"[{', '.join(map(encode_basestring, values))}]"


def list_from_json(text: str | None) -> list[str]:
    """Return the elements of a list column, none of them if it is NULL."""
    return [] if text is None else from_json(text)


def to_datetime(value: int) -> datetime:
    """Return the moment of a time column, in UTC."""
    return EPOCH + timedelta(0, 0, value)


def _datetime_or_none(value: int | None) -> datetime | None:
    return None if value is None else to_datetime(value)

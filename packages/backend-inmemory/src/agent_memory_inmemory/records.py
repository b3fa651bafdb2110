"""A `MemoryRecord` as a row of the table ``records``, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any

from pydantic_core import from_json

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

_rare_of = itemgetter(*RARE_COLUMNS)
_DEFAULTS_OF_RECORDS: tuple[Any, ...] = (None, None, {}, None, None, False, 0, "f", "discrete", {})


def is_usual(record: MemoryRecord) -> bool:
    """Tell whether the table's defaults stand for all of `RARE_COLUMNS`."""
    return bool(_rare_of(record.__dict__) == _DEFAULTS_OF_RECORDS)


def usual_columns(records: Sequence[MemoryRecord]) -> list[list[Any]]:
    """Return the values of `USUAL_COLUMNS` of all records, column by column.

    Times are microseconds, lists are JSON. By columns, as row by row takes half as long again.
    """
    # Out of the dicts, as a record's attributes take twice as long, too.
    fields = [each.__dict__ for each in records]
    return [
        [each["id"] for each in fields],
        [each["text"] for each in fields],
        [each["session_id"] for each in fields],
        [each["user_id"] for each in fields],
        [each["namespace"] for each in fields],
        # Not `value`, a property of enumerations that takes ten times as long.
        [each["memory_type"]._value_ for each in fields],
        _list_column(fields, "topics"),
        _time_column(fields, "created_at"),
        _time_column(fields, "last_accessed"),
        _time_column(fields, "updated_at"),
        [each["memory_hash"] for each in fields],
    ]


def all_columns(records: Sequence[MemoryRecord]) -> list[list[Any]]:
    """Return the values of `COLUMNS` of all records, column by column."""
    fields = [each.__dict__ for each in records]
    return [
        *usual_columns(records),
        _list_column(fields, "entities"),
        _list_column(fields, "extracted_from"),
        _object_column(fields, "metadata"),
        _optional_time_column(fields, "event_date"),
        _optional_time_column(fields, "persisted_at"),
        [int(each["pinned"]) for each in fields],  # for a bool, sqlite3 looks for an adapter first
        [each["access_count"] for each in fields],
        [each["discrete_memory_extracted"] for each in fields],
        [each["extraction_strategy"] for each in fields],
        _object_column(fields, "extraction_strategy_config"),
    ]


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


_Fields = Sequence[Mapping[str, Any]]


def _list_column(fields: _Fields, name: str) -> list[str | None]:
    return [None if (values := each[name]) is None else _list_json(values) for each in fields]


def _object_column(fields: _Fields, name: str) -> list[str | None]:
    # Most records have none, and NULL takes no room.
    return [_object_json(value) if (value := each[name]) else None for each in fields]


def _time_column(fields: _Fields, name: str) -> list[int]:
    # As `microseconds` does, which to call takes as long as to compute.
    return [
        (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        for each in fields
        for since in (each[name] - EPOCH,)
    ]


def _optional_time_column(fields: _Fields, name: str) -> list[int | None]:
    return [None if (moment := each[name]) is None else microseconds(moment) for each in fields]


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

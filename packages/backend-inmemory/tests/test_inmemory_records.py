"""A record as a row and back: nothing is lost."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from hypothesis import given, settings

from agent_memory import MemoryRecord
from agent_memory_inmemory.records import COLUMNS, from_columns, list_from_json, to_columns
from agent_memory_testkit.strategies import records


@given(records())
def test_a_record_comes_back_equal_from_sqlite(record: MemoryRecord) -> None:
    connection = sqlite3.connect(":memory:")
    try:
        marks = ", ".join("?" * len(COLUMNS))
        values = connection.execute(f"SELECT {marks}", to_columns(record)).fetchone()
    finally:
        connection.close()
    back = from_columns(values)
    assert back == record
    assert back.model_dump_json() == record.model_dump_json()  # which tells -0.0 from 0.0
    assert type(back.pinned) is bool
    assert all(each is None or each.tzinfo is UTC for each in (back.event_date, back.created_at))


@settings(max_examples=25)
@given(records())
def test_a_record_is_one_value_for_each_column(record: MemoryRecord) -> None:
    values = dict(zip(COLUMNS, to_columns(record), strict=True))
    assert set(COLUMNS) == set(MemoryRecord.model_fields)
    assert list_from_json(values["topics"]) == (record.topics or [])
    assert (values["topics"] is None) == (record.topics is None)


def test_times_are_microseconds_since_1970() -> None:
    moments = [datetime.min, datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.max]
    record = MemoryRecord(
        id="a",
        text="a",
        created_at=moments[0],
        updated_at=moments[1],
        last_accessed=moments[2],
    )
    values = dict(zip(COLUMNS, to_columns(record), strict=True))
    assert values["created_at"] == -62_135_596_800_000_000
    assert values["updated_at"] == -1
    assert values["last_accessed"] == 253_402_300_799_999_999
